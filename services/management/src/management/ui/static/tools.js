// The developer's console, and what administrators see.
import { call, get, post } from "/static/api.js";
import { badge, code, field, h, table } from "/static/dom.js";

// A form whose answer stands below it.
function asking(fields, action, send) {
  const answer = h("div", { role: "status", "aria-live": "polite" });
  const form = h("form", { class: "card", onsubmit: async (event) => {
    event.preventDefault();
    answer.replaceChildren(h("p", { class: "quiet" }, "Asking …"));
    try {
      answer.replaceChildren(await send(Object.fromEntries(new FormData(event.target))));
    } catch (error) {
      answer.replaceChildren(h("p", { class: "problem" }, error.message));
    }
  } }, fields, h("button", { type: "submit", class: "first" }, action));
  return [form, answer];
}

export async function developer() {
  return [
    h("p", {}, "Any call of the API with your own rights. Its ", h("a", { href: "/api/openapi.json" }, "OpenAPI document"), " describes them all."),
    ...asking([
      h("div", { class: "grid" },
        field("Method", "method", { kind: "select", choices: ["GET", "POST", "PUT", "DELETE"], value: "GET" }),
        field("Path below /api", "path", { value: "/models", required: true })),
      field("Body (JSON)", "body", { kind: "textarea", rows: 5, spellcheck: "false" }),
    ], "Send", async ({ method, path, body }) => {
      const given = body.trim() ? JSON.parse(body) : undefined;
      const told = await call(method, path.startsWith("/") ? path : `/${path}`, given);
      const data = given ? ` -H 'content-type: application/json' -d '${JSON.stringify(given)}'` : "";
      return h("div", {}, code(JSON.stringify(told, null, 2)),
        h("details", {}, h("summary", {}, "The same with curl"), code(`curl -X ${method} -H "Authorization: Bearer $TOKEN"${data} ${location.origin}/api${path}`)));
    }),
  ];
}

export async function system() {
  const [{ nodes, namespaces, deployments }, { tenants }, gateway] = await Promise.all([get("/admin/system"), get("/admin/tenants"), get("/admin/ai-gateway-service")]);
  return [
    table("Tenants", ["Name", "Status", "Since"], tenants.map((each) => [each.name, badge(each.status, "good"), each.created]), "There are no tenants."),
    table("Gateway conditions", ["Condition", "Status"], gateway.conditions.map((each) => [each.type, each.status]), "The gateway says nothing of itself."),
    table("Gateway listeners", ["Name", "Protocol", "Port"], gateway.listeners.map((each) => [each.name, each.protocol, String(each.port)]), "The gateway has no listener."),
    table("Nodes", ["Name", "Ready", "Version"], nodes.map((each) => [each.name, each.ready ? "yes" : "no", each.version]), "This cluster has no nodes: its parts run as processes."),
    table("Deployments", ["Name", "Namespace", "Ready"], deployments.map((each) => [each.name, each.namespace, `${each.ready}/${each.wanted}`]), "There are no deployments."),
    h("p", { class: "quiet" }, `${namespaces.length} namespaces: ${namespaces.map((each) => each.name).join(", ")}`),
  ];
}

export async function resources() {
  const { resources: kinds } = await get("/admin/resources");
  return Object.entries(kinds).map(([kind, found]) =>
    table(kind, ["Name", "Namespace", "Since"], found.map((each) => [each.name, each.namespace, each.created]), `There are no ${kind}.`));
}

export async function logs(page) {
  const { logs: entries } = await get("/admin/logs");
  const rows = entries.map((each) => [each.time, each.audit, badge(each.outcome, each.outcome === "done" ? "good" : "waiting"), [each.tenant, each.subject].filter(Boolean).join(" / "), each.model ?? each.command ?? ""]);
  return table("Audit log, newest first", ["Time", "Deed", "Outcome", "Who", "What"], rows, "Nothing has been done since the service started.");
}

export async function kubectl() {
  return [
    h("p", {}, "get, describe, logs and top, as kubectl has them. It only reads, and shows no Secrets."),
    ...asking(field("Command", "command", { value: "get publishedmodels -A", required: true, spellcheck: "false", autocomplete: "off" }), "Run",
      async ({ command }) => code((await post("/admin/kubectl", { command })).result)),
  ];
}
