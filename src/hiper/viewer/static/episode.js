// One episode: its turns under their subgoals, values and credit above them, and one turn in full.

import { exported, get } from "./api.js";
import { badge, button, empty, h, keepInSight, number, replace } from "./dom.js";
import { creditPanel, decisionRows, titlesShown } from "./credit.js";
import { go, link, note } from "./place.js";
import { indexOf } from "./rows.js";
import { strip } from "./strip.js";
import { turnCard } from "./turn.js";

const PATIENCE_MILLISECONDS = 60;
let remembered = null; // the estimators shown last, for the next episode

export async function episodeView(at) {
  const place = { run: at.run, file: at.file, n: at.n };
  const state = { turn: Math.max(0, (Number.parseInt(at.turn, 10) || 1) - 1), by: at.by || "credit", changes: settingsIn(at.set), shown: null, unfolded: new Set(), credit: null, problem: null };
  if (Object.keys(state.changes).length) state.unfolded.add("settings");
  const episode = await get("episode", place);
  state.turn = Math.min(state.turn, episode.turns.length - 1);
  const parts = { head: h("div", {}), strip: h("div", {}), panel: h("div", {}), turn: h("div", { class: "detail" }), transcript: h("div", { class: "transcript" }), same: h("div", { class: "same" }) };

  // Only what is shown is computed. An exported page has everything.
  const ask = (only) => get("credit", { ...place, set: Object.keys(state.changes).length ? JSON.stringify(state.changes) : null, only: exported ? null : only });

  async function credit() {
    const asked = at.est ?? remembered;
    try {
      state.credit = await ask(state.shown?.join("|") ?? asked);
      state.problem = null;
      episode.of = episode.of ?? state.credit.of;
      state.shown = state.shown || titlesShown(state.credit, asked);
      // The address, or another run, may have named estimators that are unknown here.
      if (state.credit.estimators.some((e) => state.shown.includes(e.title) && !e.decisions && !e.why_not)) state.credit = await ask(state.shown.join("|"));
      remembered = state.shown.join("|");
    } catch (error) {
      state.problem = error.message;
    }
  }

  // Credit under the settings in the address; if they are refused, credit under those of the run.
  async function firstCredit() {
    await credit();
    if (!state.problem || !Object.keys(state.changes).length) return;
    const { problem } = state;
    state.changes = {};
    note({ set: null });
    await credit();
    if (!state.problem) state.problem = `${problem}. This is credit under the run's own settings.`;
  }

  function select(turn) {
    state.turn = Math.max(0, Math.min(episode.turns.length - 1, turn));
    note({ turn: state.turn + 1 });
    draw();
    showCurrent();
  }

  function showCurrent() {
    keepInSight(parts.strip.firstElementChild, parts.strip.querySelector(".turn.current"), 120);
    keepInSight(parts.transcript, parts.transcript.querySelector("[aria-current]"));
  }

  function draw() {
    const scrolled = parts.strip.firstElementChild?.scrollLeft || 0;
    const rows = state.credit ? decisionRows(state.credit, state.shown) : [];
    replace(parts.strip, strip(episode, state.credit, rows, state.turn, select));
    parts.strip.dataset.credit = JSON.stringify(state.changes);
    parts.strip.firstElementChild.scrollLeft = scrolled;
    replace(parts.turn, turnCard(episode, state, rows, place, (by) => { state.by = by; note({ by }); draw(); }));
    replace(parts.transcript, transcript(episode, rows, state.turn, select));
  }

  let asked = 0;
  async function change(name, value) {
    const turn = ++asked;
    if (value === undefined) delete state.changes[name]; else state.changes[name] = value;
    note({ set: Object.keys(state.changes).length ? JSON.stringify(state.changes) : null });
    const before = state.credit;
    await credit();
    if (turn !== asked) return;
    if (state.problem) { state.credit = before; }
    drawPanel();
    draw();
  }

  function drawPanel() {
    const focused = document.activeElement?.id;
    replace(parts.panel, creditPanel(state, {
      choose: (title) => {
        state.shown = state.shown.includes(title) ? state.shown.filter((t) => t !== title) : [...state.shown, title];
        note({ est: state.shown.join("|") });
        const known = state.shown.every((t) => state.credit.estimators.find((e) => e.title === t)?.decisions);
        (known ? Promise.resolve() : credit()).then(() => { drawPanel(); draw(); });
      },
      change,
    }));
    if (focused) document.getElementById(focused)?.focus();
  }

  const next = (step) => () => { const n = episode.n + step; if (n >= 0 && n < (episode.of ?? Infinity)) go("episode", { run: at.run, file: at.file, n, est: at.est, set: at.set, by: state.by }); };
  // The episode does not wait long for its credit, and not at all where the server must read a whole file for it first.
  if (!episode.turns.length) return { element: h("section", { class: "page episode" }, heading(at.run, episode, next), empty(h("p", {}, "This episode has no turns."))), title: `${episode.file}/${episode.n}`, keys: { n: next(1), p: next(-1) } };
  const credited = firstCredit();
  if (episode.of !== null) await Promise.race([credited, new Promise((resolve) => setTimeout(resolve, PATIENCE_MILLISECONDS))]);
  drawPanel();
  draw();
  if (!state.credit) credited.then(() => { drawPanel(); draw(); replace(parts.head, heading(at.run, episode, next)); showCurrent(); });
  replace(parts.head, heading(at.run, episode, next));
  sameTask(at.run, episode, parts.same, select);
  const element = h("section", { class: "page episode" }, parts.head, parts.same, parts.strip, parts.panel,
    h("div", { class: "split" }, parts.transcript, parts.turn));
  return {
    element, title: `${episode.file}/${episode.n}`, ready: showCurrent,
    keys: { j: () => select(state.turn + 1), k: () => select(state.turn - 1), n: next(1), p: next(-1), l: () => select(state.turn + 1), h: () => select(state.turn - 1) },
  };
}

