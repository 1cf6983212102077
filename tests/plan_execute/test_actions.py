"""Actions in the words of a model."""

from __future__ import annotations

import random
import re
import time

import pytest
from pydantic import ValidationError

from hiper.envs.base import Decision
from hiper.errors import UserError
from hiper.plan_execute.actions import ActionStyle, ActionWords, QuickPattern
from hiper.plan_execute.parse import InvalidKind, parse_response
from hiper.plan_execute.render import PromptContext, Template
from hiper.plan_execute.templates import TemplateData, TextStyle
from hiper.plan_execute.tokenizer import build_word_tokenizer, encode_response, round_trip

STYLE = {
    "aliases": [{"find": r"\bK[0-9]{3}\b", "show": "door {n}", "action": "open({name})"}],
    "word": [{"find": r"(\w+)\((.*)\)", "put": r"\1 \2"}],
    "free": [{"find": "shout (.+)", "put": r"shout(\1)"}],
}
HALL = "You see K204, K117 and again K204."
ACTIONS = ("open(k204)", "open(k117)", "take(152- green)", "wait")


@pytest.fixture(scope="module")
def words() -> ActionWords:
    return ActionWords(ActionStyle.model_validate(STYLE))


def test_names_are_numbered_as_they_appear(words: ActionWords):
    assert words.hide_names(HALL) == "You see door 1, door 2 and again door 1."
    assert words.hide_names("K117 is open.") == "door 1 is open."
    assert words.hide_names("Nothing here.") == "Nothing here."


def test_actions_are_worded(words: ActionWords):
    said = [words.say(action, HALL) for action in (*ACTIONS, "open(k999)", "shout(who is there)", "")]
    assert said == ["door 1", "door 2", "take 152- green", "wait", "open k999", "shout who is there", ""]


def test_what_is_worded_is_understood(words: ActionWords):
    for action in ACTIONS:
        assert words.understand(words.say(action, HALL), HALL, ACTIONS) == action
    assert words.understand("shout who is there", HALL, ACTIONS) == "shout(who is there)"
    assert words.understand("shout who is there", HALL, None) == "shout(who is there)"


def test_white_space_counts_for_nothing_in_what_is_listed(words: ActionWords):
    assert words.understand("take 152 - green", HALL, ACTIONS) == "take(152- green)"
    assert words.understand("shout a  b", HALL, ACTIONS) == "shout(a  b)"


@pytest.mark.parametrize("said", ["door 3", "door", "open k204", "take it", "", "shout"])
def test_what_means_nothing_is_left_as_it_is(words: ActionWords, said: str):
    assert words.understand(said, HALL, ACTIONS) == said


def test_without_a_wording_actions_are_themselves():
    plain = ActionWords(ActionStyle())
    assert plain.hide_names(HALL) == HALL
    assert plain.say("open(k204)", HALL) == "open(k204)"
    assert plain.understand(" door 1", HALL, ACTIONS) == " door 1"


@pytest.mark.parametrize(
    "alias",
    [
        {"find": "K", "show": "door", "action": "open({name})"},
        {"find": "K", "show": "door {n}", "action": "open()"},
        {"find": "K", "show": "door {n} {m}", "action": "open({name})"},
    ],
)
def test_stand_ins_need_places_for_number_and_name(alias: dict[str, str]):
    with pytest.raises(ValidationError, match="should have a place for"):
        ActionStyle.model_validate({"aliases": [alias]})


@pytest.fixture
def template() -> Template:
    data = {
        "name": "doors",
        "version": 1,
        "kind": "text",
        "parts": ["{history}", "{observation}", "{actions}"],
        "history": {"turn": "{observation} > {action}"},
        "admissible": {"groups": [{"match": "door (?P<item>.+)", "show": "doors {items}"}], "separator": ", "},
        "actions": STYLE,
    }
    return Template(TemplateData.model_validate(data))


def test_a_template_words_lists_history_and_observation_alike(template: Template):
    past = ("K500 was there.", "open(k500)")
    context = PromptContext("", (past,), HALL, None, ACTIONS, 1)
    assert template.render(context) == (
        "door 1 was there. > door 1\nYou see door 1, door 2 and again door 1.\ndoors 1 2, take 152- green, wait"
    )


def test_a_response_in_words_is_parsed_to_the_environments_action(template: Template):
    context = PromptContext("", (), HALL, None, ACTIONS, 0)
    decision = Decision(True, "leave", "open(k117)")
    said = template.phrase(decision, context)
    assert said == Decision(True, "leave", "door 2")
    tokenizer = build_word_tokenizer(["leave door 2 take 152 - green"], template.wording)
    text = str(tokenizer.decode(encode_response(tokenizer, said)[:-1], clean_up_tokenization_spaces=False))
    parsed = parse_response(
        text,
        previous_subgoal=None,
        accepts=ACTIONS.__contains__,
        understand=lambda words: template.understand(words, context),
    )
    assert parsed.decision == decision
    assert parsed.invalid is None
    assert template.understand(round_trip(tokenizer, "take 152- green"), context) == "take(152- green)"
    wrong = parse_response(
        text.replace("door 2", "door 9"),
        previous_subgoal=None,
        accepts=ACTIONS.__contains__,
        understand=lambda words: template.understand(words, context),
    )
    assert wrong.invalid is InvalidKind.INADMISSIBLE_ACTION
    assert wrong.action == "door 9"


def test_words_of_stand_ins_are_known_to_tokenizers(template: Template):
    tokenizer = build_word_tokenizer([], template.wording)
    assert tokenizer.unk_token_id not in tokenizer.encode("door 1")


