"use strict";
const all = (selector, within = document) => Array.from(within.querySelectorAll(selector));
const state = { verdict: "", words: "" };

function apply() {
  for (const area of all("section.area")) {
    let shown = 0;
    for (const scenario of all("details.scenario", area)) {
      const fits = (!state.verdict || scenario.dataset.verdict === state.verdict) && scenario.dataset.words.includes(state.words);
      scenario.hidden = !fits;
      shown += fits;
    }
    area.hidden = !shown;
  }
  document.getElementById("nothing").hidden = all("section.area").some((area) => !area.hidden);
}

for (const button of all("button[data-verdict]")) {
  button.addEventListener("click", () => {
    state.verdict = button.dataset.verdict;
    for (const other of all("button[data-verdict]")) other.setAttribute("aria-pressed", String(other === button));
    apply();
  });
}
document.getElementById("search").addEventListener("input", (event) => {
  state.words = event.target.value.trim().toLowerCase();
  apply();
});
document.getElementById("expand").addEventListener("click", (event) => {
  const open = event.target.dataset.open !== "yes";
  event.target.dataset.open = open ? "yes" : "";
  event.target.textContent = open ? "Close all" : "Open all";
  for (const scenario of all("details.scenario")) if (!scenario.hidden) scenario.open = open;
});
document.getElementById("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
});
document.addEventListener("click", async (event) => {
  const button = event.target.closest("button.copy");
  if (!button) return;
  const code = button.parentElement.querySelector("pre");
  try {
    await navigator.clipboard.writeText(code.textContent);
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(code);
    button.textContent = "Selected";
  }
  setTimeout(() => (button.textContent = "Copy"), 1500);
});

function openTarget() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  if (target.matches("details")) {
    target.hidden = false;
    target.closest("section").hidden = false;
    target.open = true;
  }
  target.scrollIntoView();
}
addEventListener("hashchange", openTarget);
openTarget();
