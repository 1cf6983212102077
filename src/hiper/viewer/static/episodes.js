// The list of a run's episodes: filtered and sorted in the page, and drawn only where it is seen.

import { exported } from "./api.js";
import { badge, button, empty, h, notes, number, replace } from "./dom.js";
import { go, link, note } from "./place.js";
import { indexOf } from "./rows.js";

const ROW = 36;
const COLUMNS = [
  { key: "won", label: "result", width: "6.5rem", show: (e) => badge(e.end, e.won) },
  { key: "iteration", label: "file", width: "minmax(8rem, 1.6fr)", show: (e) => (e.split === null ? [h("span", { class: "long" }, `iteration ${e.iteration}`), h("span", { class: "short" }, `it. ${e.iteration}`)] : h("span", { title: e.file }, `${e.split}, after ${e.iteration}`)) },
  { key: "n", label: "no.", width: "3.2rem", num: true, wide: true },
  { key: "task_type", label: "type", width: "minmax(5rem, 1.6fr)", wide: true },
  { key: "goal", label: "task", width: "minmax(9rem, 3fr)", show: (e) => h("span", { title: e.task_id }, e.goal) },
  { key: "turns", label: "turns", width: "4rem", num: true },
  { key: "switches", label: "switches", width: "5.2rem", num: true, wide: true },
  { key: "invalid", label: "invalid", width: "4.6rem", num: true, wide: true },
  { key: "return", label: "return", width: "4.6rem", num: true, wide: true, show: (e) => number(e.return, 2) },
  { key: "apart", label: "disagree", width: "5.6rem", num: true, wide: true, title: "How far estimators rank the most disputed turn apart, from 0 to 1", show: (e, run) => (e.apart === null ? "–" : h("a", { href: link("episode", { run, ...address(e), turn: e.apart_turn + 1 }), title: `most at turn ${e.apart_turn + 1}` }, e.apart.toFixed(2))) },
];

export const address = (e) => ({ file: e.file, n: e.n });

export async function episodesView(at) {
  const index = indexOf(at.run);
  await index.update();
  const chosen = { text: at.text || "", result: at.result || "", type: at.type || "", file: at.file || "", where: at.where || "", invalid: at.invalid || "", sort: at.sort || "-iteration" };
  let shown = [];
  let cursor = -1;
  const picked = new Map();
  const list = h("div", { class: "vlist", role: "grid", "aria-label": "Episodes", tabindex: "0" });
  const inner = h("div", { class: "vinner", role: "rowgroup" });
  const head = h("div", { class: "vrow vhead", role: "row" });
  const count = h("span", { class: "muted", role: "status" });
  const bar = h("div", { class: "indexing" });
  const problems = h("div", {});
  const bars = filters(chosen, set);
  const side = button("Side by side", () => go("side", { run: at.run, of: [...picked.keys()].join(",") }), { class: "primary", disabled: true });
  list.append(head, inner);

  function set(changes) {
    Object.assign(chosen, changes);
    note(changes);
    cursor = -1;
    choose();
  }

  function choose() {
    shown = sorted(index.all.filter(matcher(chosen)), chosen.sort);
    inner.style.height = `${shown.length * ROW}px`;
    replace(count, `${shown.length.toLocaleString("en")} of ${index.all.length.toLocaleString("en")} episodes`);
    replace(bar, index.settled ? null : progress(index));
    replace(problems, notes(index.problems));
    drawOptions();
    drawHead();
    drawRows();
  }

  // Types and files become known while the index grows.
  function drawOptions() {
    const types = [...new Set(index.all.map((e) => e.task_type))].sort();
    const files = [...index.files.keys()].sort().reverse();
    for (const [key, known] of [["type", types], ["file", files]]) {
      const select = bars.querySelector(`[data-key=${key}]`);
      if (chosen[key] && !known.includes(chosen[key])) known.push(chosen[key]);
      if (select.options.length !== known.length + 1) replace(select, [["", "all"], ...known.map((name) => [name, name])].map(([value, text]) => h("option", { value, selected: value === chosen[key] }, text)));
    }
  }

  function drawHead() {
    replace(head, h("span", { role: "columnheader", class: "tick" }), COLUMNS.map((column) => {
      const way = chosen.sort.replace("-", "") === column.key ? (chosen.sort[0] === "-" ? "descending" : "ascending") : "none";
      return h("span", { role: "columnheader", "aria-sort": way, class: classOf(column) }, button([column.label, way === "none" ? "" : way === "descending" ? " ↓" : " ↑"], () => set({ sort: chosen.sort === `-${column.key}` ? column.key : `-${column.key}` }), { class: "sort", title: column.title }));
    }));
  }

  function drawRows() {
    const first = Math.max(0, Math.floor(list.scrollTop / ROW) - 6);
    const last = Math.min(shown.length, first + Math.ceil((list.clientHeight || 800) / ROW) + 12);
    replace(inner, shown.slice(first, last).map((e, n) => row(e, first + n)), shown.length ? null : empty(h("p", {}, index.complete ? "No episode matches." : "Reading the first file …")));
  }

  function row(e, n) {
    const id = `${e.file}/${e.n}`;
    return h("div", { role: "row", class: `vrow${n === cursor ? " cursor" : ""}`, "aria-rowindex": n + 2, vars: { top: `${n * ROW}px` }, "data-n": n },
      h("span", { role: "gridcell", class: "tick" }, h("input", { type: "checkbox", checked: picked.has(id), "aria-label": `Choose ${id}`, onchange: (event) => {
        if (event.target.checked) picked.set(id, e); else picked.delete(id);
        side.disabled = picked.size < 2;
        side.textContent = picked.size < 2 ? "Side by side" : `${picked.size} side by side`;
      } })),
      COLUMNS.map((column) => h("span", { role: "gridcell", class: classOf(column) }, column.key === "goal" ? h("a", { href: link("episode", { run: at.run, ...address(e) }) }, column.show(e)) : column.show ? column.show(e, at.run) : e[column.key])));
  }

  function move(step) {
    cursor = Math.max(0, Math.min(shown.length - 1, cursor + step));
    const y = cursor * ROW;
    if (y < list.scrollTop) list.scrollTop = y;
    if (y + 2 * ROW > list.scrollTop + list.clientHeight) list.scrollTop = y + 2 * ROW - list.clientHeight;
    drawRows();
  }

  list.addEventListener("scroll", () => requestAnimationFrame(drawRows), { passive: true });
  inner.addEventListener("click", (event) => {
    const at2 = event.target.closest("[data-n]");
    if (at2 && !event.target.closest("input, a, button")) go("episode", { run: at.run, ...address(shown[Number(at2.dataset.n)]) });
  });
  const template = COLUMNS.map((column) => column.width).join(" ");
  list.style.setProperty("--columns", `2rem ${template}`);

  const polling = setInterval(async () => { if (!exported && !index.settled && (await index.update())) choose(); }, 700);
  const element = h("section", { class: "page tall" },
    h("div", { class: "head" }, h("h1", {}, "Episodes"), h("div", { class: "actions" }, count, side)),
    exported ? h("p", { class: "sub" }, "This page is an export with some episodes of the run. ", h("code", {}, "hiper view"), " shows all of them.") : null, bars, bar, problems, list);
  return {
    element, title: "Episodes", ready: choose, leave: () => clearInterval(polling),
    refresh: async () => { if (await index.update()) choose(); },
    keys: { j: () => move(1), k: () => move(-1), Enter: () => shown[cursor] && go("episode", { run: at.run, ...address(shown[cursor]) }) },
  };
}

