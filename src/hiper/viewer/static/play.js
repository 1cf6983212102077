// Playing by hand, beside the advice of the expert and the proposal of a policy.

import { get, post } from "./api.js";
import { ENDS, badge, button, empty, h, number, percent, replace, say } from "./dom.js";
import { note } from "./place.js";

export async function playView(at) {
  const setup = { env: at.env || "", options: at.options || "", split: at.split || "", task: at.task || "", seed: Number(at.seed || 0) };
  let choices = await get("play/choices", at.run ? { run: at.run, split: setup.split } : {});
  let game = null;
  let subgoal = "";
  let proposal = null;
  let problem = null;
  let busy = false;
  let begun = null; // the setup of the episode on the table
  const table = h("div", { class: "stack" });
  const form = h("div", {});

  async function attempt(work) {
    busy = true;
    problem = null;
    draw();
    try { await work(); } catch (error) { problem = error.message; }
    busy = false;
    draw();
  }

  const begin = () => attempt(async () => {
    // Another episode, not the same once more: with no task chosen, the next seed draws another task.
    if (begun === JSON.stringify(setup)) setup.seed += 1;
    note({ ...setup, seed: setup.seed || null });
    game = await post("play/begin", { run: at.run || null, ...setup });
    begun = JSON.stringify(setup);
    drawForm();
    subgoal = game.advice && !game.subgoal ? "" : game.subgoal;
    proposal = null;
    say(`${game.goal} ${game.observation}`);
  });
  const move = (action) => attempt(async () => {
    game = await post("play/move", { session: game.session, subgoal, action });
    proposal = null;
    say(game.observation);
  });
  const propose = () => attempt(async () => { proposal = await post("play/propose", { session: game.session }); });
  const take = (move2) => { subgoal = move2.subgoal; move(move2.action); };

  async function open() {
    choices = { environments: choices.environments };
    await attempt(async () => { choices = await get("play/choices", at.run ? { run: at.run, split: setup.split } : { env: setup.env, options: setup.options, split: setup.split || null }); });
    drawForm();
  }

  function drawForm() {
    const select = (label, value, options, set) => h("label", { class: "field" }, h("span", {}, label), h("select", { onchange: (event) => set(event.target.value) }, options.map(([v, text]) => h("option", { value: v, selected: v === value }, text))));
    replace(form, h("div", { class: "filters card" },
      at.run ? null : select("environment", setup.env, [["", "choose"], ...choices.environments.map((name) => [name, name])], (v) => { setup.env = v; setup.task = ""; if (v) open(); }),
      at.run ? null : h("label", { class: "field" }, h("span", {}, "options"), h("input", { type: "text", value: setup.options, placeholder: "data=generated size=tiny", onchange: (event) => { setup.options = event.target.value; setup.task = ""; if (setup.env) open(); } })),
      choices.splits?.length ? select("split", setup.split || choices.split, choices.splits.map((s) => [s, s]), (v) => { setup.split = v; setup.task = ""; open(); }) : null,
      choices.tasks ? select("task", setup.task, [["", `one of ${choices.count}, drawn with the seed`], ...choices.tasks.map((t) => [t.id, t.id])], (v) => { setup.task = v; }) : null,
      h("label", { class: "field" }, h("span", {}, "seed"), h("input", { type: "number", min: 0, value: setup.seed, oninput: (event) => { setup.seed = Math.max(0, Math.floor(Number(event.target.value) || 0)); } })),
      button(game ? "Begin another" : "Begin", begin, { class: "primary", disabled: !at.run && !setup.env })));
  }

  function draw() {
    replace(table, problem ? h("p", { class: "problem", role: "alert" }, problem) : null, busy && !game ? h("p", { class: "muted" }, "Opening the environment …") : null,
      game ? board() : busy ? null : empty(h("p", {}, "Play an episode by hand. State a subgoal, choose an action, and see what the expert and the policy would do.")));
    table.setAttribute("aria-busy", busy);
  }

  function board() {
    const over = game.over;
    return h("div", { class: "split play" },
      h("div", { class: "transcript" }, game.log.length ? history() : h("p", { class: "sub first" }, "Your turns appear here.")),
      h("div", { class: "detail" },
        h("div", { class: "detail-head" }, h("h2", {}, over ? "The episode is over" : `Turn ${game.turn + 1} of ${game.max_turns}`), over ? badge(over.end, over.won) : null, over && over.score !== null ? h("span", { class: "muted" }, `score ${number(over.score)}`) : null),
        h("div", { class: "field-block" }, h("div", { class: "label" }, "the task"), h("p", { class: "strong" }, game.goal)),
        h("pre", { class: "text" }, game.observation),
        over ? h("p", {}, `${ENDS[over.end] || over.end} after ${game.turn} turns.`) : [asking(), subgoalField(), actions()]));
  }

  function asking() {
    return h("div", { class: "advices" },
      game.expert ? h("div", { class: "advice" }, h("div", { class: "label" }, "the expert"), game.advice ? said(game.advice) : h("p", { class: "muted" }, "no advice")) : h("div", { class: "advice muted" }, "This environment has no expert."),
      choices.policy ? h("div", { class: "advice" }, h("div", { class: "label" }, "the policy"), proposal ? [said(proposal), chances(proposal)] : button(busy ? "Asking …" : "Ask the policy", propose, { class: "plain", disabled: busy, title: "Loads the newest checkpoint at the first time" })) : null);
  }

  function said(m) {
    return [h("p", { class: "mono" }, h("span", { class: `badge ${m.switch ? "switch" : ""}` }, m.switch ? "SWITCH" : "KEEP"), " ", m.subgoal || "(no subgoal)"),
      h("p", { class: "mono strong" }, "› ", m.action || "(nothing)"), m.invalid ? h("span", { class: "badge lost" }, m.invalid.replaceAll("_", " ")) : null,
      m.action && (!m.invalid) ? button("Play this", () => take(m), { class: "plain", disabled: busy }) : null];
  }

  function chances(m) {
    if (m.p_switch === null) return h("p", { class: "sub" }, "The response has no valid form, so KEEP and SWITCH have no probability.");
    return h("div", { class: "chances", role: "img", "aria-label": `KEEP ${percent(1 - m.p_switch)}, SWITCH ${percent(m.p_switch)}` }, h("span", {}, `KEEP ${percent(1 - m.p_switch)}`), h("i", { vars: { "--share": `${100 * m.p_switch}%` } }), h("span", {}, `SWITCH ${percent(m.p_switch)}`));
  }

  function subgoalField() {
    const word = h("span", {});
    const tell = () => replace(word, subgoal.trim() === game.subgoal ? h("span", { class: "badge" }, "KEEP") : h("span", { class: "badge switch" }, "SWITCH"));
    tell();
    return h("label", { class: "field-block" }, h("span", { class: "label" }, "your subgoal ", word), h("input", { type: "text", id: "subgoal", value: subgoal, placeholder: "what you are about to reach", oninput: (event) => { subgoal = event.target.value; tell(); } }));
  }

  function actions() {
    const own = h("input", { type: "text", id: "action", "data-filter": true, placeholder: "an action in your own words", "aria-label": "Action" });
    const submit = (event) => { event.preventDefault(); move(own.value); };
    own.addEventListener("keydown", (event) => { if (event.key === "Enter") submit(event); });
    return h("div", { class: "field-block" }, h("div", { class: "label" }, "your action"), h("div", { class: "actions" }, own, button("Play", submit, { class: "primary", disabled: busy })),
      game.admissible ? h("div", { class: "choices" }, game.admissible.map((action, n) => button(game.words?.[n] || action, () => { if (/<[^<>]+>/.test(action)) { own.value = action.replace(/<[^<>]+>/, ""); own.focus(); } else move(action); }, { class: "chip", disabled: busy, title: action }))) : null);
  }

  function history() {
    let segment = -1;
    return game.log.flatMap((m, n) => {
      if (m.switch || n === 0) segment += 1;
      return [m.switch || n === 0 ? h("div", { class: `subgoal seg${segment % 8}` }, m.subgoal || "(no subgoal)") : null,
        h("div", { class: `line seg${segment % 8}` }, h("span", { class: "n" }, n + 1), h("span", { class: `say ${m.switch ? "switch" : ""}` }, m.switch ? "S" : "K"), h("span", { class: "act" }, m.action), m.reward ? h("span", { class: "badge won" }, number(m.reward, 2)) : null)];
    });
  }

  drawForm();
  draw();
  if (!at.run && setup.env) open();
  return { element: h("section", { class: "page" }, h("div", { class: "head" }, h("h1", {}, "Play")), form, table), title: "Play" };
}
