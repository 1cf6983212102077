// One turn in full: what was seen, said and done, what it earned, and which token got which credit.

import { get } from "./api.js";
import { shade } from "./credit.js";
import { fold, h, number, replace, signed } from "./dom.js";

const KINDS = ["outside of decisions", "switch", "subgoal", "action", "thinking"];
const WHY = {
  unclosed_thinking: "The thinking block never closes.", cut_off: "The token limit came before </action>.", repeated_block: "A tag is there more than once.",
  missing_block: "A tag is missing.", wrong_order: "The tags are in another order.", empty_block: "A block is empty.", unknown_switch: "It says neither KEEP nor SWITCH.",
  inadmissible_action: "The form is right, but the environment does not accept the action.",
};

export function turnCard(episode, state, rows, place, by) {
  const t = state.turn;
  const turn = episode.turns[t];
  const modes = [["credit", "credit"], ["logprob", "log-probability"], ...(turn.series["logprob/token"] ? [["mismatch", "sampler mismatch"]] : []), ...(turn.series["entropy/token"] ? [["entropy", "entropy"]] : []), ["kind", "decision"]];
  const mode = modes.some(([name]) => name === state.by) ? state.by : "credit";
  return [
    h("div", { class: "detail-head" }, h("h2", {}, `Turn ${t + 1}`), h("span", { class: `badge ${turn.switch ? "switch" : "keep"}` }, turn.switch ? "SWITCH" : "KEEP"),
      turn.boundary && !turn.switch ? h("span", { class: "badge" }, "a segment begins") : null,
      turn.invalid ? h("span", { class: "badge lost" }, turn.invalid.replaceAll("_", " ")) : null, turn.copy_differs ? h("span", { class: "badge cut" }, "copy differs") : null,
      turn.lapse ? h("span", { class: "badge cut" }, "lapse") : null, turn.prompt_cut ? h("span", { class: "badge cut" }, "prompt cut") : null),
    turn.invalid ? h("p", { class: "problem" }, WHY[turn.invalid] || turn.invalid) : null,
    field("observation", h("pre", { class: "text" }, turn.observation)),
    turn.admissible ? fold(state.unfolded, "actions", `${turn.admissible.length} admissible actions`, h("ul", { class: "actions-list" }, turn.admissible.map((action) => h("li", { class: action === turn.action ? "chosen" : null }, action)))) : null,
    field(h("span", { class: "with-choice" }, "response", h("label", { class: "field inline-field" }, h("span", {}, "colours:"), h("select", { id: "colour-by", onchange: (event) => by(event.target.value) }, modes.map(([name, label]) => h("option", { value: name, selected: name === mode }, label))))),
      response(turn, t, mode, state)),
    h("div", { class: "pair" }, field("subgoal", h("p", { class: "mono" }, turn.subgoal || "(none)")), field("action", h("p", { class: "mono strong" }, turn.action || "(nothing)"))),
    credits(rows, t), rewards(episode, turn, t),
    h("p", { class: "sub" }, `${turn.ids.length} tokens, prompt of ${turn.prompt_tokens}`, turn.policy_version === null ? "" : `, weights of version ${turn.policy_version}`, turn.logprobs.length ? `, log-probability ${number(turn.logprobs.reduce((a, b) => a + b, 0), 2)} in all` : ""),
    turn.prompt_tokens ? prompt(state, place, t) : null,
  ];
}

function field(label, ...content) {
  return h("div", { class: "field-block" }, h("div", { class: "label" }, label), ...content);
}

function response(turn, t, mode, state) {
  const shown = state.credit ? state.credit.estimators.filter((e) => state.shown.includes(e.title) && e.decisions) : [];
  if (!turn.tokens.length) return h("pre", { class: "text" }, turn.text);
  if (mode !== "credit" || !shown.length) return h("div", {}, tokens(turn, (k) => look(turn, mode === "credit" ? "kind" : mode, k)), keyOf(mode, turn));
  return h("div", {}, shown.map((e) => h("div", { class: "by-estimator" }, shown.length > 1 ? h("div", { class: "label small" }, e.title) : null,
    tokens(turn, (k) => { const x = e.tokens[t][k]; return { class: x === null || x === undefined ? "none" : x < 0 ? "neg" : "pos", alpha: shade(x, e.scale), words: `credit ${x === null ? "none" : number(x, 4)}` }; }))), keyOf(mode, turn));
}

