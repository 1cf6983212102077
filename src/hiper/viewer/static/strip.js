// The episode at a glance: a column per turn, with segments, values, rewards and the credit of each estimator.

import { h, number, signed, svg } from "./dom.js";

const LINES = [["high", "V_high", "--c1", ""], ["low", "V_low", "--c0", ""], ["switch", "V_switch", "--c2", ""], ["turn", "V", "--c0", ""], ["return", "return", "--c7", "4 3"]];
const HEIGHT = 120;

export function strip(episode, credit, rows, current, select) {
  const count = episode.turns.length;
  // V_switch stands for the value before a response where a critic has both.
  if (credit?.values.switch) delete credit.values.turn;
  const grid = h("div", { class: "strip", role: "group", "aria-label": "Turns of the episode", vars: { "--turns": count } });
  const put = (element, row, first, last) => { element.style.gridRow = row; element.style.gridColumn = `${first} / ${last}`; grid.append(element); };
  let line = 1;
  put(h("div", { class: "gutter" }, "turn"), line, 1, 2);
  episode.turns.forEach((turn, n) => put(h("button", { type: "button", class: `turn${n === current ? " current" : ""}${turn.invalid ? " bad" : ""}`, "aria-label": `turn ${n + 1}: ${turn.action || "nothing"}${turn.invalid ? `, invalid: ${turn.invalid}` : ""}`, "aria-pressed": n === current ? "true" : "false", title: turn.action, onclick: () => select(n) }, n + 1), line, n + 2, n + 3));
  line += 1;
  put(h("div", { class: "gutter" }, "subgoal"), line, 1, 2);
  segments(episode.turns).forEach(([first, last, subgoal], n) => put(h("div", { class: `band seg${n % 8}`, title: subgoal }, h("span", {}, subgoal || "(none)")), line, first + 2, last + 3));
  if (credit && Object.keys(credit.values).length) {
    line += 1;
    put(h("div", { class: "gutter tall" }, h("span", {}, "value"), key(credit.values)), line, 1, 2);
    put(curves(credit.values, episode.turns), line, 2, count + 2);
  }
  if (episode.turns.some((turn) => turn.reward)) {
    line += 1;
    put(h("div", { class: "gutter" }, "reward"), line, 1, 2);
    episode.turns.forEach((turn, n) => turn.reward && put(h("div", { class: "reward" }, number(turn.reward, 2)), line, n + 2, n + 3));
  }
  let title = null;
  for (const row of rows) {
    line += 1;
    put(h("div", { class: `gutter est${row.title === title ? "" : " first"}`, title: row.label }, row.title === title || row.decision === "response" ? null : h("b", {}, row.title), row.decision === "response" ? h("b", {}, row.title) : h("span", {}, row.decision)), line, 1, 2);
    title = row.title;
    row.values.forEach((value, n) => put(h("button", { type: "button", tabindex: "-1", class: `credit ${value === null || value === undefined ? "none" : value < 0 ? "neg" : "pos"}${n === current ? " current" : ""}`, vars: { "--a": row.alpha(n) }, title: `${row.label}, turn ${n + 1}: ${number(value, 4)}`, "aria-label": `${row.label}, turn ${n + 1}: ${number(value, 3)}`, onclick: () => select(n) }, signed(value)), line, n + 2, n + 3));
  }
  return h("div", { class: "card strip-card" }, grid);
}

export function segments(turns) {
  const found = [];
  turns.forEach((turn, n) => {
    if (turn.boundary || !found.length) found.push([n, n, turn.subgoal]);
    else found[found.length - 1][1] = n;
  });
  return found;
}

function key(values) {
  return LINES.filter(([name]) => values[name]).map(([, label, name, dash]) => h("span", { class: "legend-item" }, h("i", { class: dash ? "swatch dashed" : "swatch", vars: { "--dot": `var(${name})` } }), label));
}

function curves(values, turns) {
  const all = LINES.flatMap(([name]) => values[name] || []).filter((x) => x !== null);
  const low = Math.min(0, ...all);
  const high = Math.max(0.001, ...all);
  const y = (value) => HEIGHT - 8 - ((value - low) / (high - low || 1)) * (HEIGHT - 16);
  const drawn = svg("svg", { class: "curves", viewBox: `0 0 ${turns.length} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": LINES.filter(([name]) => values[name]).map(([name, label]) => `${label}: ${values[name].map((x) => number(x, 2)).join(", ")}`).join("; ") });
  segments(turns).forEach(([first, last], n) => drawn.append(svg("rect", { class: `under seg${n % 8}`, x: first, y: 0, width: last - first + 1, height: HEIGHT })));
  drawn.append(svg("line", { class: "zero", x1: 0, x2: turns.length, y1: y(0), y2: y(0) }));
  for (const [name, , colour, dash] of LINES) {
    if (!values[name]) continue;
    const points = values[name].map((value, n) => (value === null ? null : `${n + 0.5},${y(value).toFixed(1)}`)).filter(Boolean);
    // A line of one point is drawn as a short dash.
    if (points.length === 1) points.push(`${0.7},${points[0].split(",")[1]}`);
    drawn.append(svg("polyline", { class: "curve", points: points.join(" "), "stroke-dasharray": dash || null, vars: { "--dot": `var(${colour})` } }));
  }
  return h("div", { class: "curves-holder" }, drawn, h("span", { class: "top" }, number(high, 2)), h("span", { class: "bottom" }, number(low, 2)));
}
