"""The scripted buyer: what it understands, what it does on each page, and how often it succeeds."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.made import turns_of
from hiper.envs.base import EndReason, Info, Observation, Start
from hiper.envs.webshop.env import WebshopEnv, make
from hiper.envs.webshop.expert import PATIENCE, Request, WebshopExpert
from hiper.envs.webshop.product import Instruction, Product
from hiper.envs.webshop.shop import Shop
from hiper.episode import Episode
from hiper.errors import UserError
from hiper.imitation.demonstrations import demonstrate


def shirt(
    asin: str, title: str, price: float = 20.0, color: tuple[str, ...] = ("red", "blue"), **more: object
) -> Product:
    options = {"color": color, "size": ("small", "large")}
    fields: dict[str, object] = {"attributes": ("slim fit", "long sleeve"), "instructions": ()} | more
    return Product(
        asin=asin,
        title=title,
        description="",
        features=("slim fit with long sleeve",),
        category="fashion",
        query="shirts",
        product_category="Clothing › Men › Shirts",
        listed=(price,),
        options=options,
        **fields,  # type: ignore[arg-type]
    )


ASKED = Instruction("Find me slim fit shirts with long sleeve", ("slim fit", "long sleeve"))


@pytest.fixture
def boutique() -> Callable[..., WebshopEnv]:
    """A shop of the products given, beside a dozen others without requests; its training goals."""

    def open_boutique(*products: Product, split: str = "train") -> WebshopEnv:
        others = [shirt(f"OTHER{n:05d}", "Loose Trousers", attributes=()) for n in range(12)]
        return WebshopEnv(Shop.of("boutique", [*products, *others], seed=1), split, nouns="words")

    return open_boutique


def play(env: WebshopEnv, task_id: str | None = None) -> tuple[list[tuple[str, str]], Info]:
    """Subgoals and actions of an episode, and how it ended."""
    start, expert = env.reset(task_id or env.panel.tasks[0].id), WebshopExpert()
    expert.reset(start)
    observation, log = start.observation, []
    while True:
        decision = expert.act(observation)
        log.append((decision.subgoal, decision.action))
        step = env.step(decision.action)
        expert.acted(decision.action, step.observation)
        observation = step.observation
        if step.terminated or step.truncated:
            return log, step.info


# --- Understanding ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("instruction", "request_"),
    [
        (
            "Find me slim fit men's henleys with short sleeve with color: 152- green, and size: 3x-large, and price "
            "lower than 30.00 dollars",
            Request("slim fit men's henleys with short sleeve", (("color", "152- green"), ("size", "3x-large")), 30.0),
        ),
        (
            "Find me officially licensed men's t-shirts & tanks with needle sleeve, classic fit with color: black, and "
            "fit type: men, and size: xx-large, and price lower than 50.00 dollars",
            Request(
                "officially licensed men's t-shirts & tanks with needle sleeve, classic fit",
                (("color", "black"), ("fit type", "men"), ("size", "xx-large")),
                50.0,
            ),
        ),
        (
            "Find me anti aging scrubs & body treatments for fine lines, dry skin, and price lower than 60.00 dollars",
            Request("anti aging scrubs & body treatments for fine lines, dry skin", (), 60.0),
        ),
        ("Find me solid wood beds", Request("solid wood beds", (), float("inf"))),
        (
            "i am looking for a blue mug with a lid, and price lower than 20.00 dollars",
            Request("i am looking for a blue mug with a lid", (), 20.0),
        ),
    ],
)
def test_instructions_are_understood(instruction: str, request_: Request):
    assert Request.read(instruction) == request_


def test_every_recorded_instruction_is_understood(official_shop: Shop):
    for index in range(0, len(official_shop.goals), 7):
        goal = official_shop.goals.goal(index, official_shop.products)
        request = Request.read(goal.instruction)
        assert request.options == goal.options
        assert request.limit == (goal.limit if "price lower than" in goal.instruction else float("inf"))
        assert f"find me {request.words}".lower() == goal.product.instructions[0].text.lower()


def test_searches_name_the_product_and_stress_its_options():
    request = Request("slim fit, cotton shirts for women", (("color", "navy"), ("size", "x-large")), 30.0)
    assert request.query == "slim fit cotton shirts for women navy x-large navy x-large navy x-large"
    assert request.thing == "slim fit cotton shirts"


# --- Playing ----------------------------------------------------------------------------------------------------------


def test_it_searches_chooses_and_buys(boutique: Callable[..., WebshopEnv]):
    """Of products that match alike, the shop lists the first one first; it is too dear."""
    dear = shirt("B0DEAR", "Slim Fit Shirt With Long Sleeve", price=99.0)
    wanted = shirt("B0WANTED", "Slim Fit Shirt With Long Sleeve", instructions=(ASKED,))
    like = shirt("B0LIKE", "Slim Fit Shirt With Long Sleeve")
    env = boutique(dear, wanted, like)
    for task in env.panel:
        goal = env.reset(task.id).goal
        color, size = (value for _, value in Request.read(goal).options)
        log, info = play(env, task.id)
        assert log == [
            ("find slim fit shirts", f"search[slim fit shirts with long sleeve{f' {color} {size}' * 3}]"),
            ("find slim fit shirts", "click[b0wanted]"),
            (f"choose {color}", f"click[{color}]"),
            (f"choose {size}", f"click[{size}]"),
            ("buy", "click[buy now]"),
        ]
        assert info.won


def test_a_product_without_the_option_is_left_for_the_next(boutique: Callable[..., WebshopEnv]):
    better = shirt("B0BETTER", "Red Blue Slim Fit Shirt With Long Sleeve" * 3, color=("black",))
    wanted = shirt("B0WANTED", "Shirt", instructions=(ASKED,))
    log, info = play(boutique(better, wanted))
    assert log[1:4] == [
        ("find slim fit shirts", "click[b0better]"),
        ("find second slim fit shirts", "click[< prev]"),
        ("find second slim fit shirts", "click[b0wanted]"),
    ]
    assert info.won


def test_after_some_products_it_takes_what_there_is(boutique: Callable[..., WebshopEnv]):
    wanted = shirt("B0WANTED", "Trousers", color=("green", "red"), instructions=(ASKED,))
    better = [shirt(f"B0BETTER{n}", "Slim Fit Shirt With Long Sleeve", color=("black",)) for n in range(PATIENCE + 1)]
    env = boutique(wanted, *better)
    log, info = play(env)
    assert sum(action == "click[< prev]" for _, action in log) == PATIENCE
    assert log[-1] == ("buy", "click[buy now]")
    assert (info.won, info.end) == (False, EndReason.LOST)


def test_when_everything_is_too_dear_it_turns_the_page(boutique: Callable[..., WebshopEnv]):
    wanted = shirt("B0WANTED", "Trousers", instructions=(ASKED,))
    dear = [shirt(f"B0DEAR{n}", "Slim Fit Shirt With Long Sleeve", price=99.0) for n in range(10)]
    log, info = play(boutique(wanted, *dear))
    assert ("find slim fit shirts", "click[next >]") in log
    assert info.won


def test_a_wrong_choice_is_mended(boutique: Callable[..., WebshopEnv]):
    env = boutique(shirt("B0WANTED", "Slim Fit Shirt", instructions=(ASKED,)))
    start, expert = env.reset(env.panel.tasks[0].id), WebshopExpert()
    expert.reset(start)
    color = Request.read(start.goal).options[0][1]
    wrong = {"red": "blue", "blue": "red"}[color]
    observation = start.observation
    for action in (None, None, f"click[{wrong}]"):
        decision = expert.act(observation)
        observation = env.step(action or decision.action).observation
        expert.acted(action or decision.action, observation)
    assert (decision.subgoal, decision.action) == (f"choose {color}", f"click[{color}]")
    assert expert.act(observation).action == f"click[{color}]"
    assert not expert.act(observation).switch


@pytest.mark.parametrize("stray", ["click[features]", "click[reviews]", "click[< prev]", "click[back to search]"])
def test_it_finds_its_way_back(boutique: Callable[..., WebshopEnv], stray: str):
    env = boutique(shirt("B0WANTED", "Slim Fit Shirt", instructions=(ASKED,)))
    start, expert = env.reset(env.panel.tasks[0].id), WebshopExpert()
    expert.reset(start)
    observation, played = start.observation, list[str]()
    while True:
        action = stray if len(played) == 3 else expert.act(observation).action
        played.append(action)
        step = env.step(action)
        expert.acted(action, step.observation)
        observation = step.observation
        if step.terminated or step.truncated:
            break
    assert step.info.won
    assert len(played) <= 10


def test_options_in_a_persons_words(boutique: Callable[..., WebshopEnv]):
    asked = Instruction("i want a slim fit shirt in large and red", ("slim fit",), ("red", "large"))
    more = [
        shirt(f"B0{n}", "Slim Fit Shirt", instructions=(Instruction(f"a shirt, number {n}", ("slim fit",), ()),))
        for n in range(9)
    ]
    played = 0
    for split in ("train", "validation", "test"):
        env = boutique(shirt("B0WANTED", "Slim Fit Red Shirt", instructions=(asked,)), *more, split=split)
        for task in env.panel:
            if "i want" in env.reset(task.id).goal:
                log, info = play(env, task.id)
                played += 1
                assert [action for _, action in log[-3:]] == ["click[red]", "click[large]", "click[buy now]"]
                assert info.won
    assert played == 1


def test_it_needs_the_admissible_actions():
    expert = WebshopExpert()
    expert.reset(Start("Find me mugs", Observation("WebShop", None)))
    with pytest.raises(UserError, match="reads the admissible actions"):
        expert.act(Observation("WebShop", None))


# --- Demonstrations ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def demonstrations(generated_shop: Shop) -> list[Episode]:
    env = WebshopEnv(generated_shop, nouns="words")
    return [demonstrate(env, task.id, perturb=0.3) for task in env.panel.subset(120)]


def test_slips_are_made_in_haste(generated_shop: Shop):
    """The first product offered, if another is right; buying, if something is left to choose; else none."""
    env, rng = WebshopEnv(generated_shop, nouns="words"), random.Random(0)
    seen = {"search": 0, "first": 0, "buy": 0, "none": 0}
    for task in env.panel.subset(40):
        start, expert = env.reset(task.id), WebshopExpert()
        expert.reset(start)
        observation, ended = start.observation, False
        while not ended:
            slip, right = expert.slip(observation, rng), expert.act(observation)
            products = [a for a in observation.admissible or () if re.fullmatch(r"click\[b\w{9}\]", a)]
            if "click[buy now]" in (observation.admissible or ()):
                hasty = None if right.action == "click[buy now]" else ("buy", "click[buy now]")
                seen["buy"] += hasty is not None
            elif products:
                hasty = None if products[0] == right.action else (right.subgoal, products[0])
                seen["first"] += hasty is not None
            else:
                hasty = None
                seen["search"] += right.action.startswith("search[")
            seen["none"] += hasty is None
            assert (slip and (slip.subgoal, slip.action)) == hasty
            step = env.step(right.action)
            expert.acted(right.action, step.observation)
            observation, ended = step.observation, step.terminated or step.truncated
    assert min(seen.values()) > 10


def test_lapses_are_shown_and_mended(demonstrations: list[Episode]):
    turns = [turn for episode in demonstrations for turn in episode.turns]
    lapses = sum(turn.lapse for turn in turns)
    assert 0.15 < lapses / len(turns) < 0.4
    assert sum(episode.won for episode in demonstrations) > 40


def test_what_it_does_is_a_function_of_what_a_short_prompt_shows(demonstrations: list[Episode]):
    """Instruction, page, last action and subgoal explain all but few of its decisions, so that it can be imitated."""
    seen: dict[tuple[object, ...], set[tuple[str, str]]] = {}
    for episode in demonstrations:
        for turn in filter(lambda turn: turn.target, turns_of(episode)):
            known = turn.context
            last = known.history[-1][1] if known.history else None
            decided = (turn.decision.subgoal, turn.decision.action)
            seen.setdefault((known.goal, known.observation, last, known.subgoal), set()).add(decided)
    assert sum(len(decided) > 1 for decided in seen.values()) <= 0.01 * len(seen)


# --- How well it does -------------------------------------------------------------------------------------------------


def test_it_succeeds_on_most_generated_requests(generated_shop: Shop):
    env = WebshopEnv(generated_shop, "test", nouns="words")
    ended = [play(env, task.id)[1] for task in env.panel.subset(200)]
    assert sum(info.won for info in ended) / len(ended) > 0.8
    assert sum(info.score or 0.0 for info in ended) / len(ended) > 0.93


def test_it_succeeds_on_most_official_requests(official_folder: Path):
    env = make("test", official_folder, nouns="words")
    ended = [play(env, task.id)[1] for task in env.panel.subset(100)]
    assert sum(info.won for info in ended) / len(ended) > 0.65
    assert sum(info.score or 0.0 for info in ended) / len(ended) > 0.8
