from __future__ import annotations

import random
import time
from typing import Any

import pytest

from hiper.config import ThinkingConfig
from hiper.envs.base import Decision
from hiper.plan_execute.parse import (
    NO_ACTION,
    TAGS,
    BlockName,
    Form,
    InvalidKind,
    Parsed,
    parse_response,
    response_text,
    stated_switch,
)

S, G, A = "<switch>KEEP</switch>", "<subgoal>find mug</subgoal>", "<action>look</action>"
VALID = S + G + A


def parse(text: str, previous: str | None = "find mug", **options):
    return parse_response(text, previous_subgoal=previous, **options)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("", InvalidKind.MISSING_BLOCK),
        ("go to the fridge", InvalidKind.MISSING_BLOCK),
        (G + A, InvalidKind.MISSING_BLOCK),
        (S + A, InvalidKind.MISSING_BLOCK),
        (S + G, InvalidKind.MISSING_BLOCK),
        (S + G + "<action>look", InvalidKind.MISSING_BLOCK),
        (S + G + "look</action>", InvalidKind.MISSING_BLOCK),
        (VALID.replace("<action>", "<Action>"), InvalidKind.MISSING_BLOCK),
        (VALID + A, InvalidKind.REPEATED_BLOCK),
        (VALID + VALID, InvalidKind.REPEATED_BLOCK),
        (f"<think>I say {S} now</think>" + VALID, InvalidKind.REPEATED_BLOCK),
        (S + G + "<action><action>look</action>", InvalidKind.REPEATED_BLOCK),
        (S + S + A, InvalidKind.REPEATED_BLOCK),
        (G + S + A, InvalidKind.WRONG_ORDER),
        (A + S + G, InvalidKind.WRONG_ORDER),
        (S + "<subgoal>find <action>look</action></subgoal>", InvalidKind.WRONG_ORDER),
        ("</switch>KEEP<switch>" + G + A, InvalidKind.WRONG_ORDER),
        (S + "<subgoal> \n</subgoal>" + A, InvalidKind.EMPTY_BLOCK),
        (S + G + "<action></action>", InvalidKind.EMPTY_BLOCK),
        ("<switch></switch>" + G + A, InvalidKind.EMPTY_BLOCK),
        ("<switch>keep</switch>" + G + A, InvalidKind.UNKNOWN_SWITCH),
        ("<switch>KEEP|SWITCH</switch>" + G + A, InvalidKind.UNKNOWN_SWITCH),
        ("<switch>CONTINUE</switch>" + G + A, InvalidKind.UNKNOWN_SWITCH),
    ],
)
def test_wrong_form_is_named_and_never_acted_on(text, kind):
    parsed = parse(text)
    assert parsed.invalid == kind
    assert parsed.decision is None
    assert parsed.stated_subgoal is None
    assert not parsed.format_valid
    assert parsed.action == NO_ACTION
    assert parsed.subgoal == "find mug"  # the previous one stays
    assert not parsed.boundary
    assert not parsed.copy_differs


@pytest.mark.parametrize("length", range(len(VALID)))
def test_cut_off_anywhere_before_the_action_is_closed(length):
    assert parse(VALID[:length], hit_limit=True).invalid == InvalidKind.CUT_OFF


def test_hitting_the_limit_behind_the_action_does_no_harm():
    assert parse(VALID + " and so", hit_limit=True).invalid is None


def test_without_a_previous_subgoal_an_invalid_response_leaves_none():
    assert parse(S + A, previous=None).subgoal is None


def test_keep_follows_the_previous_subgoal():
    parsed = parse(VALID)
    assert parsed.invalid is None
    assert parsed.decision == Decision(switch=False, subgoal="find mug", action="look")
    assert (parsed.subgoal, parsed.boundary, parsed.copy_differs) == ("find mug", False, False)


def test_keep_with_another_text_is_valid_but_followed_is_the_previous():
    parsed = parse(VALID, previous="heat mug")
    assert parsed.invalid is None
    assert parsed.decision == Decision(switch=False, subgoal="heat mug", action="look")
    assert (parsed.stated_subgoal, parsed.subgoal) == ("find mug", "heat mug")
    assert (parsed.boundary, parsed.copy_differs) == (False, True)


def test_keep_without_a_previous_subgoal_begins_with_the_stated_one():
    parsed = parse(VALID, previous=None)
    assert parsed.decision == Decision(switch=False, subgoal="find mug", action="look")
    assert (parsed.boundary, parsed.copy_differs) == (True, False)


def test_switch_follows_the_stated_subgoal_even_an_equal_one():
    text = VALID.replace("KEEP", "SWITCH")
    assert parse(text, previous="heat mug").decision == Decision(switch=True, subgoal="find mug", action="look")
    parsed = parse(text)
    assert (parsed.boundary, parsed.copy_differs) == (True, False)