function tokens(turn, lookOf) {
  const learner = turn.series["logprob/token"];
  return h("div", { class: "tokens text" }, turn.tokens.map((text, k) => {
    const { class: kind, alpha, words } = lookOf(k);
    const told = [words, KINDS[turn.kinds[k]], `log-probability ${number(turn.logprobs[k], 4)}`, learner ? `learner ${number(learner[k], 4)}` : null, `token ${turn.ids[k]}`].filter(Boolean).join("\n");
    return h("span", { class: `token ${kind}`, vars: { "--a": alpha }, title: told }, text === "" ? "␃" : text);
  }));
}

function look(turn, mode, k) {
  if (mode === "kind") return { class: `kind${turn.kinds[k]}`, alpha: 1, words: "" };
  if (mode === "mismatch") {
    const gap = turn.series["logprob/token"][k] - turn.logprobs[k];
    return { class: gap < 0 ? "neg" : "pos", alpha: shade(gap, 0.1), words: `learner − sampler ${number(gap, 5)}` };
  }
  if (mode === "entropy") return { class: "neg", alpha: shade(turn.series["entropy/token"][k], 2), words: `entropy ${number(turn.series["entropy/token"][k], 4)} nats` };
  return { class: "neg", alpha: shade(turn.logprobs[k], 3), words: `probability ${number(Math.exp(turn.logprobs[k]), 3)}` };
}

function keyOf(mode, turn) {
  if (mode === "credit") return h("p", { class: "sub" }, h("span", { class: "token pos", vars: { "--a": 0.8 } }, "credit above zero"), " ", h("span", { class: "token neg", vars: { "--a": 0.8 } }, "below zero"), " ", h("span", { class: "token none" }, "no loss"));
  if (mode === "kind") return h("p", { class: "sub" }, [...new Set(turn.kinds)].sort().map((kind) => [h("span", { class: `token kind${kind}` }, KINDS[kind]), " "]));
  if (mode === "mismatch") return h("p", { class: "sub" }, "Strongest where the log-probabilities differ by 0.1 nats or more.");
  if (mode === "entropy") return h("p", { class: "sub" }, "Darker tokens were drawn from wider distributions; the darkest from 2 nats or more.");
  return h("p", { class: "sub" }, "Darker tokens were less probable.");
}

function credits(rows, t) {
  if (!rows.length) return null;
  const decisions = [...new Set(rows.map((row) => row.decision))];
  const titles = [...new Set(rows.map((row) => row.title))];
  return field("credit of the turn", h("div", { class: "scroll" }, h("table", { class: "list small-table" }, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "estimator"), decisions.map((d) => h("th", { scope: "col", class: "num" }, d)))),
    h("tbody", {}, titles.map((title) => h("tr", {}, h("th", { scope: "row" }, title), decisions.map((d) => {
      const row = rows.find((r) => r.title === title && r.decision === d);
      const value = row?.values[t];
      return h("td", { class: `num credit-cell ${value === null || value === undefined ? "" : value < 0 ? "neg" : "pos"}`, vars: { "--a": row ? row.alpha(t) : 0 } }, value === undefined || value === null ? "–" : signed(value));
    })))))));
}

function rewards(episode, turn, t) {
  const parts = Object.entries(episode.series).filter(([name]) => name.startsWith("reward/")).map(([name, x]) => [name.slice(7), x[t]]);
  if (!parts.length) return turn.reward ? field("reward", number(turn.reward, 3)) : null;
  const total = parts.reduce((sum, [, x]) => sum + x, 0);
  return field("reward", h("p", { class: "parts" }, h("b", {}, number(total, 3)), parts.filter(([, x]) => x).map(([name, x]) => h("span", { class: `badge ${x < 0 ? "lost" : "won"}` }, `${name} ${number(x, 3)}`))));
}

function prompt(state, place, t) {
  const body = h("div", {});
  return fold(state.unfolded, "prompt", "The exact prompt", body, { onopen: async () => {
    if (body.childNodes.length) return;
    try {
      const found = await get("prompt", { ...place, turn: t });
      replace(body, h("div", { class: "tokens text" }, found.tokens.map((text, k) => h("span", { class: "token plain-token", title: `token ${found.ids[k]}` }, text))));
    } catch (error) {
      replace(body, h("p", { class: "problem" }, error.message));
    }
  } });
}
