"""WebShop's prompt templates: nothing that matters is lost, and what a model says is understood."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from helpers.made import turns_of
from hiper.envs.base import Decision
from hiper.envs.webshop.env import WebshopEnv
from hiper.envs.webshop.shop import Shop
from hiper.imitation.demonstrations import demonstrate
from hiper.plan_execute.render import PromptContext, Template
from hiper.plan_execute.tokenizer import build_word_tokenizer, round_trip

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
