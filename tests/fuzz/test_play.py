"""What is said in play: responses of models, texts of environments, and environments of every behaviour."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import Qwen2Tokenizer

from helpers.fuzzing import ODD_TEXTS, ODD_VALUES, damaged, fuzzed, inputs
from hiper.advantages import TokenKind
from hiper.envs import EndReason, Info, Observation, Panel, Start, Step, Task, TextEnv, check_env
from hiper.envs.base import Decision
from hiper.episode import read_episodes, write_episodes
from hiper.plan_execute.parse import TAGS, Form, parse_response
from hiper.plan_execute.render import PromptContext, Template
from hiper.plan_execute.spans import TokenReader, low_index, token_kinds
from hiper.plan_execute.tokenizer import build_word_tokenizer
from hiper.rollout.collector import collect
from hiper.rollout.players import Assignment
from hiper.training.assign import assign_credit, rows_of
from hiper.training.build import Parts

pytestmark = pytest.mark.fuzz

VALID = "I think.\n<switch>SWITCH</switch>\n<subgoal>find a mug</subgoal>\n<action>go to shelf 1</action>"
SAID = [
    *ODD_TEXTS,
    *TAGS,
    "<think>",
    "</think>",
    "KEEP",
    "<switch>KEEP</switch>",
    "< switch>",
    "<ACTION>",
    "&lt;action&gt;",
    " " * 5000,
    "<" * 5000,
    "<action>" * 500,
]
RESPONSES = st.one_of(
    damaged(VALID, SAID),
    st.lists(st.one_of(st.sampled_from(SAID), st.text(max_size=8)), max_size=10).map("".join),
)


def blocks_by_hand(text: str, form: Form) -> dict[str, str] | None:
    """The contents of a response's blocks, found by counting; None where its form is not valid."""
    names = ["switch", "subgoal", "action"] if form is Form.PLAN_EXECUTE else ["action"]
    if any(text.count(tag) != 1 for name in names for tag in (f"<{name}>", f"</{name}>")):
        return None
    places = [text.index(tag) for name in names for tag in (f"<{name}>", f"</{name}>")]
    if places != sorted(places):
        return None
    contents = {name: text.partition(f"<{name}>")[2].partition(f"</{name}>")[0].strip() for name in names}
    if not all(contents.values()) or contents.get("switch", "KEEP") not in ("KEEP", "SWITCH"):
        return None
    return contents


@pytest.fixture(scope="module")
def readers(bpe_tokenizer: Qwen2Tokenizer) -> list[tuple[Any, TokenReader]]:
    words = build_word_tokenizer([VALID, "go to shelf 2"], [])
    return [(tokenizer, TokenReader(tokenizer)) for tokenizer in (bpe_tokenizer, words)]


@inputs(1500)
@given(text=RESPONSES, form=st.sampled_from(list(Form)), before=st.sampled_from([None, "find a mug"]))
def test_responses(readers: Any, text: str, form: Form, before: str | None) -> None:
    def read() -> Any:
        return parse_response(text, previous_subgoal=before, form=form)

    def use(parsed: Any) -> str:
        expected = blocks_by_hand(text, form)
        assert parsed.format_valid == (expected is not None)
        if expected is not None:
            assert parsed.action == expected["action"]
            assert parsed.decision.switch == (expected.get("switch") == "SWITCH")
        else:
            assert (parsed.action, parsed.subgoal) == ("", before)
        for tokenizer, reader in readers:
            ids = tokenizer.encode(text.encode(errors="replace").decode(), add_special_tokens=False)[:3000]
            tokens = reader.read(ids, ended=False)
            again = parse_response(tokens.text, previous_subgoal=before, form=form)
            kinds = token_kinds(tokens, again, include_tags=True)
            assert len(kinds) == len(ids)
            for name, kind in (("switch", TokenKind.SWITCH), ("action", TokenKind.ACTION)):
                block = next((block.inner for key, block in again.blocks.items() if key == name), None)
                for i, (start, end) in enumerate(zip(tokens.starts, tokens.ends, strict=True)):
                    if block is not None and block.start <= start < end <= block.end:
                        assert kinds[i] == kind, name
            place = low_index(tokens, again)
            assert place is None or 0 <= place < len(ids)
        return "valid" if expected is not None else "invalid"

    fuzzed("responses", read, use, given=text)


