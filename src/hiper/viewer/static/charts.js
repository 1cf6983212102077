// Curves over iterations, drawn by uPlot: lines, bands over seeds, and intervals of evaluations.

/* global uPlot */
import { button, h, number, percent, svg } from "./dom.js";

export const COLOURS = ["--c0", "--c1", "--c2", "--c3", "--c4", "--c5", "--c6", "--c7"];

export function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

// lines: [{label, x, y, low?, high?, points?, colour, dash?}], each with its own x.
export function chart({ title, unit, meaning, lines, alarms = [], height = 190 }) {
  const holder = h("div", { class: "plot" });
  const figure = h("figure", { class: "chart" },
    h("figcaption", {}, h("span", { class: "chart-title" }, title), meaning ? h("span", { class: "chart-note" }, meaning) : null),
    holder, summaryOf(title, lines));
  const draw = () => drawInto(holder, { unit, lines, alarms, height });
  // Charts are drawn when they come into view: a run has dozens of metrics.
  const seen = new IntersectionObserver((entries) => {
    if (entries.some((entry) => entry.isIntersecting)) { seen.disconnect(); watchSize(holder, draw); }
  }, { rootMargin: "300px" });
  seen.observe(holder);
  return figure;
}

function watchSize(holder, draw) {
  let width = 0;
  new ResizeObserver(() => {
    if (holder.isConnected && holder.clientWidth !== width) { width = holder.clientWidth; draw(); }
  }).observe(holder);
  const again = () => (holder.isConnected ? draw() : window.removeEventListener("colours", again));
  window.addEventListener("colours", again);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
}

