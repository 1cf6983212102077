"""WebShop's prompt templates: nothing that matters is lost, and what a model says is understood."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest

from helpers.made import turns_of
from hiper import cli
from hiper.advantages import HAE
from hiper.config import Config, load_config
from hiper.envs.base import Decision
from hiper.envs.webshop.env import WebshopEnv
from hiper.envs.webshop.shop import Shop
from hiper.episode import read_episodes
from hiper.imitation.demonstrations import demonstrate
from hiper.plan_execute.render import PromptContext, Template
from hiper.plan_execute.tokenizer import build_word_tokenizer, round_trip
from hiper.training.build import build

INSTRUCTION = (
    "Find me machine wash, slim fit shirts with long sleeve for daily wear with color: red, and size: x-large, and "
    "price lower than 60.00 dollars"
)
TASK = "machine wash slim fit shirts with long sleeve for daily wear color red size x-large under 6"
SEARCH_PAGE = f"WebShop [SEP] Instruction: [SEP] {INSTRUCTION} [SEP] Search"
HEAD = f"Instruction: [SEP] {INSTRUCTION} [SEP] Back to Search [SEP]"
RESULTS = (
    f"{HEAD} Page 1 (Total results: 50) [SEP] Next > [SEP] B09GLVMLMS [SEP] Belmont Slim Fit, Machine Wash Shirt [SEP] "
    "$24.99 to $29.5 [SEP] B000000001 [SEP] Norford Shirt [SEP] $112.99"
)
ITEM = (
    f"{HEAD} < Prev [SEP] color [SEP] red [SEP] navy [SEP] size [SEP] large [SEP] x-large [SEP] Belmont Slim Fit, "
    "Machine Wash Shirt [SEP] Price: $24.99 to $29.5 [SEP] Rating: N.A. [SEP] Description [SEP] Features [SEP] Reviews "
    "[SEP] Buy Now"
)
FEATURES = f"{HEAD} < Prev [SEP] Slim fit: yes [SEP] Washes, dries"


CONSTANT = {f"click[{label}]" for label in ("back to search", "next >", "< prev", "buy now", "reviews")}
CONSTANT |= {"click[description]", "click[features]", "search[<your query>]"}


@pytest.fixture(scope="module")
def terse() -> Template:
    return Template.load("webshop/terse")


@pytest.fixture(scope="module")
def instruct() -> Template:
    return Template.load("webshop/instruct")


def context(observation: str, *history: tuple[str, str], subgoal: str | None = None) -> PromptContext:
    return PromptContext(INSTRUCTION, history, observation, subgoal, (), len(history))


@pytest.mark.parametrize(
    ("observation", "shown"),
    [
        (SEARCH_PAGE, "search"),
        (RESULTS, "page 1 : item 1 belmont slim fit machine wash shirt $ 2 item 2 norford shirt $ 11"),
        (
            RESULTS.replace("Page 1", "Page 2").replace("Next", "< Prev [SEP] Next"),
            "page 2 : item 1 belmont slim fit machine wash shirt $ 2 item 2 norford shirt $ 11",
        ),
        (
            RESULTS.replace("$24.99", "$9.99").replace("$112.99", "$7"),
            "page 1 : item 1 belmont slim fit machine wash shirt $ 0 item 2 norford shirt $ 0",
        ),
        (f"{HEAD} Page 6 (Total results: 50) [SEP] < Prev [SEP] Next >", "page 6 :"),
        (ITEM, "color , red , navy , size , large , x-large , belmont slim fit machine wash shirt $ 2"),
        (FEATURES, "details : slim fit: yes , washes dries"),
        (f"{HEAD} < Prev", "details :"),
    ],
)
def test_terse_pages(terse: Template, observation: str, shown: str):
    expected = f"{shown} . last nothing . task {TASK} . subgoal none ."
    assert terse.render(context(observation)) == expected
    without_instruction = observation.replace(f"Instruction: [SEP] {INSTRUCTION} [SEP] ", "")
    assert terse.render(context(without_instruction)) == expected


def test_terse_history_is_the_last_action_in_words(terse: Template):
    opened = terse.render(context(ITEM, (RESULTS, "click[b000000001]"), subgoal="find shirts"))
    assert str(opened).endswith(f". last item 2 . task {TASK} . subgoal find shirts .")
    assert ". last invalid ." in str(terse.render(context(ITEM, (RESULTS, ""))))
    searched = terse.render(context(RESULTS, (SEARCH_PAGE, "search[red shirts]")))
    assert ". last search red shirts ." in str(searched)


@pytest.mark.parametrize(
    ("instruction", "shown"),
    [
        (
            "Find me slim fit shirts with short sleeve with color: 152- green, and price lower than 30.00 dollars",
            "slim fit shirts with short sleeve color 152- green under 3",
        ),
        ("Find me solid wood beds for living room", "solid wood beds for living room"),
        (
            "I need a blue mug, with a lid, and price lower than 20.00 dollars.",
            "i need a blue mug with a lid under 2",
        ),
    ],
)
def test_terse_instructions(terse: Template, instruction: str, shown: str):
    known = PromptContext(instruction, (), SEARCH_PAGE, None, (), 0)
    assert f"task {shown} . subgoal" in str(terse.render(known))


def test_instruct_shows_page_instruction_and_actions_apart(instruct: Template):
    actions = ("click[back to search]", "click[next >]", "click[b09glvmlms]")
    known = PromptContext(INSTRUCTION, ((SEARCH_PAGE, "search[red shirts]"),), RESULTS, "find a shirt", actions, 1)
    messages = instruct.render(known)
    assert not isinstance(messages, str)
    (content,) = (message["content"] for message in messages)
    assert content.count("Find me machine wash") == 1
    assert "Turn 1: The search page.\nYour action: search[red shirts]" in content
    assert "Back to Search\nPage 1 (Total results: 50)\nNext >\nB09GLVMLMS\nBelmont Slim Fit, Machine" in content
    assert "\n".join(actions) in content
    assert "# Current subgoal\nfind a shirt" in content
    assert instruct.understand("click[next >]", known) == "click[next >]"


def wander(env: WebshopEnv, episodes: int, seed: int) -> Iterator[PromptContext]:
    """What an agent knows that searches for what it was told and then clicks at random, but never buys."""
    rng = random.Random(seed)
    for task in env.panel.subset(episodes):
        start = env.reset(task.id)
        observation, history = start.observation, list[tuple[str, str]]()
        for turn in range(env.max_turns):
            yield PromptContext(start.goal, history, observation.text, None, observation.admissible, turn)
            clicks = [a for a in observation.admissible or () if a.startswith("click[") and a != "click[buy now]"]
            action = rng.choice(clicks) if clicks else f"search[{start.goal[8:40]}]"
            step = env.step(action)
            history = [*history, (observation.text, action)]
            observation = step.observation


@pytest.mark.parametrize("official", [False, True])
def test_every_action_can_be_said_and_is_understood(
    terse: Template, generated_shop: Shop, official: bool, request: pytest.FixtureRequest
):
    shop = request.getfixturevalue("official_shop") if official else generated_shop
    for known in wander(WebshopEnv(shop, nouns="words", repeat_instruction=False), 25, seed=official):
        prompt = str(terse.render(known))
        for action in known.admissible or ():
            said = terse.phrase(Decision(False, "", action), known).action
            assert terse.understand(said, known) == action
            if action not in CONSTANT:
                assert " ".join(said.split()) in prompt


def test_terse_prompts_of_generated_shops_are_short_and_spoken_in_few_words(terse: Template, generated_shop: Shop):
    env = WebshopEnv(generated_shop, nouns="words")
    turns = [turn for task in env.panel.subset(150) for turn in turns_of(demonstrate(env, task.id, perturb=0.2))]
    prompts = [str(terse.render(turn.context)) for turn in turns]
    said = [terse.phrase(turn.decision, turn.context).action for turn in turns]
    tokenizer = build_word_tokenizer([*prompts, *said], terse.wording)
    assert len(tokenizer) < 700
    for turn, words in zip(turns, said, strict=True):
        assert terse.understand(round_trip(tokenizer, words), turn.context) == turn.decision.action
    lengths = sorted(len(tokenizer.tokenize(str(terse.render(turn.context)))) for turn in turns)
    assert lengths[len(lengths) // 2] < 110
    assert not any("b0" in prompt for prompt in prompts)  # no ids


# --- WebShop's recipes, and one of them from beginning to end in sizes that take seconds ------------------------------


TINY = [
    *("env.products=24", "env.max_turns=6", "rollout.episodes=4", "rollout.slots=4", "rollout.max_response_tokens=20"),
    *("warm_start.tasks=20", "warm_start.epochs=1", "training.iterations=1", "training.checkpoint_every=1"),
    *("evaluation.tasks=4", "evaluation.final_tasks=4", "model.nano.hidden=64"),
]


@pytest.mark.parametrize(
    "name", ["webshop-qwen2.5-0.5b", "webshop-qwen2.5-1.5b", "webshop-qwen2.5-7b", "webshop-qwen3-4b"]
)
def test_the_published_hyperparameters(name: str):
    config = load_config(name)
    shared = load_config(name.replace("webshop", "alfworld"))
    assert (config.shaping.keep_penalty, config.shaping.keep_mode) == (-3.5, "normalized")
    assert (config.shaping.invalid_penalty, config.shaping.consistency_penalty) == (-0.1, -0.3)
    assert config.advantages == HAE(1.0, 1.0, 0.95, bootstrap_truncated=False, normalize=True)
    assert (config.env.name, config.env.options["max_turns"], config.env.options["reward"]) == ("webshop", 50, 10.0)
    assert config.evaluation.splits == ("test",)
    assert config.model == shared.model
    assert config.learner == shared.learner
    assert config.rollout == shared.rollout


@pytest.mark.parametrize("name", ["webshop-quickstart", "webshop-nano"])
def test_what_small_models_are_trained_on(name: str, request: pytest.FixtureRequest):
    official = [] if "quickstart" in name else [f"env.data={request.getfixturevalue('official_folder')}"]
    config: Config = load_config(name, [*official, "model.nano.hidden=64", "model.nano.vocabulary_tasks=60"])
    parts = build(config)  # every action of the demonstrations can be said
    train, test = parts.env.panel, parts.held_out["test"].panel
    assert not {task.id for task in train} & {task.id for task in test}
    assert len(train) > 900
    assert len(test) >= (config.evaluation.final_tasks or 0)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["hiper", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def test_tasks_say_whether_they_are_the_official_ones(
    official_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    asked = ["tasks", "webshop", f"data={official_folder}", "nouns=words", "--split", "test"]
    assert run(monkeypatch, *asked) == 0
    assert capsys.readouterr().err.strip().endswith(", the official panel")
    assert run(monkeypatch, *asked, "tasks=20") == 0
    assert capsys.readouterr().err.strip().endswith(", NOT the official panel of this name")
    assert run(monkeypatch, "tasks", "webshop", "data=generated", "products=24") == 0
    assert "official" not in capsys.readouterr().err


def test_train_eval_play_and_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    folder = tmp_path / "run"
    assert run(monkeypatch, "train", "webshop-quickstart", *TINY, "--out", folder) == 0
    assert "webshop-generated-24" in capsys.readouterr().out

    assert run(monkeypatch, "eval", folder, "--episodes", 3, "--out", tmp_path / "eval") == 0
    capsys.readouterr()
    card = json.loads((tmp_path / "eval" / "test.json").read_text())
    assert card["panel"]["name"].startswith("webshop-generated-24")
    assert card["template"].startswith("webshop-terse-")
    assert 0.0 <= card["outcomes"]["all"]["score"] <= 1.0
    assert card["panel"]["official"] is None
    episodes = list(read_episodes(tmp_path / "eval" / "test.jsonl.gz"))
    assert all(("type" in episode.parts) == episode.terminated for episode in episodes)
    assert set(card["outcomes"]["all"]["parts"]) == {name for episode in episodes for name in episode.parts}

    settings = ["data=generated", "products=24"]
    assert run(monkeypatch, "play", "webshop", *settings, "--agent", folder, "--auto") == 0
    assert "after" in capsys.readouterr().out
    assert run(monkeypatch, "play", "webshop", *settings, "--agent", "expert", "--auto") == 0
    said = capsys.readouterr().out
    assert "SWITCH  find" in said
    assert "click[buy now]" in said
    monkeypatch.setattr(sys, "stdin", StringIO("1\nface creams\nclick[back to search]\nq\n"))
    assert run(monkeypatch, "play", "webshop", *settings) == 0
    assert "search[face creams]" in capsys.readouterr().out
    assert run(monkeypatch, "tasks", "webshop", *settings, "--split", "test") == 0
    listed = capsys.readouterr()
    assert listed.out.splitlines()[0].startswith("webshop-generated-24")
    assert f"{len(listed.out.splitlines())} tasks, sha256" in listed.err