def test_an_environments_templates_are_found_by_its_name():
    with pytest.raises(
        UserError,
        match=r"'corridor/terse' is neither a shipped template .*; known are chat, instruct, .*, terse-act$",
    ):
        Template.load("corridor/terse")
    with pytest.raises(UserError, match=r"'nowhere/terse' is neither"):
        Template.load("nowhere/terse")


LONG = 100_000
SHIPPED = ["instruct", "terse", "terse-act", "alfworld/instruct", "alfworld/terse", "webshop/instruct", "webshop/terse"]


@pytest.mark.parametrize("template", SHIPPED)
@pytest.mark.parametrize(
    "part",
    ["\u00a0", " ", "\n", "a", "1", ".", "a 1 ", "object", "you pick up x from ", "you put ", "you heat ",
     " Your task is to:\n",
     "you are facing ", "you open ", "$1", "item 1 ", ", and ", "[SEP] ", "<"],
)  # fmt: skip
def test_no_text_takes_long_to_show_or_to_understand(template: str, part: str):
    loaded = Template.load(template)
    text = (part * LONG)[:LONG]
    for goal, observation, action in ((text, "o", "a"), ("g", text, "a"), ("g", "o", text)):
        context = PromptContext(goal, (), observation, None, (action, "look"), 0)
        began = time.process_time()
        loaded.render(context)
        loaded.understand(action, context)
        assert time.process_time() - began < 1.0  # a quadratic rule takes many seconds


def test_names_in_a_long_run_of_letters_are_hidden_soon():
    style = ActionStyle(aliases=({"find": r"[a-z]+ \d+", "show": "thing {n}", "action": "take {name}"},))
    words = ActionWords(style)
    began = time.process_time()
    assert words.hide_names("a" * LONG + " fork 3").endswith(" thing 1")
    assert words.say("take fork 3", "a" * LONG + " fork 3") == "thing 1"
    assert time.process_time() - began < 1.0


@pytest.mark.parametrize("pattern", [r"\s*Your task: .*", r"you (\w+) [^.]*\.", r"\b([a-z]+) \1", "x*", r"\s*a|b"])
def test_quick_patterns_do_what_patterns_do(pattern: str):
    draw = random.Random(1)
    words = ["Your task: ", "  ", "\n", "you eat ", "it. ", "x", "ab ", "b "]
    for _ in range(200):
        text = "".join(draw.choices(words, k=12))
        assert QuickPattern(pattern).sub("<>", text) == re.sub(pattern, "<>", text)
        assert [match[0] for match in QuickPattern("x+ ?").finditer(text)] == re.findall("x+ ?", text)


def test_in_a_long_text_all_short_matches_are_found():
    text = "".join(f"fork {n} and " for n in range(10_000))
    assert len(list(QuickPattern(r"[a-z]+ \d+").finditer(text))) == 10_000
    assert QuickPattern(r"([a-z]+) (\d+)").sub(r"\2 \1", text) == re.sub(r"([a-z]+) (\d+)", r"\2 \1", text)
    assert QuickPattern(r"x*?(?=fork)").sub("a ", text).count("a fork") == 10_000


@pytest.mark.parametrize("pattern", ["(a|aa)+$", "(a|aa)+?b$", "(?:(?:a|a)*x?)*c"])
@pytest.mark.parametrize("length", [60, LONG])
def test_a_pattern_of_exponential_time_stops_with_its_name(pattern: str, length: int):
    """Each takes ages in the module re: at 40 letters more than minutes."""
    quick, text = QuickPattern(pattern), "a" * length + "!"
    for match in (quick.fullmatch, lambda text: quick.sub("", text), lambda text: list(quick.finditer(text))):
        began, said = time.process_time(), ""
        try:
            found = match(text)
        except UserError as error:
            found, said = None, str(error)
        assert found in (None, text, [])
        assert not said or pattern in said
        assert time.process_time() - began < 4.0


def test_the_end_of_a_piece_is_no_end_of_the_text():
    text = "ab. " * 5000
    assert QuickPattern(r"[a-z]+\. ?$").sub("x", text) == text[:-4] + "x"
    assert QuickPattern(r"(?:[a-z]+\.)+ ?$").sub("x", text) == text[:-4] + "x"


@pytest.mark.parametrize("put", [r"\1\1", r"x\1"])
def test_a_rewrite_without_an_end_is_named(put: str):
    rule = {"find": "(a+)", "put": put, "repeat": True}
    data = Template.load("terse").data.model_copy(update={"observation": TextStyle.model_validate({"rewrite": [rule]})})
    with pytest.raises(UserError, match=r"in place of '\(a\+\)', never comes to an end"):
        Template(data).render(PromptContext("g", (), "aa", None, None, 0))


def test_risky_patterns_of_templates_mean_what_they_mean_elsewhere():
    text = "cabinet 1 cabinet 2 shelf 3 shelf 4 shelf 5 and $10.50 to $20.99 [sep] the fork 1 is closed" * 3
    for pattern, put in (
        (r"\b([a-z]+)((?: \d+)+) \1(?= \d)", r"\1\2"),
        (r"\$(\d+)\d(?:\.\d+)?(?: to \$\d+(?:\.\d+)?)?", r"$ \1"),
        (r"(?:the ([a-z]+ \d+) is closed|you close the ([a-z]+ \d+))", r"\1\2 closed"),
    ):
        assert QuickPattern(pattern).sub(put, text) == re.sub(pattern, put, text) != text
