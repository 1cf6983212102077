// Result cards of a run, and its settings.

import { get } from "./api.js";
import { h, empty, notes, percent, replace, number } from "./dom.js";
import { link } from "./place.js";

export async function resultsView(at) {
  let run = await get("run", { run: at.run });
  const body = h("div", {});
  const draw = () => replace(body, notes(run.notes), run.evaluations.length
    ? [...run.evaluations].reverse().map((evaluation, n) => resultCard(run, evaluation, n < 2))
    : empty(h("p", {}, "There is no evaluation yet.")));
  draw();
  return {
    element: h("section", { class: "page" }, h("div", { class: "head" }, h("h1", {}, "Result cards")), body),
    title: "Results", refresh: async () => { run = await get("run", { run: at.run }); draw(); },
  };
}

function resultCard(run, { iteration, split, card }, open) {
  const rows = Object.entries(card.outcomes);
  const facts = [["policy", card.checkpoint], ["weights", card.weights_sha256], ["environment", `${card.environment.name}, version ${card.environment.version}, at most ${card.environment.max_turns} turns`],
    ["panel", `${card.panel.name}: ${card.panel.tasks} tasks, sha256 ${card.panel.sha256}`], ["official", { true: "the published tasks", false: "not the published tasks" }[card.panel.official] || "unknown"],
    ["template", card.template], ["sampling", `temperature ${card.sampling.temperature}, at most ${card.sampling.max_tokens} tokens`], ["seed", card.seed], ["date", card.date], ["machine", card.machine], ["command", card.command], ["hiper", card.hiper]];
  return h("details", { class: "card result", open },
    h("summary", {}, h("span", { class: "strong" }, `${split}, after iteration ${iteration}`), h("span", { class: "big" }, percent(card.outcomes.all.success)),
      h("span", { class: "muted" }, `[${Math.round(100 * card.outcomes.all.interval[0])}, ${Math.round(100 * card.outcomes.all.interval[1])}] of ${card.outcomes.all.episodes}`)),
    h("div", { class: "scroll" }, h("table", { class: "list" }, h("thead", {}, h("tr", {}, ["task type", "episodes", "won", "success", "95% interval", "score", "turns", "out of turns", "invalid"].map((name, n) => h("th", { scope: "col", class: n ? "num" : null }, name)))),
      h("tbody", {}, rows.map(([type, o]) => h("tr", {}, h("th", { scope: "row" }, type), h("td", { class: "num" }, o.episodes), h("td", { class: "num" }, o.won), h("td", { class: "num strong" }, percent(o.success)),
        h("td", { class: "num" }, `[${(100 * o.interval[0]).toFixed(0)}, ${(100 * o.interval[1]).toFixed(0)}]`), h("td", { class: "num" }, number(o.score)), h("td", { class: "num" }, o.turns.toFixed(1)), h("td", { class: "num" }, o.truncated),
        h("td", { class: "num" }, percent(Object.values(o.invalid).reduce((a, b) => a + b, 0)))))))),
    h("p", {}, h("a", { href: link("episodes", { run: run.id, file: `eval-${String(iteration).padStart(5, "0")}-${split}` }) }, "Episodes of this evaluation")),
    h("dl", { class: "pairs" }, facts.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value === null ? "–" : String(value))])));
}

export async function settingsView(at) {
  const run = await get("run", { run: at.run });
  let filter = at.key || "";
  const body = h("tbody", {});
  const draw = () => replace(body, Object.entries(run.settings).filter(([key, value]) => `${key} ${JSON.stringify(value)}`.toLowerCase().includes(filter.toLowerCase()))
    .map(([key, value]) => h("tr", {}, h("th", { scope: "row", class: "mono" }, key), h("td", { class: "mono" }, shownSetting(value)))));
  draw();
  return {
    element: h("section", { class: "page" }, h("div", { class: "head" }, h("h1", {}, "Settings"), h("div", { class: "actions" }, h("input", {
      type: "search", placeholder: "Filter settings", "aria-label": "Filter settings", "data-filter": true, value: filter, oninput: (event) => { filter = event.target.value; draw(); },
    }))), notes(run.notes), h("div", { class: "scroll" }, h("table", { class: "list settings" }, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "key"), h("th", { scope: "col" }, "value"))), body))),
    title: "Settings",
  };
}

export function shownSetting(value) {
  if (value === undefined) return "(not set)";
  return typeof value === "string" ? value : JSON.stringify(value);
}