function progress(index) {
  const [done, what] = index.complete ? [index.compared, "comparing estimators"] : [index.done, "reading episodes"];
  return [h("progress", { value: done, max: index.of, "aria-label": what }), ` ${what}: ${done} of ${index.of} files`];
}

function classOf(column) {
  return [column.num ? "num" : "", column.wide ? "wide" : ""].join(" ").trim() || null;
}

function filters(chosen, set) {
  const select = (label, key, options) => h("label", { class: "field" }, h("span", {}, label), h("select", { "data-key": key, onchange: (event) => set({ [key]: event.target.value }) },
    options.map(([value, text]) => h("option", { value, selected: value === chosen[key] }, text))));
  return h("div", { class: "filters" },
    h("input", { type: "search", placeholder: "Filter by task or goal", "aria-label": "Filter by task or goal", "data-filter": true, value: chosen.text, oninput: (event) => set({ text: event.target.value }) }),
    select("result", "result", [["", "all"], ["won", "won"], ["lost", "lost"], ["turn_limit", "out of turns"]]),
    select("from", "where", [["", "everywhere"], ["training", "training"], ["held out", "held-out tasks"]]),
    select("type", "type", [["", "all"]]),
    select("file", "file", [["", "all"]]),
    select("invalid", "invalid", [["", "any"], ["some", "some"], ["none", "none"]]));
}

export function matcher(chosen) {
  const words = chosen.text.toLowerCase().split(/\s+/).filter(Boolean);
  return (e) => (!chosen.result || (chosen.result === "won" ? e.won : !e.won && e.end === chosen.result))
    && (!chosen.type || e.task_type === chosen.type) && (!chosen.file || e.file === chosen.file)
    && (!chosen.where || (chosen.where === "training") === (e.split === null))
    && (!chosen.invalid || (chosen.invalid === "some") === (e.invalid > 0))
    && (!words.length || words.every((word) => `${e.task_id} ${e.goal} ${e.task_type}`.toLowerCase().includes(word)));
}

function sorted(rows, sort) {
  const key = sort.replace("-", "");
  const way = sort[0] === "-" ? -1 : 1;
  const by = (a, b) => {
    const x = a[key];
    const y = b[key];
    if (x === y) return b.iteration - a.iteration || (a.split || "").localeCompare(b.split || "") || a.n - b.n;
    if (x === null || y === null) return x === null ? 1 : -1;
    return way * (x < y ? -1 : 1);
  };
  return rows.sort(by);
}
