// Several episodes side by side: a group, or the same task before and after training.

import { get } from "./api.js";
import { decisionRows, titlesShown } from "./credit.js";
import { badge, empty, h, number } from "./dom.js";
import { transcript } from "./episode.js";
import { go, link } from "./place.js";

export async function sideView(at) {
  const places = (at.of || "").split(",").filter(Boolean).slice(0, 16).map((id) => ({ file: id.slice(0, id.lastIndexOf("/")), n: id.slice(id.lastIndexOf("/") + 1) }));
  const found = await Promise.all(places.map(async (place) => {
    let episode;
    try {
      episode = await get("episode", { run: at.run, ...place });
    } catch (error) {
      return { place, problem: error.message };
    }
    let rows = [];
    try {
      const credit = await get("credit", { run: at.run, ...place });
      rows = decisionRows(credit, titlesShown(credit).slice(0, 1));
    } catch { /* evaluations have no credit */ }
    return { episode, rows, place };
  }));
  if (!found.length) return { element: empty(h("p", {}, "Choose episodes in the list first.")), title: "Side by side" };
  const goals = new Set(found.filter(({ episode }) => episode).map(({ episode }) => episode.goal));
  return {
    element: h("section", { class: "page wide-page" }, h("div", { class: "head" }, h("h1", {}, goals.size === 1 ? [...goals][0] : `${found.length} episodes`)),
      h("div", { class: "sides" }, found.map(({ episode, rows, place, problem }) => problem ? h("article", { class: "card side" }, h("h2", {}, `${place.file}/${place.n}`), h("p", { class: "problem" }, problem)) : h("article", { class: "card side" },
        h("h2", {}, h("a", { href: link("episode", { run: at.run, ...place }) }, episode.split === null ? `iteration ${episode.iteration}` : `${episode.split}, after ${episode.iteration}`, ` · ${episode.n}`)),
        h("p", { class: "sub" }, badge(episode.end, episode.won), ` ${episode.turns.length} turns, reward ${number(episode.reward, 2)}`), goals.size > 1 ? h("p", {}, episode.goal) : null,
        h("div", { class: "transcript" }, transcript(episode, rows, -1, (turn) => go("episode", { run: at.run, ...place, turn: turn + 1 }))))))),
    title: "Side by side",
  };
}
