// Which estimators are shown, under which settings.

import { exported } from "./api.js";
import { toggle } from "./charts.js";
import { button, fold, h, number } from "./dom.js";

const USUAL = 3;
const USUAL_TYPES = ["turn-gae", "grpo", "reinforce++"];

// The run's own estimator, and the first others of another type that can be called.
export function titlesShown(credit, asked) {
  const possible = credit.estimators.filter((e) => !e.why_not);
  const known = (asked || "").split("|").filter((title) => possible.some((e) => e.title === title));
  if (known.length) return known;
  const own = possible.find((e) => e.title === credit.own);
  const shown = own ? [own] : [];
  const usual = USUAL_TYPES.flatMap((type) => possible.filter((e) => e.type === type));
  for (const e of [...usual, ...possible]) if (shown.length < USUAL && !shown.some((other) => other.type === e.type)) shown.push(e);
  return shown.map((e) => e.title);
}

// One row for each decision of each estimator shown.
export function decisionRows(credit, titles) {
  return credit.estimators.filter((e) => titles.includes(e.title) && e.decisions).flatMap((e) => Object.entries(e.decisions).map(([decision, values]) => ({
    title: e.title, decision, values, scale: e.scale, label: decision === "response" ? e.title : `${e.title}, ${decision}`,
    alpha: (n) => shade(values[n], e.scale),
  })));
}

export function shade(value, scale) {
  if (value === null || value === undefined) return 0;
  return Math.min(1, (Math.abs(value) / scale) ** 0.75).toFixed(3);
}

export function creditPanel(state, { choose, change }) {
  if (!state.credit) return state.problem ? h("div", { class: "notes" }, h("strong", {}, "No credit"), h("p", {}, state.problem)) : h("p", { class: "muted" }, "Computing credit …");
  const { credit, shown, changes, problem } = state;
  const chips = credit.estimators.map((e) => toggle([e.title, e.title === credit.own ? h("small", {}, " the run's own") : null], shown.includes(e.title), () => choose(e.title), { disabled: Boolean(e.why_not), title: e.why_not || "" }));
  const out = credit.estimators.filter((e) => e.why_not);
  const used = credit.controls.filter((control) => control.of.some((title) => shown.includes(title)));
  return h("div", { class: "panel card" },
    h("div", { class: "chips", role: "group", "aria-label": "Estimators" }, chips),
    problem ? h("p", { class: "problem", role: "alert" }, problem) : null,
    exported ? ownSettings(used) : fold(state.unfolded, "settings", ["Settings of the estimators", Object.keys(changes).length ? h("span", { class: "badge cut" }, "changed by hand") : null], [
      h("div", { class: "controls" }, used.map((control) => one(control, changes, change))),
      h("p", { class: "sub" }, `Computed from ${credit.episodes} stored episodes in ${credit.milliseconds} ms. Nothing is stored. `, Object.keys(changes).length ? button("Back to the run's settings", () => { for (const name of Object.keys(changes)) if (name !== Object.keys(changes)[0]) delete changes[name]; change(Object.keys(changes)[0], undefined); }, { class: "plain" }) : null),
    ], { kind: "adjust" }),
    out.length ? fold(state.unfolded, "left-out", `${out.length} estimator${out.length > 1 ? "s" : ""} left out`, h("ul", {}, out.map((e) => h("li", {}, h("b", {}, e.title), `: ${e.why_not}`))), { kind: "adjust" }) : null);
}

// An exported page has credit under the settings of the run alone, and says so.
function ownSettings(controls) {
  return h("p", { class: "sub" }, "Credit under the run's own settings", controls.length ? `: ${controls.map((control) => `${control.name.replaceAll("_", " ")} ${typeof control.value === "number" ? number(control.value) : control.value}`).join(", ")}. ` : ". ",
    "This page is an export, and nothing in it can be computed anew. To see credit under other settings, open the run with ", h("code", {}, "hiper view"), ".");
}

function one(control, changes, change) {
  const id = `set-${control.name}`;
  const value = control.name in changes ? changes[control.name] : control.value;
  const label = h("label", { for: id }, control.name.replaceAll("_", " "), h("small", {}, ` ${control.of.length > 2 ? `${control.of.length} estimators` : control.of.join(", ")}`));
  if (control.kind === "switch") return h("div", { class: "control" }, h("input", { id, type: "checkbox", checked: value, onchange: (event) => change(control.name, event.target.checked) }), label);
  if (control.kind === "choice") return h("div", { class: "control" }, label, h("select", { id, onchange: (event) => change(control.name, event.target.value) }, control.choices.map((choice) => h("option", { selected: choice === value }, choice))));
  const share = value >= 0 && value <= 1;
  const shown = h("output", { for: id }, number(value, 3));
  return h("div", { class: "control" }, label, h("div", { class: "slide" }, h("input", { id, type: share ? "range" : "number", min: share ? 0 : null, max: share ? 1 : null, step: share ? 0.01 : "any", value, oninput: (event) => {
    shown.textContent = number(Number(event.target.value), 3);
    if (share) change(control.name, Number(event.target.value));
  }, onchange: (event) => change(control.name, Number(event.target.value)) }), shown));
}
