"""The patterns of responses among which a policy may choose."""

from __future__ import annotations

import re

import pytest

from hiper.config import ThinkingConfig
from hiper.errors import UserError
from hiper.plan_execute.choices import LONGEST_SUBGOAL, LONGEST_TEXT, response_pattern
from hiper.plan_execute.parse import Form, parse_response

ACTIONS = ("go to cabinet 1", "go to cabinet 10", "look", "go to cabinet 1")


def answer(action: str, subgoal: str = "find a mug", word: str = "KEEP") -> str:
    return f"<switch>{word}</switch>\n<subgoal>{subgoal}</subgoal>\n<action>{action}</action>"


def fits(pattern: str, text: str) -> bool:
    return re.fullmatch(pattern, text) is not None


@pytest.mark.parametrize(
    "text",
    [
        answer("look"),
        answer("go to cabinet 10", word="SWITCH"),
        answer("look").replace("\n", ""),
        answer(" look ", " find "),
        answer("look", "x" * LONGEST_SUBGOAL),
        f"\n{answer('look')}",
    ],
)
def test_valid_responses_fit_and_parse(text: str):
    assert fits(response_pattern(ACTIONS), text)
    parsed = parse_response(text, previous_subgoal=None, accepts=lambda action: action in ACTIONS)
    assert parsed.invalid is None


@pytest.mark.parametrize(
    "text",
    [
        answer("go to cabinet 2"),
        answer("go to cabinet"),
        answer("look around"),
        answer(""),
        answer("look", ""),
        answer("look", " "),
        answer("look", "a <b>"),
        answer("look", "x" * (LONGEST_SUBGOAL + 1)),
        answer("look", word="MAYBE"),
        "<action>look</action>",
        f"Well. {answer('look')}",
        f"{answer('look')} and more",
    ],
)
def test_other_responses_do_not_fit(text: str):
    assert not fits(response_pattern(ACTIONS), text)


def test_signs_of_regular_expressions_stand_for_themselves():
    action = r"click[a.b (c)|d] $1.50 5\6 {x} ^ * + ?"
    pattern = response_pattern([action], Form.ACTION)
    assert fits(pattern, f"<action>{action}</action>")
    assert not fits(pattern, f"<action>{action.replace('.', 'x', 1)}</action>")


def test_a_part_in_angle_brackets_is_free_text():
    pattern = response_pattern(["search[<your query>]", "back"], Form.ACTION)
    assert fits(pattern, "<action>search[red shoes, size 7]</action>")
    assert fits(pattern, "<action>back</action>")
    assert not fits(pattern, "<action>search[]</action>")
    assert not fits(pattern, f"<action>search[{'x' * (LONGEST_TEXT + 1)}]</action>")


def test_thinking_comes_before_the_answer():
    thinking = ThinkingConfig(open="<think>", close="</think>")
    pattern = response_pattern(["look"], Form.ACTION, thinking)
    assert fits(pattern, "<think>first\nthis</think>\n<action>look</action>")
    assert fits(pattern, "<action>look</action>")
    assert not fits(pattern, "<think>first <action>look</action>")
    opened = response_pattern(["look"], Form.ACTION, thinking, opened=True)
    assert fits(opened, "this</think><action>look</action>")
    assert not fits(opened, "<action>look</action>")


def test_actions_are_written_as_the_tokenizer_writes_them():
    def write(text: str) -> str | None:
        return None if "mug" in text else " ".join(re.findall(r"\w+|[^\w\s]", text))

    pattern = response_pattern(["click[red]", "take mug", "search[<query>]"], Form.ACTION, write=write)
    assert fits(pattern, "<action> click [ red ] </action>")
    assert fits(pattern, "<action> search [ blue ] </action>")
    assert not fits(pattern, "<action> take mug </action>")
    with pytest.raises(UserError, match="no words for any of the admissible actions"):
        response_pattern(["take mug"], write=write)
