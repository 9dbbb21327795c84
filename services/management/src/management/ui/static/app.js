// The console: who is signed in, the pages, and going from one to the other.
import { get, post, remove } from "/static/api.js";
import { button, field, h } from "/static/dom.js";
import { models } from "/static/models.js";
import { published } from "/static/published.js";
import { developer, kubectl, logs, resources, system } from "/static/tools.js";

const PAGES = [
  { path: "/models", title: "Models", view: models },
  { path: "/published", title: "Published", view: published },
  { path: "/developer", title: "Developer", view: developer },
  { path: "/system", title: "System", view: system, admin: true },
  { path: "/resources", title: "Resources", view: resources, admin: true },
  { path: "/logs", title: "Logs", view: logs, admin: true },
  { path: "/kubectl", title: "kubectl", view: kubectl, admin: true },
];
const main = document.getElementById("main");
let user = null;
let turns = 0;

export function tell(text, kind = "") {
  const told = document.getElementById("told");
  told.className = kind;
  told.textContent = text;
  clearTimeout(tell.timer);
  tell.timer = setTimeout(() => { told.textContent = ""; told.className = ""; }, 8000);
}

export async function open(path, push = true) {
  if (push && location.pathname !== path) history.pushState(null, "", path);
  const turn = ++turns; // who goes on before a page has come does not want it any more
  if (!user) return signIn();
  const allowed = PAGES.filter((page) => !page.admin || user.isAdmin);
  const page = allowed.find((each) => each.path === location.pathname) ?? allowed[0];
  document.title = `${page.title} · Inference in a Box`;
  frame(allowed, page);
  main.replaceChildren(h("p", { class: "quiet" }, "Loading …"));
  try {
    const content = await page.view({ user, tell, again: () => open(location.pathname, false) });
    if (turn !== turns) return;
    main.replaceChildren(h("h1", {}, page.title), ...[content].flat());
  } catch (error) {
    if (turn !== turns) return;
    if (error.status === 401) { user = null; return signIn("Your session has ended: sign in again."); }
    main.replaceChildren(h("h1", {}, page.title), h("p", { class: "problem", role: "alert" }, error.message),
      button("Try again", () => open(location.pathname, false), "first"));
  }
  if (push) main.focus();
}

function frame(pages, current) {
  document.getElementById("pages").replaceChildren(...pages.map((page) =>
    h("a", { href: page.path, "aria-current": page === current ? "page" : undefined, onclick: (event) => {
      if (event.metaKey || event.ctrlKey || event.shiftKey) return;
      event.preventDefault();
      open(page.path);
    } }, page.title)));
  document.getElementById("who").replaceChildren(
    h("span", { class: "user" }, user.isAdmin ? `${user.name} (administrator)` : `${user.name}, ${user.tenant}`),
    button("Sign out", async () => { await remove("/session"); user = null; signIn(); }, "small"));
}

function signIn(why = "") {
  document.title = "Sign in · Inference in a Box";
  document.getElementById("pages").replaceChildren();
  document.getElementById("who").replaceChildren();
  const problem = h("p", { class: "problem", role: "alert" }, why);
  const form = (title, fields, send) => h("form", { class: "card", onsubmit: async (event) => {
    event.preventDefault();
    problem.textContent = "";
    try {
      await send(Object.fromEntries(new FormData(event.target)));
      user = await get("/tenant");
      open(location.pathname === "/" ? "/models" : location.pathname);
    } catch (error) {
      problem.textContent = error.message;
    }
  } }, h("h2", {}, title), fields, h("button", { type: "submit", class: "first" }, "Sign in"));
  main.replaceChildren(h("h1", {}, "Sign in"), problem, h("div", { class: "cards" },
    form("Tenant", field("Token", "token", { kind: "textarea", rows: 4, required: true, spellcheck: "false", autocomplete: "off", hint: "your platform token, as you send it in Authorization" }),
      ({ token }) => post("/session", { token: token.trim().replace(/^Bearer\s+/i, "") })),
    form("Administrator", [
      field("Name", "username", { required: true, autocomplete: "username" }),
      field("Password", "password", { type: "password", required: true, autocomplete: "current-password" }),
    ], (values) => post("/admin/login", values))));
}

addEventListener("popstate", () => open(location.pathname, false));
try { user = await get("/tenant"); } catch { user = null; }
open(location.pathname, false);
