// The frame of the page: which view is shown, keys, colours, and new things that appear by themselves.

import { exported, get } from "./api.js";
import { compareView } from "./compare.js";
import { button, empty, h, replace, say } from "./dom.js";
import { episodeView } from "./episode.js";
import { episodesView } from "./episodes.js";
import { learningView } from "./learning.js";
import { go, here, link } from "./place.js";
import { playView } from "./play.js";
import { resultsView, settingsView } from "./results.js";
import { runsView } from "./runs.js";
import { sideView } from "./side.js";

const VIEWS = {
  runs: runsView, learning: learningView, episodes: episodesView, episode: episodeView, results: resultsView,
  settings: settingsView, side: sideView, compare: compareView, play: playView,
};
const TABS = [["learning", "Learning"], ["episodes", "Episodes"], ["results", "Results"], ["settings", "Settings"],
  ["play", "Play"]];
const POLL_MILLISECONDS = 1000;

let shown = { keys: {}, refresh: null, leave: null };
let drawn = 0;

async function show() {
  const { view, at } = here();
  const main = document.getElementById("main");
  const turn = ++drawn;
  if (shown.leave) shown.leave();
  shown = { keys: {}, refresh: null, leave: null };
  drawTop(view, at);
  main.setAttribute("aria-busy", "true");
  const slow = setTimeout(() => replace(main, empty(h("p", {}, "Loading …"))), 400);
  try {
    const made = await (Object.hasOwn(VIEWS, view) ? VIEWS[view] : missing)(at);
    clearTimeout(slow);
    if (turn !== drawn) return;
    shown = { keys: {}, ...made };
    replace(main, made.element);
    if (made.ready) made.ready();
    document.title = `${made.title || "Runs"} · HiPER`;
    say(made.title || "Runs");
  } catch (error) {
    if (turn === drawn) replace(main, empty(h("h1", {}, "This cannot be shown"), h("p", {}, error.message)));
  }
  clearTimeout(slow);
  main.removeAttribute("aria-busy");
  window.scrollTo(0, 0);
}

function missing() {
  throw new Error("there is no such page");
}

function drawTop(view, at) {
  const crumbs = [h("a", { href: "#/", class: "brand" }, h("span", { class: "mark", "aria-hidden": true }), "HiPER")];
  if (at.run) crumbs.push(h("a", { href: link("learning", { run: at.run }), class: "crumb" }, at.run));
  const tabs = at.run ? h("nav", { class: "tabs", "aria-label": "Views of the run" }, TABS
    .filter(([name]) => !(exported && name === "play"))
    .map(([name, label]) => h("a", {
      href: link(name, { run: at.run }),
      "aria-current": name === view || (name === "episodes" && (view === "episode" || view === "side")) ? "page" : null,
    }, label))) : null;
  replace(document.getElementById("top"),
    h("div", { class: "bar" }, h("div", { class: "crumbs" }, crumbs), tabs, h("div", { class: "tools" },
      button("◐", turnColours, { class: "icon", title: "Light or dark (t)", "aria-label": "Switch between light and dark" }),
      button("?", help, { class: "icon", title: "Keys (?)", "aria-label": "Show the keys" }))));
}

// Light and dark

function turnColours() {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const now = document.documentElement.dataset.colours || (dark ? "dark" : "light");
  setColours(now === "dark" ? "light" : "dark");
  try { localStorage.setItem("colours", document.documentElement.dataset.colours); } catch { /* not kept */ }
}

function setColours(colours) {
  document.documentElement.dataset.colours = colours;
  window.dispatchEvent(new Event("colours"));
}

// Keys

const KEYS = [["j, ↓", "next turn or row"], ["k, ↑", "previous turn or row"], ["Enter", "open the row"],
  ["n, p", "next and previous episode"], ["/", "filter"], ["u", "up: from an episode to the list, from a run to all"],
  ["1 … 5", "learning, episodes, results, settings, play"], ["t", "light or dark"], ["?", "this list"], ["Esc", "close"]];

function help() {
  const dialog = h("dialog", { class: "help", "aria-labelledby": "help-title" }, h("h2", { id: "help-title" }, "Keys"),
    h("dl", {}, KEYS.map(([key, what]) => [h("dt", {}, h("kbd", {}, key)), h("dd", {}, what)])),
    button("Close", () => dialog.close(), { class: "plain" }));
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}

function up() {
  const { view, at } = here();
  if (view === "episode" || view === "side") go("episodes", { run: at.run });
  else go("runs");
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  const typing = event.target.closest("input, select, textarea");
  if (typing) {
    if (event.key === "Escape") typing.blur();
    return;
  }
  const key = { ArrowDown: "j", ArrowUp: "k" }[event.key] || event.key;
  if (key === "Enter" && event.target.closest("a, button, summary")) return;
  const own = shown.keys[key];
  const { at } = here();
  if (own) own();
  else if (key === "?") help();
  else if (key === "t") turnColours();
  else if (key === "u") up();
  else if (key === "/") document.querySelector("[data-filter]")?.focus();
  else if (/^[1-5]$/.test(key) && at.run) go(TABS[key - 1][0], { run: at.run });
  else return;
  event.preventDefault();
});

// New things appear by themselves.

async function watch() {
  let before = null; // what was known at the last look; null: nothing yet, so what is shown may be old already
  let asked = null;
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, POLL_MILLISECONDS));
    if (document.hidden) continue;
    const { at } = here();
    try {
      const stamps = JSON.stringify(await get("stamps", { run: at.run }));
      document.documentElement.classList.remove("offline", "gone");
      if ((asked !== (at.run || "") || stamps !== before) && shown.refresh) await shown.refresh();
      before = stamps;
      asked = at.run || "";
    } catch (error) {
      document.documentElement.classList.add(error.answered ? "gone" : "offline");
    }
  }
}

try {
  const kept = localStorage.getItem("colours");
  if (kept === "dark" || kept === "light") setColours(kept);
} catch { /* nothing is kept */ }
window.addEventListener("hashchange", show);
show();
if (!exported) watch();