function heading(run, e, next) {
  const facts = [["turns", e.turns.length], ["reward", number(e.reward, 3)], ...(Object.keys(e.parts).length || ![0, 1].includes(e.score) ? [["score", number(e.score, 3)]] : []),
    ...Object.entries(e.parts).map(([name, value]) => [name, number(value, 2)]), ["type", e.task_type], ["task", e.task_id], ["seed", e.seed]];
  return h("div", {},
    h("div", { class: "head" }, h("div", { class: "grow" }, h("p", { class: "sub" }, h("a", { href: link("episodes", { run, file: e.file }) }, e.split === null ? `iteration ${e.iteration}` : `${e.split}, after iteration ${e.iteration}`), ` · episode ${e.n}${e.of === null ? "" : ` of ${e.of}`}`, " · ", h("code", {}, `${e.file}/${e.n}`)),
      h("h1", { class: "goal" }, badge(e.end, e.won), " ", e.goal)),
    exported ? null : h("div", { class: "actions" }, button("← previous", next(-1), { class: "plain", disabled: e.n === 0, title: "p" }), button("next →", next(1), { class: "plain", disabled: e.of !== null && e.n + 1 >= e.of, title: "n" }))),
    h("dl", { class: "inline" }, facts.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, String(value))))));
}

function settingsIn(text) {
  try {
    const read = JSON.parse(text || "{}");
    return read && typeof read === "object" && !Array.isArray(read) ? read : {};
  } catch {
    return {};
  }
}

// Links to the turn that estimators disagree on most, and to the same task elsewhere: in its group, and before and
// after training.
async function sameTask(run, e, place, select) {
  const index = indexOf(run);
  try { await index.update(); } catch { return; }
  const id = (other) => `${other.file}/${other.n}`;
  const group = index.inFile(e.file).filter((other) => other.task_id === e.task_id && other.seed === e.seed);
  const same = index.all.filter((other) => other.task_id === e.task_id && (e.split === null || other.split === e.split)).sort((a, b) => a.iteration - b.iteration);
  const links = [];
  const own = index.inFile(e.file).find((other) => other.n === e.n);
  if (own && own.apart !== null) links.push(button(`Estimators disagree most at turn ${own.apart_turn + 1} (${number(own.apart, 2)})`, () => select(own.apart_turn), { class: "as-link", title: "How far estimators rank this turn apart, from 0 to 1" }));
  if (group.length > 1) links.push(h("a", { href: link("side", { run, of: group.map(id).join(",") }) }, `Group of ${group.length} side by side`));
  const first = same[0];
  const last = same[same.length - 1];
  if (first && first.iteration !== last.iteration) {
    links.push(h("a", { href: link("side", { run, of: [...new Set([id(first), `${e.file}/${e.n}`, id(last)])].join(",") }) }, `Same task, first and last (after ${first.iteration} and ${last.iteration})`));
  }
  replace(place, links);
}

export function transcript(e, rows, current, select) {
  const items = [];
  let segment = -1;
  e.turns.forEach((turn, n) => {
    if (turn.boundary) {
      segment += 1;
      items.push(h("div", { class: `subgoal seg${segment % 8}` }, turn.subgoal || "(no subgoal stated)"));
    }
    items.push(h("button", { type: "button", class: `line seg${Math.max(0, segment) % 8}`, "aria-current": n === current ? "true" : null, onclick: () => select(n) },
      h("span", { class: "n" }, n + 1), h("span", { class: `say ${turn.switch ? "switch" : ""}`, title: turn.switch ? "SWITCH" : "KEEP" }, turn.invalid && turn.invalid !== "inadmissible_action" ? "–" : turn.switch ? "S" : "K"),
      h("span", { class: "act" }, turn.action || "(nothing)", turn.invalid ? h("span", { class: "cross", role: "img", title: `invalid: ${turn.invalid.replaceAll("_", " ")}`, "aria-label": `invalid: ${turn.invalid.replaceAll("_", " ")}` }, "✕") : null),
      h("span", { class: "cells" }, rows.map((row) => h("i", { class: `cell ${row.values[n] === null || row.values[n] === undefined ? "" : row.values[n] < 0 ? "neg" : "pos"}`, vars: { "--a": row.alpha(n) }, title: `${row.label}: ${number(row.values[n], 3)}` })))));
  });
  return items;
}
