// Models: what there is, making and changing them, asking them, publishing them.
import { get, post, put, remove } from "/static/api.js";
import { ask, badge, button, code, field, h, show, table } from "/static/dom.js";

const FRAMEWORKS = ["sklearn", "tensorflow", "pytorch", "onnx", "xgboost"];
const METRICS = ["concurrency", "rps", "cpu", "memory"];
const number = (text) => (text === "" || text === undefined ? undefined : Number(text));
export const at = (model) => `?namespace=${encodeURIComponent(model.namespace)}`;

export async function models(page) {
  const [{ models: found }, { publishedModels }] = await Promise.all([get("/models"), get("/published-models")]);
  const isPublished = (model) => publishedModels.some((each) => each.modelName === model.name && each.namespace === model.namespace);
  const rows = found.map((model) => [
    model.name,
    model.namespace,
    badge(model.status, model.ready ? "good" : "waiting"),
    model.api === "openai" ? "language model" : "predictor",
    isPublished(model) ? badge("published", "good") : "–",
    h("div", { class: "row" },
      button("Test", () => test(model, page), "small"),
      !isPublished(model) && button("Publish", () => publish(model, page), "small first"),
      model.kind === "InferenceService" && button("Change", () => change(model, page), "small"),
      model.kind === "InferenceService" && button("Delete", () => drop(model, page), "small danger"),
      button("Details", () => show(model.name, code(JSON.stringify(model, null, 2))), "small")),
  ]);
  return [
    h("div", { class: "row" }, button("New model", () => create(page), "first"), button("Refresh", page.again)),
    table("Models", ["Name", "Namespace", "Status", "Kind", "Outside", "Actions"], rows, "There are no models yet. Make one, or ask your administrator."),
  ];
}

function scaling(values = {}) {
  return h("div", { class: "grid" },
    field("Least replicas", "minReplicas", { type: "number", min: 0, max: 100, value: values.minReplicas ?? 1 }),
    field("Most replicas", "maxReplicas", { type: "number", min: 1, max: 100, value: values.maxReplicas ?? 3 }),
    field("Scale target", "scaleTarget", { type: "number", min: 1, value: values.scaleTarget ?? 60 }),
    field("Scale metric", "scaleMetric", { kind: "select", choices: METRICS, value: values.scaleMetric ?? "concurrency" }));
}

const wish = (values) => ({
  framework: values.framework, storageUri: values.storageUri, scaleMetric: values.scaleMetric,
  minReplicas: number(values.minReplicas), maxReplicas: number(values.maxReplicas), scaleTarget: number(values.scaleTarget),
});

function create(page) {
  ask("New model", [
    field("Name", "name", { required: true, pattern: "[a-z]([\\-a-z0-9]*[a-z0-9])?", maxlength: 63, hint: "small letters, digits and dashes" }),
    page.user.isAdmin && field("Namespace", "namespace", { required: true, value: "tenant-a" }),
    field("Framework", "framework", { kind: "select", choices: FRAMEWORKS, value: "sklearn" }),
    field("Storage address", "storageUri", { required: true, placeholder: "gs://bucket/path", hint: "gs, s3, https, pvc, hdfs or oci" }),
    scaling(),
  ], "Make it", async (values) => {
    await post("/models", { ...wish(values), name: values.name, namespace: values.namespace });
    page.tell(`${values.name} is being made.`, "good");
    page.again();
  });
}

function change(model, page) {
  ask(`Change ${model.name}`, [
    field("Framework", "framework", { kind: "select", choices: FRAMEWORKS, value: model.predictor.framework }),
    field("Storage address", "storageUri", { value: model.predictor.storageUri, required: true }),
    scaling(model.predictor),
  ], "Change it", async (values) => {
    await put(`/models/${model.name}${at(model)}`, wish(values));
    page.tell(`${model.name} was changed.`, "good");
    page.again();
  });
}

function drop(model, page) {
  ask(`Delete ${model.name}?`, h("p", {}, "The model and its replicas are removed. This can't be undone."), "Delete it", async () => {
    await remove(`/models/${model.name}${at(model)}`);
    page.tell(`${model.name} was deleted.`);
    page.again();
  });
}

function sample(model) {
  return model.api === "openai"
    ? { model: model.name, messages: [{ role: "user", content: "Say something about flowers." }], max_tokens: 16 }
    : { instances: [[5.1, 3.5, 1.4, 0.2]] };
}