def test_inadmissible_action_is_counted_but_well_formed():
    parsed = parse(VALID, accepts={"wait"}.__contains__)
    assert parsed.invalid == InvalidKind.INADMISSIBLE_ACTION
    assert parsed.format_valid
    assert parsed.decision == Decision(switch=False, subgoal="find mug", action="look")
    assert parsed.action == "look"


def test_white_space_and_text_around_blocks_are_free():
    text = (
        "<think>Where is it?</think>\n<switch> KEEP </switch> \n <subgoal>\n find  mug </subgoal>; "
        "<action> go to desk 1 </action> ok"
    )
    parsed = parse(text, accepts={"go to desk 1"}.__contains__)
    assert parsed.invalid is None
    assert parsed.decision == Decision(switch=False, subgoal="find mug", action="go to desk 1")
    assert not parsed.copy_differs
    assert [block.outer.of(text)[:5] for block in parsed.blocks.values()] == ["<swit", "<subg", "<acti"]
    assert parsed.blocks[BlockName.ACTION].inner.of(text) == "go to desk 1"


def test_the_inside_of_an_action_is_left_alone():
    assert parse(S + G + "<action>go  to desk 1</action>").action == "go  to desk 1"


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        (S + G + "<action>lo", {BlockName.SWITCH, BlockName.SUBGOAL}),
        (S + "<subgoal>find" + A, {BlockName.SWITCH, BlockName.ACTION}),
        (S + G + A + A, {BlockName.SWITCH, BlockName.SUBGOAL}),
        (S + "<subgoal>find <action>look</action></subgoal>", {BlockName.SWITCH, BlockName.ACTION}),
        ("", set()),
    ],
)
def test_only_whole_blocks_are_found(text, whole):
    assert set(parse(text).blocks) == whole


@pytest.mark.parametrize("switch", [True, False])
def test_what_is_written_is_read(switch):
    decision = Decision(switch=switch, subgoal="put mug in cabinet", action="move mug 1 to cabinet 2")
    parsed = parse(response_text(decision), previous="put mug in cabinet")
    assert parsed.decision == decision
    assert parsed.invalid is None


def test_tags_in_order():
    assert TAGS == ("<switch>", "</switch>", "<subgoal>", "</subgoal>", "<action>", "</action>")


# --- Actions alone ----------------------------------------------------------------------------------------------------


def act(text: str, **keywords: Any) -> Parsed:
    return parse_response(text, previous_subgoal=keywords.pop("previous_subgoal", None), form=Form.ACTION, **keywords)


def test_without_a_plan_there_is_an_action_and_nothing_else():
    parsed = act("I look around. <action>look</action>")
    assert parsed.decision == Decision(switch=False, subgoal="", action="look")
    assert set(parsed.blocks) == {BlockName.ACTION}
    assert parsed.boundary  # the episode is one segment, which its first turn begins
    later = act("<action>look</action>", previous_subgoal=parsed.subgoal)
    assert (later.boundary, later.copy_differs, later.subgoal) == (False, False, "")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("look", InvalidKind.MISSING_BLOCK),
        ("<action>look", InvalidKind.MISSING_BLOCK),
        ("<action></action>", InvalidKind.EMPTY_BLOCK),
        ("</action>look<action>", InvalidKind.WRONG_ORDER),
        ("<action>look</action><action>look</action>", InvalidKind.REPEATED_BLOCK),
    ],
)
def test_an_action_has_a_form_too(text: str, kind: InvalidKind):
    assert act(text).invalid == kind
    assert act(text).action == NO_ACTION


def test_other_blocks_are_free_where_none_is_asked_for():
    text = response_text(Decision(True, "find it", "look"))
    assert act(text).decision == Decision(False, "", "look")
    assert act("<switch><action>look</action>").invalid is None


def test_a_cut_off_action():
    assert act("<action>lo", hit_limit=True).invalid == InvalidKind.CUT_OFF


def test_an_action_that_is_written_is_read():
    decision = Decision(False, "", "open fridge 1")
    assert response_text(decision, Form.ACTION) == "<action>open fridge 1</action>"
    assert act(response_text(decision, Form.ACTION)).decision == decision


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (VALID, "KEEP"),
        (VALID.removesuffix("</action>"), "KEEP"),
        ("<switch> SWITCH </switch>", "SWITCH"),
        ("<switch>MAYBE</switch>" + G + A, "MAYBE"),
        ("<switch>KEEP" + G + A, None),
        ("<switch>KEEP</switch><switch>KEEP</switch>" + G + A, None),
        ("", None),
    ],
)
def test_what_was_said_of_the_subgoal_is_read_from_any_form(text, word):
    assert stated_switch(text) == word


def test_a_response_of_very_many_tags_is_read_at_once():
    began = time.process_time()
    parsed = parse_response("<switch>KEEP</switch>" * 20_000, previous_subgoal=None)
    assert parsed.invalid is InvalidKind.REPEATED_BLOCK
    assert time.process_time() - began < 1.0


