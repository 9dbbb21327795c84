// Makes elements. Text is always text: nothing that comes from the API is ever read as HTML.

export function h(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key === "value") element.value = value;
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== undefined && child !== null && child !== false));
  return element;
}

let number = 0;

// A labelled input, with a hint that screen readers read with it.
export function field(label, name, options = {}) {
  const id = `field-${++number}`;
  const { hint, kind = "input", choices, value, ...attributes } = options;
  const control = kind === "select"
    ? h("select", { id, name, ...attributes }, choices.map((each) => h("option", { value: each, selected: each === value }, each || "found out by itself")))
    : h(kind, { id, name, value, ...attributes, "aria-describedby": hint ? `${id}-hint` : undefined });
  return h("div", { class: "field" }, h("label", { for: id }, label), control, hint && h("small", { id: `${id}-hint` }, hint));
}

export function button(text, act, kind = "") {
  return h("button", { type: "button", class: kind, onclick: act }, text);
}

export function table(caption, columns, rows, nothing) {
  if (!rows.length) return h("p", { class: "quiet" }, nothing);
  return h("div", { class: "wide", role: "region", "aria-label": caption, tabindex: "0" },
    h("table", {}, h("caption", {}, caption),
      h("thead", {}, h("tr", {}, columns.map((each) => h("th", { scope: "col" }, each)))),
      h("tbody", {}, rows.map((cells) => h("tr", {}, cells.map((cell, index) =>
        index === 0 ? h("th", { scope: "row" }, cell) : h("td", {}, cell)))))));
}

export function badge(text, kind) {
  return h("span", { class: `badge ${kind}` }, text);
}

// A dialog with a form. `send` gets the form's values; what it throws is shown in the form.
export function ask(title, fields, action, send) {
  const problem = h("p", { class: "problem", role: "alert" });
  const submit = h("button", { type: "submit", class: "first" }, action);
  const label = `dialog-${++number}`;
  const dialog = h("dialog", { "aria-labelledby": label },
    h("form", { onsubmit: async (event) => {
      event.preventDefault();
      problem.textContent = "";
      submit.disabled = true;
      submit.setAttribute("aria-busy", "true");
      try {
        await send(Object.fromEntries(new FormData(event.target)));
        dialog.close();
      } catch (error) {
        problem.textContent = error.message;
      } finally {
        submit.disabled = false;
        submit.removeAttribute("aria-busy");
      }
    } }, h("h2", { id: label }, title), fields, problem,
    h("div", { class: "actions" }, button("Cancel", () => dialog.close()), submit)));
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

export function show(title, ...content) {
  const label = `dialog-${++number}`;
  const dialog = h("dialog", { "aria-labelledby": label, class: "large" },
    h("h2", { id: label }, title), content,
    h("div", { class: "actions" }, h("button", { type: "button", class: "first", onclick: () => dialog.close() }, "Close")));
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}

export function code(text) {
  return h("div", { class: "code" }, h("pre", { tabindex: "0" }, h("code", {}, text)),
    h("button", { type: "button", class: "small", onclick: async (event) => {
      await navigator.clipboard?.writeText(text);
      event.target.textContent = "Copied";
    } }, "Copy"));
}