TEMPLATES = [
    "instruct",
    "instruct-act",
    "terse",
    "terse-act",
    "alfworld/instruct",
    "alfworld/terse",
    "webshop/instruct",
    "webshop/instruct-act",
    "webshop/terse",
    "webshop/terse-act",
]
SEEN = [
    *ODD_TEXTS, "You arrive at shelf 1. ", "On the shelf 1, you see a mug 1, and a fork 3.",
    "Your task is to: put a mug in shelf.\n", " [SEP] ",
    "Instruction: [SEP] buy [SEP] Back to Search", "B00ABCDE12", "$10.50 to $20", "item 3", "you put ", "a 1 a 1",
    "\u00a0" * 9000, "object: you ",
    "a" * 20_000, " \n" * 9000, "1 " * 9000, "you pick up x from y. " * 900, ", and x: ", " with ",
]  # fmt: skip
SIGHTS = st.lists(st.one_of(st.sampled_from(SEEN), st.text(max_size=6)), max_size=8).map("".join)


@inputs(800)
@given(name=st.sampled_from(TEMPLATES), goal=SIGHTS, seen=SIGHTS, said=SIGHTS, action=SIGHTS, listed=st.booleans())
def test_texts_of_environments(name: str, goal: str, seen: str, said: str, action: str, listed: bool) -> None:
    admissible = (action, "look") if listed else None
    context = PromptContext(goal, [(seen, action)], said + seen, None, admissible, 1)

    def use(template: Template) -> None:
        rendered = template.render(context)
        texts = [rendered] if isinstance(rendered, str) else [message["content"] for message in rendered]
        assert all(text.encode() for text in texts)
        assert template.render(context) == rendered
        shown = template.phrase(Decision(True, "x", action), context).action
        meant = template.understand(shown, context)
        assert not listed or "".join(template.phrase(Decision(True, "x", meant), context).action.split()) == "".join(
            shown.split()
        )

    fuzzed("texts of environments", lambda: Template.load(name), use, given=seen, seconds=3)


class Odd(Exception):  # noqa: N818
    """What an environment may raise, whose text cannot be shown."""

    def __str__(self) -> str:
        raise ValueError("no text")


class Sub(str):
    """A text of another class."""


RAISES: list[BaseException] = [
    ValueError("x" * 5000), KeyError("a"), Odd(), StopIteration(), SystemExit(3), RecursionError(), AssertionError(),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
]  # fmt: skip
RETURNS: list[Any] = [
    *ODD_VALUES, np.float32(1), np.float64("nan"), np.bool_(True), np.array([True]), np.array(1.5),
    torch.tensor(1.0), torch.tensor([1.0, 2.0]),
    np.str_("look"), Sub("look"), b"look", ("look", 1), ("look", "look"), ("<x>", "look <y>"), object(), 1j,
    {"a": 1.0}, {1: "a"}, {"a": np.float32(1)},
    EndReason.WON, EndReason.LOST, "won", "turn_limit", Observation("x"),
    Start("g", Observation("x")), Info(), 1e16, -1e14,
]  # fmt: skip
PLACES = [
    "goal", "text", "admissible", "reward", "terminated", "truncated", "won", "end", "score", "parts", "reset",
    "step", "start", "accepts", "expert",
    "act", "acted", "subgoal", "action", "switch", "spawn", "close", "max_turns", "name", "version", "panel",
    "concurrent", "hidden_actions", "nothing",
]  # fmt: skip