function drawInto(holder, { unit, lines, alarms, height }) {
  holder.replaceChildren();
  const drawn = lines.filter((line) => line.x.length);
  if (!drawn.length || !holder.clientWidth) return;
  const tables = drawn.map((line) => (line.low ? [line.x, line.y, line.low, line.high] : [line.x, line.y]));
  const data = uPlot.join(tables);
  const series = [{ label: "iteration" }];
  const bands = [];
  for (const line of drawn) {
    const stroke = colour(line.colour);
    const few = line.x.length < 2;
    series.push({
      label: line.label, stroke, width: 2, dash: line.dash, spanGaps: true, value: (_, x) => shownNumber(x, unit),
      points: { show: few || line.points || false, size: few || line.points ? 7 : 0, fill: stroke },
    });
    if (line.low) {
      const bound = { stroke: "transparent", width: 0, points: { show: false }, spanGaps: true };
      series.push({ label: `${line.label}, low`, ...bound }, { label: `${line.label}, high`, ...bound });
      if (line.band) bands.push({ series: [series.length - 1, series.length - 2], fill: withAlpha(stroke, 0.14) });
    }
  }
  const axis = { stroke: colour("--muted"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif" };
  const shares = unit === "share";
  new uPlot({
    width: holder.clientWidth, height, series, bands,
    legend: { show: false },
    cursor: { points: { size: 7 }, drag: { x: true, y: false }, sync: { key: "iterations" } },
    scales: { x: { time: false, range: wide }, y: shares ? { range: (u, low, high) => shareRange(low, high) } : {} },
    axes: [{ ...axis, size: 28, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000] },
      { ...axis, size: 52, values: (_, ticks) => ticks.map((x) => (shares ? `${Math.round(100 * x)}%` : number(x))) }],
    hooks: { draw: [(plot) => drawAlarms(plot, alarms), (plot) => drawn.filter((line) => line.low && !line.band).forEach((line) => drawIntervals(plot, line))], setCursor: [(plot) => tell(plot, holder, unit)] },
  }, data, holder);
  holder.append(h("div", { class: "tip", hidden: true }));
}

// A little room at both ends, so that points there are whole.
function wide(_, low, high) {
  return low === high ? [low - 1, high + 1] : [low - (high - low) * 0.015, high + (high - low) * 0.015];
}

function shareRange(low, high) {
  if (low === null) return [0, 1];
  if (high > 0.5 || low < 0) return [Math.min(0, low), Math.max(1, high)];
  return [0, Math.max(0.02, high * 1.15)];
}

function withAlpha(hex, alpha) {
  return `${hex}${Math.round(alpha * 255).toString(16).padStart(2, "0")}`;
}

function drawAlarms(plot, alarms) {
  const context = plot.ctx;
  context.save();
  context.fillStyle = colour("--bad");
  for (const iteration of new Set(alarms)) {
    const x = plot.valToPos(iteration, "x", true);
    if (x < plot.bbox.left || x > plot.bbox.left + plot.bbox.width) continue;
    context.globalAlpha = 0.16;
    context.fillRect(x - 1.5 * devicePixelRatio, plot.bbox.top, 3 * devicePixelRatio, plot.bbox.height);
    context.globalAlpha = 1;
    context.beginPath();
    context.arc(x, plot.bbox.top + 4 * devicePixelRatio, 3.5 * devicePixelRatio, 0, 7);
    context.fill();
  }
  context.restore();
}

// The interval of each estimate, as a bar with ends.
function drawIntervals(plot, line) {
  const context = plot.ctx;
  const end = 4 * devicePixelRatio;
  context.save();
  context.strokeStyle = colour(line.colour);
  context.lineWidth = 1.5 * devicePixelRatio;
  line.x.forEach((iteration, n) => {
    const x = plot.valToPos(iteration, "x", true);
    const [low, high] = [plot.valToPos(line.low[n], "y", true), plot.valToPos(line.high[n], "y", true)];
    context.beginPath();
    for (const [from, to] of [[[x, low], [x, high]], [[x - end, low], [x + end, low]], [[x - end, high], [x + end, high]]]) { context.moveTo(...from); context.lineTo(...to); }
    context.stroke();
  });
  context.restore();
}

function shownNumber(x, unit) {
  return unit === "share" ? percent(x) : number(x);
}

function tell(plot, holder, unit) {
  const tip = holder.querySelector(".tip");
  const at = plot.cursor.idx;
  if (!tip) return;
  tip.hidden = at === null || at === undefined || plot.cursor.left < 0;
  if (tip.hidden) return;
  const rows = plot.series.slice(1).map((series, n) => [series, plot.data[n + 1][at]])
    .filter(([series, value]) => value !== null && value !== undefined && !/, (low|high)$/.test(series.label));
  tip.replaceChildren(h("b", {}, `iteration ${plot.data[0][at]}`),
    ...rows.map(([series, value]) => h("div", {}, h("i", { class: "dot", vars: { "--dot": series._stroke || "" } }), `${series.label} `, h("b", {}, shownNumber(value, unit)))));
  rows.forEach(([series], n) => tip.querySelectorAll(".dot")[n].style.setProperty("--dot", typeof series.stroke === "function" ? series.stroke(plot) : series.stroke));
  const right = plot.cursor.left > plot.over.clientWidth / 2;
  tip.style.left = right ? "" : `${plot.cursor.left + 66}px`;
  tip.style.right = right ? `${plot.over.clientWidth - plot.cursor.left + 14}px` : "";
}

// What the curves show, for people who do not see them.
function summaryOf(title, lines) {
  const words = lines.filter((line) => line.x.length).map((line) => {
    const known = line.y.filter((y) => y !== null && y !== undefined);
    return `${line.label}: ${number(known[0])} at first, ${number(known[known.length - 1])} at last`;
  });
  return h("p", { class: "unseen" }, `${title}. ${words.join("; ")}`);
}

export function legend(entries) {
  return h("div", { class: "legend" }, entries.map(({ label, colour: name, dash, href, title }) => h(href ? "a" : "span",
    { href, title, class: "legend-item" }, h("i", { class: dash ? "swatch dashed" : "swatch", vars: { "--dot": `var(${name})` } }), label)));
}

// Curves of several runs become their mean, with a band from the lowest to the highest, where seeds share a method.
export function overSeeds(label, colourName, curves) {
  const x = [...new Set(curves.flatMap((curve) => curve.x))].sort((a, b) => a - b);
  const at = (curve) => new Map(curve.x.map((i, n) => [i, curve.y[n]]));
  const maps = curves.map(at);
  const values = x.map((i) => maps.map((map) => map.get(i)).filter((y) => y !== null && y !== undefined));
  const kept = x.map((i, n) => n).filter((n) => values[n].length);
  const mean = kept.map((n) => values[n].reduce((a, b) => a + b, 0) / values[n].length);
  const line = { label, x: kept.map((n) => x[n]), y: mean, colour: colourName };
  if (curves.length < 2) return line;
  return { ...line, band: true, low: kept.map((n) => Math.min(...values[n])), high: kept.map((n) => Math.max(...values[n])) };
}

export function sparkline(values, width = 96, height = 24) {
  if (values.length < 2) return h("span", { class: "muted" }, "–");
  const x = (n) => 1 + (n * (width - 2)) / (values.length - 1);
  const y = (v) => height - 2 - v * (height - 4);
  const points = values.map((v, n) => `${x(n).toFixed(1)},${y(v ?? 0).toFixed(1)}`).join(" ");
  return svg("svg", { class: "spark", width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `success from ${percent(values[0])} to ${percent(values.at(-1))}` },
    svg("polyline", { points }), svg("circle", { cx: x(values.length - 1), cy: y(values.at(-1) ?? 0), r: 2.2 }));
}

export function toggle(label, pressed, onclick, properties = {}) {
  return button(label, onclick, { class: "chip", "aria-pressed": pressed ? "true" : "false", ...properties });
}