# --- Thinking --------------------------------------------------------------------------------------------------------

THINKS = ThinkingConfig()
TAGGED = f"I say {S} or <action>wait</action> <think> </switch>"


@pytest.mark.parametrize(
    ("text", "opened", "set_aside"),
    [
        (VALID, False, ""),
        (f"<think>{TAGGED}</think>{VALID}", False, f"<think>{TAGGED}</think>"),
        (f" \n<think>\n{TAGGED}\n</think>\n\n{VALID}", False, f" \n<think>\n{TAGGED}\n</think>"),
        (f"<think></think>{VALID}", False, "<think></think>"),
        (f"{TAGGED}</think>{VALID}", True, f"{TAGGED}</think>"),
        (f"</think>{VALID}", True, "</think>"),
        (f"<think>{TAGGED}</think>{VALID}", True, f"<think>{TAGGED}</think>"),  # it opens the block once more
        (f"<think>a</think>b</think>{VALID}", False, "<think>a</think>"),  # the first mark closes
        (f"well <think>a</think>{VALID}", False, ""),  # it does not begin with thinking
        (f"<Think>a</Think>{VALID}", False, ""),
    ],
)
def test_thinking_before_the_answer_is_set_aside(text: str, opened: bool, set_aside: str):
    parsed = parse(text, thinking=THINKS, opened=opened)
    assert parsed.invalid is None
    assert parsed.decision == parse(VALID).decision
    assert text[: parsed.thinking] == set_aside
    assert {name: text[slice(*block.outer)] for name, block in parsed.blocks.items()} == {
        BlockName.SWITCH: S,
        BlockName.SUBGOAL: G,
        BlockName.ACTION: A,
    }


@pytest.mark.parametrize("limit", [True, False])
@pytest.mark.parametrize(
    ("text", "opened"), [("<think>so " + VALID, False), (VALID, True), ("", True), ("<think>", False)]
)
def test_thinking_that_never_closes_leaves_no_answer(text: str, opened: bool, limit: bool):
    parsed = parse(text, thinking=THINKS, opened=opened, hit_limit=limit)
    assert parsed.invalid is InvalidKind.UNCLOSED_THINKING
    assert (parsed.action, parsed.subgoal, parsed.boundary, parsed.blocks) == (NO_ACTION, "find mug", False, {})
    assert parsed.thinking == len(text)


def test_an_answer_after_thinking_may_be_cut_off():
    assert parse("<think>a</think><switch>", thinking=THINKS, hit_limit=True).invalid is InvalidKind.CUT_OFF
    assert parse("<thin", thinking=THINKS, hit_limit=True).invalid is InvalidKind.CUT_OFF


def test_marks_of_other_models():
    marks = ThinkingConfig(open="[THINK]", close="[/THINK]")
    assert parse(f"[THINK]{TAGGED}</think>[/THINK]{VALID}", thinking=marks).decision == parse(VALID).decision
    assert parse(f"<think>{S}</think>{VALID}", thinking=marks).invalid is InvalidKind.REPEATED_BLOCK


THOUGHTS = (
    *TAGS,
    S,
    G,
    A,
    VALID,
    "<think>",
    "</thin",
    "think>",
    "KEEP",
    "\n",
    "  ",
    "é🍎",
    "\x00",
    "so",
    "<|im_end|>",
    "\u2028",
)


@pytest.mark.parametrize("form", list(Form))
@pytest.mark.parametrize("seed", range(40))
def test_thoughts_of_any_kind_change_nothing(seed: int, form: Form):
    """Whatever stands in them, the answer is read as it is without them, be it valid or not."""
    rng = random.Random(seed)
    for _ in range(20):
        thoughts = "".join(rng.choices(THOUGHTS, k=rng.randrange(30))).replace(THINKS.close, "")
        answer = rng.choice(
            (VALID, A, S + A, G + S + A, VALID.replace("KEEP", "SWITCH"), VALID.replace("KEEP", "MAYBE"), "")
        )
        opened, limit = rng.random() < 0.5, rng.random() < 0.5
        begin = rng.choice(("", " \n")) + ("" if opened else THINKS.open) + thoughts + THINKS.close
        if THINKS.close in begin[: -len(THINKS.close)]:  # the pieces may make one where they meet
            continue
        alone = parse(answer, form=form, hit_limit=limit)
        parsed = parse(begin + answer, form=form, hit_limit=limit, thinking=THINKS, opened=opened)
        assert (parsed.invalid, parsed.decision, parsed.stated_subgoal) == (
            alone.invalid,
            alone.decision,
            alone.stated_subgoal,
        )
        assert parsed.thinking == len(begin)
        assert {n: (b.outer.start - len(begin), b.inner.end - len(begin)) for n, b in parsed.blocks.items()} == {
            n: (b.outer.start, b.inner.end) for n, b in alone.blocks.items()
        }