export function connection() {
  return h("details", {}, h("summary", {}, "Connect somewhere else (host, DNS override)"),
    h("div", { class: "grid" },
      field("Protocol", "protocol", { kind: "select", choices: ["http", "https"], value: "http" }),
      field("Host", "host", { placeholder: "tenant-a.inference-in-a-box" }),
      field("Port", "port", { type: "number", min: 1, max: 65535 }),
      field("Path", "path", { placeholder: "/v1/models/…:predict" }),
      field("Address of that host", "address", { placeholder: "10.0.0.1", hint: "DNS override: the host is looked up nowhere else" })));
}

export function settings(values) {
  if (!values.host) return undefined;
  const resolve = values.address ? [{ host: values.host, address: values.address }] : [];
  return { useCustom: true, protocol: values.protocol, host: values.host, port: number(values.port), path: values.path || undefined, dnsResolve: resolve };
}

function test(model, page) {
  ask(`Test ${model.name}`, [
    field("Body", "body", { kind: "textarea", rows: 8, spellcheck: "false", value: JSON.stringify(sample(model), null, 2) }),
    connection(),
  ], "Ask it", async (values) => {
    let body;
    try { body = JSON.parse(values.body); } catch { throw new Error("The body is not valid JSON."); }
    const reply = await post(`/models/${model.name}/predict${at(model)}`, { inputData: body, connectionSettings: settings(values) });
    show(`${model.name} answered`, code(JSON.stringify(reply, null, 2)));
  });
}

export function limits(values = { requestsPerMinute: 60, requestsPerHour: 1000 }) {
  return h("fieldset", {}, h("legend", {}, "Limits"), h("div", { class: "grid" },
    field("Requests a minute", "requestsPerMinute", { type: "number", min: 1, required: true, value: values.requestsPerMinute }),
    field("Requests an hour", "requestsPerHour", { type: "number", min: 1, required: true, value: values.requestsPerHour }),
    field("Burst in a second", "burstLimit", { type: "number", min: 1, value: values.burstLimit ?? "" }),
    field("Tokens an hour", "tokensPerHour", { type: "number", min: 1, value: values.tokensPerHour ?? "", hint: "language models only" })));
}

export function limiting(values) {
  return {
    requestsPerMinute: number(values.requestsPerMinute), requestsPerHour: number(values.requestsPerHour),
    burstLimit: number(values.burstLimit), tokensPerHour: number(values.tokensPerHour),
  };
}

function publish(model, page) {
  ask(`Publish ${model.name}`, [
    h("p", {}, "The model becomes reachable from outside with an API key of its own."),
    h("div", { class: "grid" },
      field("Type", "modelType", { kind: "select", choices: ["", "traditional", "openai"], value: "" }),
      field("Host", "publicHostname", { placeholder: "api.router.inference-in-a-box" }),
      field("Path", "externalPath", { placeholder: `/published/models/${model.name}` })),
    limits(),
    field("Allowed tenants", "allowedTenants", { placeholder: "everybody with the key", hint: "names, separated by commas: these must send their token as well" }),
  ], "Publish it", async (values) => {
    const tenants = values.allowedTenants.split(",").map((each) => each.trim()).filter(Boolean);
    const config = {
      tenantId: model.namespace, modelType: values.modelType || undefined, publicHostname: values.publicHostname || undefined,
      externalPath: values.externalPath || undefined, rateLimiting: limiting(values),
      authentication: tenants.length ? { allowedTenants: tenants } : undefined,
    };
    const { publishedModel } = await post(`/models/${model.name}/publish${at(model)}`, { config });
    page.again();
    newKey(`${model.name} is published`, publishedModel.apiKey, publishedModel.documentation);
  });
}

export function newKey(title, key, documentation) {
  show(title, h("p", {}, h("strong", {}, "Keep this key now: "), "it is not shown again."), h("div", { class: "key" }, code(key)),
    documentation && h("p", {}, "Ask it at ", h("code", {}, documentation.endpointUrl)),
    documentation && examples(documentation));
}

export function examples(documentation) {
  return h("div", {}, Object.entries(documentation.sdkExamples).map(([language, text], index) =>
    h("details", { open: index === 0 }, h("summary", {}, language), code(text))));
}
