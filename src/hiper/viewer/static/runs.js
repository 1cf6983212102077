// All runs below the folder.

import { get } from "./api.js";
import { sparkline } from "./charts.js";
import { ago, button, duration, empty, h, percent, replace } from "./dom.js";
import { go, here, link } from "./place.js";

const STATES = { training: "training", finished: "finished", stopped: "stopped", diverged: "diverged" };

export async function runsView(at) {
  let found = await get("runs");
  const only = () => {
    if (found.single && here().view === "runs") location.replace(link("learning", { run: found.runs[0].id }));
  };
  only();
  const chosen = new Set((at.chosen || "").split(",").filter(Boolean));
  let filter = at.filter || "";
  let cursor = -1;
  const body = h("div", {});
  const compare = button("Compare", () => go("compare", { runs: [...chosen].join(",") }), { class: "primary", disabled: true });

  function rows() {
    const words = filter.toLowerCase().split(/\s+/).filter(Boolean);
    return found.runs.filter((run) => words.every((word) => `${run.id} ${run.name} ${run.state} ${run.method} ${run.environment}`.toLowerCase().includes(word)));
  }

  function draw() {
    compare.disabled = chosen.size < 2;
    compare.textContent = chosen.size < 2 ? "Compare" : `Compare ${chosen.size} runs`;
    const shown = rows();
    replace(body, shown.length ? table(shown) : empty(h("p", {}, found.runs.length ? "No run matches." : "There is no run here yet. It appears as soon as one begins.")));
  }

  function table(shown) {
    return h("div", { class: "scroll" }, h("table", { class: "list runs" },
      h("thead", {}, h("tr", {}, [["", ""], ["run", ""], ["state", ""], ["iteration", "num"], ["success", "num"], ["", "wide"], ["held out", "num"], ["time to go", "num"], ["written", "num wide"]]
        .map(([name, kind]) => h("th", { scope: "col", class: kind }, name || h("span", { class: "unseen" }, "–"))))),
      h("tbody", {}, shown.map((run, n) => row(run, n)))));
  }

  function row(run, n) {
    const box = h("input", {
      type: "checkbox", checked: chosen.has(run.id), "aria-label": `Compare ${run.id}`,
      onchange: (event) => { chosen[event.target.checked ? "add" : "delete"](run.id); draw(); },
    });
    const share = run.iterations ? Math.min(1, run.iteration / run.iterations) : 0;
    return h("tr", { class: n === cursor ? "cursor" : null },
      h("td", { class: "tick" }, box),
      h("td", { class: "name" }, h("a", { href: link("learning", { run: run.id }) }, run.id),
        h("div", { class: "sub" }, [run.name, run.environment, run.method, run.seed === null ? null : `seed ${run.seed}`].filter((x) => x !== null && x !== undefined && x !== "").join(" · "))),
      h("td", {}, h("span", { class: `state ${run.state}` }, STATES[run.state] || run.state),
        run.alarms.length ? h("span", { class: "badge alarm", title: run.alarms.join(", ") }, `${run.alarms.length} alarm${run.alarms.length > 1 ? "s" : ""}`) : null,
        run.notes.length ? h("span", { class: "badge cut", title: run.notes.slice(0, 12).join("\n") }, "damaged") : null),
      h("td", { class: "num" }, `${run.iteration}`, h("span", { class: "muted" }, run.iterations ? ` / ${run.iterations}` : ""),
        h("div", { class: "progress" }, h("i", { vars: { "--share": `${100 * share}%` } }))),
      h("td", { class: "num strong" }, percent(run.success)),
      h("td", { class: "wide" }, sparkline(run.trend)),
      h("td", { class: "num" }, run.held_out.map((e) => h("div", { title: `${e.split}, after ${e.iteration}, of ${e.episodes}` },
        h("span", { class: "strong" }, percent(e.success)), h("span", { class: "muted" }, ` [${Math.round(100 * e.low)}, ${Math.round(100 * e.high)}]`))), run.held_out.length ? null : "–"),
      h("td", { class: "num" }, run.state === "training" ? duration(run.seconds_left) : "–"),
      h("td", { class: "num muted wide" }, run.updated ? ago(run.updated) : "–"));
  }

  function move(step) {
    cursor = Math.max(0, Math.min(rows().length - 1, cursor + step));
    draw();
    body.querySelector(".cursor")?.scrollIntoView({ block: "nearest" });
  }

  draw();
  const element = h("section", { class: "page" },
    h("div", { class: "head" }, h("h1", {}, "Runs ", h("small", {}, found.folder)), h("div", { class: "actions" },
      h("input", { type: "search", placeholder: "Filter runs", "aria-label": "Filter runs", "data-filter": true, value: filter,
        oninput: (event) => { filter = event.target.value; cursor = -1; draw(); } }), compare,
      h("a", { class: "plain", href: link("play") }, "Play"))), body);
  return {
    element, title: "Runs",
    refresh: async () => { found = await get("runs"); only(); draw(); },
    keys: { j: () => move(1), k: () => move(-1), Enter: () => cursor >= 0 && go("learning", { run: rows()[cursor].id }) },
  };
}

