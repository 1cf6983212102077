// One run: where it stands, and the curves of its metrics.

import { get } from "./api.js";
import { chart, legend } from "./charts.js";
import { ago, duration, empty, h, notes, number, percent, replace } from "./dom.js";
import { note } from "./place.js";

export const FIRST = ["success/all", "episode/turns", "invalid/all", "plan/switch_rate", "plan/segment_turns", "policy/entropy",
  "policy/kl", "critic/explained_variance_low", "critic/explained_variance_high", "critic/explained_variance_switch",
  "critic/explained_variance_turn", "critic/explained_variance_token"];

export async function learningView(at) {
  let run = await get("run", { run: at.run });
  let filter = at.metric || "";
  let all = Boolean(at.all);
  const top = h("div", {});
  const charts = h("div", { class: "charts" });
  const more = h("div", { class: "more" });

  function draw() {
    replace(top, header(run));
    replace(charts, chosenMetrics(run, filter, all).map((name) => metricChart(run, name)));
    if (!charts.childNodes.length) replace(charts, empty(h("p", {}, run.metrics.iteration.length ? "No metric has this name." : "No iteration is finished yet. Its numbers appear here by themselves.")));
    const count = Object.keys(run.metrics).length - 1;
    replace(more, filter || count <= FIRST.length ? null : h("button", { type: "button", class: "plain", onclick: () => { all = !all; note({ all: all ? 1 : null }); draw(); } },
      all ? "Show the main metrics" : `Show all ${count} metrics`));
  }

  draw();
  const element = h("section", { class: "page" }, top,
    h("div", { class: "head" }, h("h2", {}, "Metrics"), h("div", { class: "actions" }, h("input", {
      type: "search", placeholder: "Filter metrics", "aria-label": "Filter metrics", "data-filter": true, value: filter,
      oninput: (event) => { filter = event.target.value; note({ metric: filter }); draw(); },
    }))), charts, more);
  return { element, title: run.folder, refresh: async () => { run = await get("run", { run: at.run }); draw(); } };
}

function header(run) {
  const rang = new Map();
  for (const { iteration, name } of run.alarms_rang) rang.set(name, [...(rang.get(name) || []), iteration]);
  return h("div", {},
    h("div", { class: "head" }, h("div", {}, h("h1", {}, run.id), h("p", { class: "sub" },
      [run.name, run.environment, run.method, run.seed === null ? null : `seed ${run.seed}`].filter(Boolean).join(" · "))),
    h("span", { class: `state ${run.state}` }, run.state)),
    notes(run.notes), run.diverged ? h("div", { class: "notes bad" }, h("strong", {}, "Training diverged"), h("p", {}, run.diverged)) : null,
    h("div", { class: "facts" },
      fact("iteration", `${run.iteration}${run.iterations ? ` of ${run.iterations}` : ""}`),
      fact("success in training", percent(run.success)),
      run.held_out.map((e) => fact(`held out: ${e.split}`, h("span", {}, percent(e.success), h("small", {}, ` [${Math.round(100 * e.low)}, ${Math.round(100 * e.high)}]`)), `after ${e.iteration}, of ${e.episodes}`)),
      run.state === "training" ? fact("time to go", duration(run.seconds_left)) : null,
      fact("last written", run.updated ? ago(run.updated) : "–")),
    heldOutChart(run),
    rang.size ? h("div", { class: "notes bad" }, h("strong", {}, "Alarms rang"), h("ul", {}, [...rang].map(([name, iterations]) => h("li", {}, h("b", {}, name), ` in iteration${iterations.length > 1 ? "s" : ""} ${ranges(iterations)}`)))) : null);
}

function fact(label, value, more) {
  return h("div", { class: "fact" }, h("div", { class: "label" }, label), h("div", { class: "value" }, value), more ? h("div", { class: "sub" }, more) : null);
}

export function heldOutLines(evaluations, colours) {
  const splits = [...new Set(evaluations.map((e) => e.split))];
  return splits.map((split, n) => {
    const own = evaluations.filter((e) => e.split === split);
    const outcomes = own.map((e) => e.card.outcomes.all);
    return { label: `held out: ${split}`, x: own.map((e) => e.iteration), y: outcomes.map((o) => o.success), low: outcomes.map((o) => o.interval[0]), high: outcomes.map((o) => o.interval[1]), points: true, colour: colours[n % colours.length] };
  });
}

function heldOutChart(run) {
  const training = { label: "training", x: run.metrics.iteration, y: run.metrics["success/all"] || [], colour: "--c7" };
  const lines = [training, ...heldOutLines(run.evaluations, ["--c0", "--c1", "--c2"])];
  if (!lines.some((line) => line.x.length)) return null;
  return h("div", { class: "card" }, chart({ title: "Success", unit: "share", meaning: "Share of episodes won; held-out tasks with 95% intervals", lines, alarms: run.alarms_rang.map((a) => a.iteration), height: 260 }),
    legend([...lines.map((line) => ({ label: line.label, colour: line.colour })), ...(run.alarms_rang.length ? [{ label: "an alarm rang", colour: "--bad" }] : [])]));
}

export function chosenMetrics(run, filter, all) {
  const names = Object.keys(run.metrics).filter((name) => name !== "iteration");
  const words = filter.toLowerCase().split(/\s+/).filter(Boolean);
  if (words.length) return names.filter((name) => words.every((word) => name.toLowerCase().includes(word)));
  const first = FIRST.filter((name) => names.includes(name));
  return all ? [...first, ...names.filter((name) => !first.includes(name))] : first;
}

function metricChart(run, name) {
  const { unit, meaning } = run.meanings[name] || {};
  const own = run.metrics[name];
  const known = run.metrics.iteration.map((i, n) => [i, own[n]]).filter(([, y]) => y !== null);
  const last = known.length ? known[known.length - 1][1] : null;
  const alarms = run.alarms_rang.filter((a) => watches(a.name, name)).map((a) => a.iteration);
  return h("div", { class: "card" }, chart({ title: name, unit, meaning, lines: [{ label: name, x: known.map(([i]) => i), y: known.map(([, y]) => y), colour: "--c0" }], alarms, height: 150 }),
    h("div", { class: "last" }, unit === "share" ? percent(last) : number(last)));
}

// The metric that an alarm watches, so that it is marked on the curve it is about.
const WATCHED = { entropy: "policy/entropy", kl: "policy/kl_reference", update_kl: "policy/kl", mismatch: "mismatch/kl", never_switched: "plan/never_switched",
  switch_rate: "plan/switch_rate", repeated_actions: "plan/repeated_actions", invalid: "invalid/all", without_spread: "group/without_spread" };

function watches(alarm, metric) {
  return (WATCHED[alarm] || alarm.replace(/^value_/, "critic/explained_variance_")) === metric;
}

function ranges(iterations) {
  const parts = [];
  for (const i of iterations) {
    const last = parts[parts.length - 1];
    if (last && last[1] === i - 1) last[1] = i;
    else parts.push([i, i]);
  }
  return parts.map(([a, b]) => (a === b ? a : `${a}–${b}`)).join(", ");
}

