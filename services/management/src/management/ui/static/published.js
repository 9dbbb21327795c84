// Published models: where they answer, how much they are used, their keys and examples.
import { get, post, put, remove } from "/static/api.js";
import { ask, badge, button, code, field, h, show, table } from "/static/dom.js";
import { at, connection, examples, limiting, limits, newKey, settings } from "/static/models.js";

export async function published(page) {
  const { publishedModels: found } = await get("/published-models");
  const rows = found.map((each) => [
    each.modelName,
    h("div", {}, h("code", {}, each.externalUrl), h("small", {}, `${each.namespace} · ${each.modelType} · key ${each.apiKey}`)),
    badge(each.status, each.status === "active" ? "good" : "waiting"),
    `${each.rateLimiting.requestsPerMinute}/min, ${each.rateLimiting.requestsPerHour}/h`,
    h("div", {}, `${each.usage.totalRequests} requests`, h("small", {}, `${each.usage.requestsToday} today${tokens(each)}`)),
    h("div", { class: "row" },
      button("Docs", () => show(`Using ${each.modelName}`, h("p", {}, h("code", {}, each.documentation.endpointUrl)), examples(each.documentation)), "small"),
      button("Test", () => test(each, page), "small"),
      button("Change", () => change(each, page), "small"),
      button("Rotate key", () => rotate(each, page), "small"),
      button("Unpublish", () => unpublish(each, page), "small danger")),
  ]);
  return [
    h("div", { class: "row" }, button("Refresh", page.again), button("Test history", history)),
    table("Published models", ["Model", "Address", "Status", "Limits", "Usage", "Actions"], rows, "Nothing is published yet. Publish a model on the page Models."),
  ];
}

const path = (each) => `/models/${each.modelName}/publish`;
const where = (each) => at({ namespace: each.namespace });
const tokens = (each) => each.modelType !== "openai" ? "" : ` · ${each.usage.tokensUsed ?? "unknown"} tokens`;

function change(each, page) {
  ask(`Change ${each.modelName}`, [
    field("Host", "publicHostname", { value: each.publicHostname, required: true }),
    field("Path", "externalPath", { value: each.externalPath, required: true }),
    limits(each.rateLimiting),
  ], "Change it", async (values) => {
    await put(path(each) + where(each), { config: { publicHostname: values.publicHostname, externalPath: values.externalPath, rateLimiting: limiting(values) } });
    page.tell(`${each.modelName} was changed; its key stays.`, "good");
    page.again();
  });
}

function rotate(each, page) {
  ask(`Rotate the key of ${each.modelName}?`, h("p", {}, "A new key works at once; the old one for a minute more."), "Rotate it", async () => {
    const told = await post(`${path(each)}/rotate-key${where(each)}`);
    page.again();
    newKey("The key was rotated", told.newApiKey);
  });
}

function unpublish(each, page) {
  ask(`Unpublish ${each.modelName}?`, h("p", {}, "Its address is gone and its key is worth nothing from now on."), "Unpublish it", async () => {
    await remove(path(each) + where(each));
    page.tell(`${each.modelName} is no longer published.`);
    page.again();
  });
}

function test(each, page) {
  const body = each.documentation.exampleRequests[0].body;
  ask(`Test ${each.modelName} from outside`, [
    field("API key", "apiKey", { type: "password", autocomplete: "off", hint: "it is sent with this call and kept nowhere" }),
    field("Body", "body", { kind: "textarea", rows: 7, spellcheck: "false", value: JSON.stringify(body, null, 2) }),
    connection(),
  ], "Ask it", async (values) => {
    let input;
    try { input = JSON.parse(values.body); } catch { throw new Error("The body is not valid JSON."); }
    const reply = await post("/publish/test/execute", {
      modelName: each.modelName, namespace: each.namespace, apiKey: values.apiKey || undefined, inputData: input, connectionSettings: settings(values),
    });
    show(`Answer ${reply.status} in ${Math.round(reply.milliseconds)} ms`, h("p", {}, h("code", {}, reply.url)), code(JSON.stringify(reply.body, null, 2)));
  });
}

async function history() {
  const { history: entries } = await get("/publish/test/history");
  const rows = entries.map((each) => [each.time, each.model, String(each.status), `${Math.round(each.milliseconds)} ms`, each.url]);
  show("Your last test calls", table("Test calls", ["Time", "Model", "Status", "Took", "Address"], rows, "You have made no test calls yet."));
}
