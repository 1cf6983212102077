// Several runs: their curves, with bands over the seeds of a method, and the settings in which they differ.

import { get } from "./api.js";
import { chart, COLOURS, legend, overSeeds, toggle } from "./charts.js";
import { empty, h, notes, percent, replace } from "./dom.js";
import { FIRST } from "./learning.js";
import { link, note } from "./place.js";
import { shownSetting } from "./results.js";

const OF_ONE_RUN = new Set(["seed", "training.threads", "training.device", "learner.micro_batch_tokens", "sampler.batch_tokens"]);

export async function compareView(at) {
  const ids = (at.runs || "").split(",").filter(Boolean);
  let problems = [];
  // A run that is gone, or cannot be read, does not hide the others.
  async function read() {
    problems = [];
    const found = await Promise.all(ids.map((run) => get("run", { run }).catch((error) => { problems.push(`${run}: ${error.message}`); })));
    return found.filter(Boolean);
  }
  let runs = await read();
  if (!runs.length && problems.length) return { element: h("section", { class: "page" }, h("h1", {}, "Compare"), notes(problems)), title: "Compare" };
  if (!runs.length) return { element: empty(h("p", {}, "Choose runs in the list first.")), title: "Compare" };
  let bands = at.bands !== "0";
  let filter = at.metric || "";
  const body = h("div", { class: "stack" });

  function draw() {
    const groups = bands ? byMethod(runs) : runs.map((run) => ({ label: run.id, runs: [run] }));
    const names = metricNames(runs, filter);
    const evaluated = [...new Set(runs.flatMap((run) => run.evaluations.map((e) => e.split)))];
    replace(body, notes(problems),
      legend(groups.map((group, n) => ({ label: named(group), colour: COLOURS[n % 7], title: group.runs.map((run) => run.id).join("\n") }))),
      h("div", { class: "charts" }, evaluated.map((split) => h("div", { class: "card" }, chart({ title: `held out: ${split}`, unit: "share", meaning: groups.some((group) => group.runs.length > 1) ? "Mean success; bands from the lowest to the highest run" : "Success",
        lines: groups.map((group, n) => overSeeds(group.label, COLOURS[n % 7], group.runs.map((run) => curveOf(run, split)))), height: 190 }))),
      names.map((name) => h("div", { class: "card" }, chart({ title: name, unit: unitOf(runs, name), lines: groups.map((group, n) => overSeeds(group.label, COLOURS[n % 7],
        group.runs.filter((run) => run.metrics[name]).map((run) => ({ x: run.metrics.iteration, y: run.metrics[name] })))), alarms: [], height: 160 })))),
      h("h2", {}, "Settings that differ"), differences(runs));
  }

  draw();
  const element = h("section", { class: "page" }, h("div", { class: "head" }, h("h1", {}, `${runs.length} runs`), h("div", { class: "actions" },
    toggle("Seeds as bands", bands, (event) => { bands = !bands; event.target.setAttribute("aria-pressed", bands); note({ bands: bands ? null : 0 }); draw(); }),
    h("input", { type: "search", placeholder: "Filter metrics", "aria-label": "Filter metrics", "data-filter": true, value: filter, oninput: (event) => { filter = event.target.value; note({ metric: filter }); draw(); } }))), body);
  return { element, title: "Compare", refresh: async () => { runs = await read(); draw(); } };
}

// Runs of one method: its name, and how many runs and seeds there are.
function named({ label, runs }) {
  if (runs.length < 2) return label;
  const seeds = new Set(runs.map((run) => String(run.seed))).size;
  return seeds === runs.length ? `${label} (${seeds} seeds)` : `${runs.map((run) => run.id).slice(0, 3).join(", ")}${runs.length > 3 ? ", …" : ""} (${runs.length} runs, ${seeds} seed${seeds > 1 ? "s" : ""})`;
}

function curveOf(run, split) {
  const own = run.evaluations.filter((e) => e.split === split);
  return { x: own.map((e) => e.iteration), y: own.map((e) => e.card.outcomes.all.success) };
}

function unitOf(runs, name) {
  return runs.map((run) => run.meanings[name]).find(Boolean)?.unit;
}

function metricNames(runs, filter) {
  const names = new Set(runs.flatMap((run) => Object.keys(run.metrics)));
  names.delete("iteration");
  if (!filter) return FIRST.filter((name) => names.has(name));
  return [...names].filter((name) => name.toLowerCase().includes(filter.toLowerCase())).sort();
}

function method(run) {
  return JSON.stringify(Object.entries(run.settings).filter(([key]) => !OF_ONE_RUN.has(key)).map(([key, value]) => [key, typeof value === "string" ? value.replaceAll(`seed${run.seed}`, "seed*") : value]));
}

function byMethod(runs) {
  const groups = new Map();
  for (const run of runs) {
    const key = method(run);
    if (!groups.has(key)) groups.set(key, { label: run.id.replace(/-seed\d+$/, ""), runs: [] });
    groups.get(key).runs.push(run);
  }
  return [...groups.values()];
}

function differences(runs) {
  const keys = [...new Set(runs.flatMap((run) => Object.keys(run.settings)))];
  const differing = keys.filter((key) => new Set(runs.map((run) => JSON.stringify(run.settings[key]))).size > 1);
  if (!differing.length) return empty(h("p", {}, "All settings are equal."));
  return h("div", { class: "scroll" }, h("table", { class: "list settings" },
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "key"), runs.map((run) => h("th", { scope: "col" }, h("a", { href: link("learning", { run: run.id }) }, run.id), h("div", { class: "sub" }, percent(run.success)))))),
    h("tbody", {}, differing.map((key) => h("tr", {}, h("th", { scope: "row", class: "mono" }, key), runs.map((run) => h("td", { class: "mono" }, shownSetting(run.settings[key]))))))));
}