ATTRIBUTES = ["panel", "max_turns", "name", "version", "concurrent", "hidden_actions"]


class Misbehaving(TextEnv):
    """Three doors of which one is right. One value, in one place and at one turn, is another than it should be."""

    name, version, max_turns = "misbehaving", "1", 3

    def __init__(self, place: str, value: Any, at: int) -> None:
        self.panel = Panel.of("misbehaving/train", [Task(f"misbehaving/train/{n}", "door") for n in range(3)])
        self._place, self._value, self._at, self._turn = place, value, at, 0
        if place in ATTRIBUTES[1:]:
            setattr(self, place, self._odd(place, None))
        if place == "panel":
            self.panel = self._odd(place, None)

    def _odd(self, place: str, proper: Any) -> Any:
        if place != self._place or (self._turn < self._at):
            return proper
        if isinstance(self._value, BaseException):
            raise self._value
        return self._value

    def _observation(self) -> Observation:
        return Observation(self._odd("text", "Three doors."), self._odd("admissible", ("door 0", "door 1", "door 2")))

    def _reset(self, task_id: str, seed: int) -> Start:
        self._right = f"door {self.panel[task_id].id[-1]}"
        self._turn = 0
        self._odd("reset", None)
        return self._odd("start", Start(self._odd("goal", "find the door"), self._observation()))  # type: ignore[no-any-return]

    def _step(self, action: str) -> Step:
        self._turn += 1
        won = action == self._right
        end = self._odd("end", EndReason.WON if won else None)
        info = Info(self._odd("won", won), end, self._odd("score", None), self._odd("parts", {}))
        step = Step(
            self._observation(),
            self._odd("reward", float(won)),
            self._odd("terminated", won),
            self._odd("truncated", False),
            info,
        )
        return self._odd("step", step)  # type: ignore[no-any-return]

    def accepts(self, action: str, observation: Observation) -> bool:
        return self._odd("accepts", super().accepts(action, observation))  # type: ignore[no-any-return]

    def spawn(self) -> Any:
        return self._odd("spawn", super().spawn())

    def close(self) -> None:
        self._odd("close", None)

    def expert(self) -> Any:
        env = self

        class Knows:
            def reset(self, start: Start) -> None:
                pass

            def act(self, observation: Observation) -> Any:
                decision = Decision(
                    env._odd("switch", True), env._odd("subgoal", "open it"), env._odd("action", env._right)
                )
                return env._odd("act", decision)

            def acted(self, action: str, observation: Observation) -> None:
                env._odd("acted", None)

        return self._odd("expert", Knows())


@inputs(1000)
@given(place=st.sampled_from(PLACES), value=st.sampled_from([*RETURNS, *RAISES]), at=st.integers(0, 2))
def test_environments(
    tiny_parts: Parts, tmp_path_factory: pytest.TempPathFactory, place: str, value: Any, at: int
) -> None:
    def load() -> TextEnv:
        env = Misbehaving(place, value, at)
        check_env(env)
        return env

    def use(env: TextEnv) -> None:
        tasks = [Assignment(task.id, seed, seed) for seed, task in enumerate(env.panel)]
        agent = tiny_parts.agent
        episodes, _ = collect(env, tasks, agent, slots=3)
        scores = tiny_parts.learner.score(rows_of(episodes))
        assigned = assign_credit(episodes, scores, tiny_parts.config.shaping, tiny_parts.config.advantages)
        assert all(np.isfinite(row.advantages).all() for row in assigned.rows)
        file = tmp_path_factory.getbasetemp() / "odd.jsonl.gz"
        write_episodes(file, assigned.episodes)
        assert list(read_episodes(file)) == assigned.episodes

    if isinstance(value, BaseException) and place in ATTRIBUTES:
        return  # a constructor that raises is the user's own
    names = ["misbehaving", "Misbehaving", "environment"]
    fuzzed("environments", load, use, given=repr(value), names=names, seconds=10, code=True)
