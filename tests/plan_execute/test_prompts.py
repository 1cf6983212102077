from __future__ import annotations

import copy
import datetime
import random
import re
import statistics
from dataclasses import replace
from typing import Any

import pytest
import yaml
from tokenizers.processors import TemplateProcessing
from transformers.utils import chat_template_utils

from helpers.made import turns_of
from hiper.config import Overflow, ThinkingConfig
from hiper.envs import make
from hiper.errors import UserError
from hiper.imitation.demonstrations import demonstrate
from hiper.plan_execute.parse import Form
from hiper.plan_execute.prompts import PromptBuilder, PromptTooLongError
from hiper.plan_execute.render import PromptContext, Template
from hiper.plan_execute.templates import TemplateData
from hiper.plan_execute.tokenizer import UNK, build_word_tokenizer, load_tokenizer, text_encoder

INTRO = (
    "-= Welcome to TextWorld, ALFRED! =-\n\nYou are in the middle of a room. Looking quickly around you, you see a "
    "cabinet 5, a cabinet 4, a cabinet 3, a cabinet 2, a cabinet 1, a fridge 1, and a microwave 1.\n\n"
    "Your task is to: put a hot apple in fridge."
)
GO = tuple(f"go to {place}" for place in (*(f"cabinet {n}" for n in range(1, 6)), "fridge 1", "microwave 1"))
FIRST = PromptContext(
    goal="put a hot apple in fridge.",
    history=(),
    observation=INTRO,
    subgoal=None,
    admissible=(*GO, "help", "inventory", "look"),
    turn=0,
)
AT_FRIDGE = "You open the fridge 1. The fridge 1 is open. In it, you see a apple 3, a apple 1, a apple 2, and a mug 1."
LATER = PromptContext(
    goal="Your task is to: put a hot apple in fridge.",
    history=((INTRO, "go to fridge 1"), ("You arrive at fridge 1. The fridge 1 is closed.", "open fridge 1")),
    observation=AT_FRIDGE,
    subgoal="find apple",
    admissible=(
        "close fridge 1",
        "examine fridge 1",
        *GO[:2],
        *GO[3:5],
        GO[6],
        "help",
        "inventory",
        "look",
        *(f"take {thing} from fridge 1" for thing in ("apple 1", "apple 2", "apple 3", "mug 1")),
    ),
    turn=2,
)


@pytest.fixture(scope="module")
def terse() -> Template:
    return Template.load("alfworld/terse")


@pytest.fixture(scope="module")
def instruct() -> Template:
    return Template.load("alfworld/instruct")


def builder(
    template: Template,
    tokenizer: Any,
    history_window: int = 2,
    max_tokens: int | None = None,
    overflow: Overflow = "drop_history",
    **more: Any,
) -> PromptBuilder:
    return PromptBuilder(
        template, tokenizer, history_window=history_window, max_tokens=max_tokens, overflow=overflow, **more
    )


# --- Terse -----------------------------------------------------------------------------------------------------------


def test_terse_by_hand(terse):
    assert terse.render(FIRST) == (
        "go to cabinet 1-5 fridge 1 microwave 1 . start . task put hot apple in fridge . subgoal none ."
    )
    assert terse.render(LATER) == (
        "go to cabinet 1 2 4 5 microwave 1 . "
        "start > go to fridge 1 . fridge 1 closed > open fridge 1 . fridge 1 open : apple 3 1 2 mug 1 . "
        "take apple 1 2 3 mug 1 from fridge 1 , examine fridge 1 , close fridge 1 . "
        "task put hot apple in fridge . subgoal find apple ."
    )


def test_terse_without_admissible_actions_shows_the_room(terse):
    assert terse.render(replace(FIRST, admissible=None)) == (
        "room : cabinet 5 4 3 2 1 fridge 1 microwave 1 . task put hot apple in fridge . subgoal none ."
    )


@pytest.mark.parametrize(
    ("observation", "shown"),
    [
        (INTRO, "start"),
        ("You are in the middle of a room. Looking quickly around you, you see nothing.", "start"),
        ("You arrive at desk 2. On the desk 2, you see a cd 3, a mug 1, and a pen 2.", "desk 2 : cd 3 mug 1 pen 2"),
        ("You arrive at loc 12. On the desk 2, you see nothing.", "desk 2 : nothing"),
        ("On the desk 2, you see a fork 3, a fork 2, a fork 1, and a mug 1.", "desk 2 : fork 3 2 1 mug 1"),
        ("You arrive at safe 1. The safe 1 is closed.", "safe 1 closed"),
        ("You open the safe 1. The safe 1 is open. In it, you see nothing.", "safe 1 open : nothing"),
        ("The safe 1 is open. In it, you see a cd 1, and a watch 2.", "safe 1 open : cd 1 watch 2"),
        ("You close the safe 1.", "safe 1 closed"),
        ("You are facing the desk 1, and shelf 2. Next to it, you see nothing.", "at desk 1 shelf 2 : nothing"),
        ("You pick up the cd 1 from the safe 1.", "got cd 1"),
        ("You move the cd 1 to the safe 1.", "left cd 1"),
        ("You put the cd 1 in/on the safe 1.", "left cd 1"),
        ("You cool the egg 1 using the fridge 1.", "cool egg 1"),
        ("You heat the egg 1 using the microwave 1.", "hot egg 1"),
        ("You clean the mug 1 using the sinkbasin 1.", "clean mug 1"),
        ("You sliced the egg 1 with the knife 1.", "sliced egg 1"),
        ("You turn on the desklamp 1.", "desklamp 1 on"),
        ("You are carrying: a cd 1.", "carrying cd 1"),
        ("You are not carrying anything.", "carrying nothing"),
        ("This is a cold egg 1.", "cool egg 1"),
        ("This is a hot and clean sliced egg 1.", "hot clean sliced egg 1"),
        ("This is a normal box 1. In it, you see a cd 2, and a cd 1.", "box 1 : cd 2 1"),
        ("This is a normal box 1. In it, you see nothing.", "box 1 : nothing"),
        ("This desklamp 1 is on.", "desklamp 1 on"),
        ("There's nothing special about egg 1.", "plain egg 1"),
        ("Nothing happens.", "failed"),
        ("  ", "nothing"),
    ],
)
def test_terse_observations(terse, observation, shown):
    context = replace(FIRST, observation=observation, admissible=())
    assert terse.render(context) == f"{shown} . task put hot apple in fridge . subgoal none ."


@pytest.mark.parametrize(
    ("goal", "shown"),
    [
        ("put two cd in safe.", "put two cd in safe"),
        ("cool some egg and put it in microwave.", "cool egg and put it in microwave"),
        ("look at the cd under the desklamp.", "look at cd under desklamp"),
    ],
)
def test_terse_goals(terse, goal, shown):
    assert f"task {shown} ." in terse.render(replace(FIRST, goal=goal))


def test_terse_shows_an_action_that_was_none(terse):
    assert "cabinet 1 closed > invalid ." in terse.render(
        replace(FIRST, history=(("You arrive at cabinet 1. The cabinet 1 is closed.", ""),), turn=1)
    )


def test_terse_prompts_on_official_games_are_short_and_lose_no_action(terse, official_games):
    env = make("alfworld", split="valid_seen", data=official_games)
    tasks = random.Random(0).sample([task.id for task in env.panel], 20)
    turns = [turn for task in tasks for turn in turns_of(demonstrate(env, task, perturb=0.2))]
    tokenizer = build_word_tokenizer(
        [terse.render(replace(turn.context, history=turn.context.history[-2:])) for turn in turns], terse.wording
    )
    building = builder(terse, tokenizer, history_window=2)
    prompts = [building.build(turn.context).ids for turn in turns]
    lengths = [len(ids) for ids in prompts]
    assert 60 <= statistics.mean(lengths) <= 100
    assert max(lengths) <= 200
    assert tokenizer.convert_tokens_to_ids(UNK) not in {token for ids in prompts for token in ids}


# --- Instruct --------------------------------------------------------------------------------------------------------


def test_instruct_is_one_user_message(instruct):
    [message] = instruct.render(LATER)
    assert message["role"] == "user"
    content = message["content"]
    assert "# Task\nput a hot apple in fridge." in content
    assert "# Current subgoal\nfind apple\n" in content
    assert f"# Turn 3: what you observe\n{AT_FRIDGE}" in content
    assert "# Recent turns\nTurn 1: You are in the middle of a room." in content
    assert "Your action: open fridge 1" in content
    listed = content.split("# Possible actions\n")[1].split("\n\n")[0].split("\n")
    assert listed == [action for action in LATER.admissible or () if action != "help"]
    for tag in ("<switch>KEEP or SWITCH</switch>", "<subgoal>", "</subgoal>", "<action>", "</action>"):
        assert tag in content


def test_chat_says_the_same_in_under_half_of_the_words(instruct):
    chat: Any = Template.load("alfworld/chat")
    system, message = chat.render(LATER)
    assert (system["role"], message["role"]) == ("system", "user")
    content = message["content"]
    assert content.startswith("Task: put a hot apple in fridge.\n")
    assert "\nSubgoal: find apple\n" in content
    assert "Welcome" not in content
    assert "go to" in content.split("Possible: ")[1].split("\n")[0]
    for tag in ("<switch>KEEP or SWITCH</switch>", "<subgoal>", "</subgoal>", "<action>", "</action>"):
        assert tag in content
    assert len(content.split()) < 0.5 * len(instruct.render(LATER)[0]["content"].split())


def test_instruct_leaves_out_what_there_is_not(instruct):
    content = instruct.render(replace(FIRST, admissible=None))[0]["content"]
    assert "Recent turns" not in content
    assert "# Possible actions" not in content
    assert "# Current subgoal\nNone yet." in content
    assert "Welcome" not in content
    assert content.count("put a hot apple in fridge") == 1


def test_instruct_goes_through_the_chat_template(instruct, bpe_tokenizer):
    prompt = builder(instruct, bpe_tokenizer).build(LATER)
    text = bpe_tokenizer.decode(prompt.ids)
    assert text.startswith("<|im_start|>user\nYou act in a text environment")
    assert text.endswith("<|im_end|>\n<|im_start|>assistant\n")
    assert prompt.ids.count(bpe_tokenizer.eos_token_id) == 1  # the markers are single tokens
    assert prompt.complete


def test_chat_needs_a_chat_template(instruct):
    with pytest.raises(UserError, match="no chat template"):
        builder(instruct, build_word_tokenizer(["a"]))


def chatting(tokenizer: Any, chat_template: Any) -> Any:
    """A copy of a tokenizer with another chat template."""
    other = copy.deepcopy(tokenizer)
    other.chat_template = chat_template
    return other


ALL_MESSAGES = "{% for m in messages %}{{ m.content }}\n{% endfor %}"
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"


@pytest.mark.parametrize(
    ("chat_template", "message"),
    [
        (NO_SYSTEM + ALL_MESSAGES, "template careful: System role not supported; .*leave out `system` in careful"),
        ("{% for m in messages %}", "cannot render the messages of template careful: Unexpected end of template"),
        ("{{ 1 / 0 }}", "cannot render the messages of template careful: division by zero; mend chat_template"),
        ("{{ messages[9].content.x }}", "cannot render the messages of template careful: .*mend chat_template"),
        ("{{ messages[0].content }}", "leaves out the user message of template careful"),
        ("{{ messages[1].content }}", "leaves out the system message of template careful"),
        ({"tools": ALL_MESSAGES, "rag": ""}, r"has several variants \(tools, rag\), and none is called default"),
    ],
)
def test_a_chat_template_that_cannot_be_used_is_named_at_the_start(bpe_tokenizer, instruct, chat_template, message):
    careful = Template(TemplateData(**instruct.data.model_dump() | {"name": "careful", "system": "Be careful."}))
    with pytest.raises(UserError, match=f"^the chat template of the tokenizer .*{message}") as caught:
        builder(careful, chatting(bpe_tokenizer, chat_template))
    assert "\n" not in str(caught.value)


def test_variants_of_which_one_is_the_default(bpe_tokenizer, instruct):
    builder(instruct, chatting(bpe_tokenizer, {"default": ALL_MESSAGES, "tools": "{{ 1 / 0 }}"}))


@pytest.mark.parametrize(
    ("outside", "told"),
    [
        ("{{ strftime_now('%d %b %Y') }}", "writes the date into prompts: they keep"),
        ("\n  {{ strftime_now(format='%Y') }}", "writes the date into prompts: they keep"),
        ("{{ strftime_now('%-d %f') }}", "writes something from outside into prompts"),  # its parts cannot be kept
        ("{{ range(1000) | random }}", "writes something from outside into prompts"),
        ("{{ strftime_now('%Y') }}{{ range(1000) | random }}", "writes something from outside into prompts"),
        ("{% if date is not defined %}26 Jul 2024{% endif %}", ""),
        ("\n  {% if strftime_now is defined %}today{% endif %}", ""),
    ],
)
def test_a_chat_template_that_tells_the_day_is_noticed(bpe_tokenizer, instruct, outside, told, caplog):
    builder(instruct, chatting(bpe_tokenizer, outside + ALL_MESSAGES))
    assert told in caplog.text
    assert bool(caplog.text) == bool(told)


@pytest.mark.parametrize("variants", [True, False])
def test_the_day_is_kept_with_the_tokenizer(bpe_tokenizer, instruct, variants, tmp_path, monkeypatch, caplog):
    """A policy, or a resumed run, loads the tokenizer that was saved: it has the prompts of the first day."""
    dated = "\n{% set today = strftime_now('%d %b %Y') %}\n  Today is {{ today }}.\n" + ALL_MESSAGES
    tokenizer = chatting(bpe_tokenizer, {"default": dated, "tools": ""} if variants else dated)
    asked = [{"role": "user", "content": "a"}]
    as_it_was = tokenizer.apply_chat_template(asked, tokenize=False)
    first = builder(instruct, tokenizer)
    assert tokenizer.apply_chat_template(asked, tokenize=False) == as_it_was
    tokenizer.save_pretrained(tmp_path)

    class Later(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Later:
            return cls(2099, 12, 31)

    monkeypatch.setattr(datetime, "datetime", Later)
    monkeypatch.setattr(chat_template_utils, "datetime", Later)
    caplog.clear()
    assert "31 Dec 2099" in bpe_tokenizer.apply_chat_template(asked, chat_template=dated, tokenize=False)
    later = builder(instruct, load_tokenizer(tmp_path))
    assert later.build(LATER).ids == first.build(LATER).ids
    assert later.label == first.label
    assert not caplog.text
    assert builder(instruct, chatting(bpe_tokenizer, dated)).label != first.label


# Like Qwen3's, which thinks unless it is told not to, and like those of models that always think.
SWITCHED = (
    ALL_MESSAGES + "{% if add_generation_prompt %}assistant:\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
ALWAYS = ALL_MESSAGES + "{% if add_generation_prompt %}assistant:\n<think>\n{% endif %}"


def test_arguments_reach_the_chat_template(bpe_tokenizer, instruct):
    tokenizer = chatting(bpe_tokenizer, SWITCHED)
    plain, on, off = (
        builder(instruct, tokenizer, chat_template_args=given)
        for given in ({}, {"enable_thinking": True}, {"enable_thinking": False})
    )
    assert plain.build(LATER).ids == on.build(LATER).ids
    assert bpe_tokenizer.decode(off.build(LATER).ids) == (
        bpe_tokenizer.decode(plain.build(LATER).ids) + "<think>\n\n</think>\n\n"
    )
    assert plain.label == on.label != off.label
    assert plain.settings == {}
    assert off.settings == {"chat_template_args": {"enable_thinking": False}}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"enable_thikning": True},
            "does not mention 'enable_thikning', so it has no effect; did you mean 'enable_thinking'",
        ),
        ({"zebra": [1, {"a": None}]}, "does not mention 'zebra', so it has no effect; its text shows what it reads"),
        ({"thinking": True}, "does not mention 'thinking'"),  # a part of a word is no mention
        ({"add_generation_prompt": False}, "'add_generation_prompt' is HiPER's own"),
        ({"messages": []}, "'messages' is HiPER's own"),
        ({"tokenize": True}, "'tokenize' is HiPER's own"),
    ],
)
def test_arguments_without_effect_are_refused(bpe_tokenizer, instruct, given, message):
    with pytest.raises(UserError, match=message):
        builder(instruct, chatting(bpe_tokenizer, SWITCHED), chat_template_args=given)


def test_a_text_template_takes_no_arguments(bpe_tokenizer, terse):
    with pytest.raises(UserError, match="template alfworld-terse is plain text and has no chat template; leave"):
        builder(terse, bpe_tokenizer, chat_template_args={"enable_thinking": False})


def test_an_argument_that_breaks_the_chat_template_is_told_at_the_start(bpe_tokenizer, instruct):
    with pytest.raises(UserError, match="cannot render the messages of template alfworld-instruct"):
        builder(instruct, chatting(bpe_tokenizer, "{{ level + 1 }}" + ALL_MESSAGES), chat_template_args={"level": "x"})


@pytest.mark.parametrize(
    ("chat_template", "given", "opened"),
    [(ALWAYS, {}, True), (SWITCHED, {}, False), (SWITCHED, {"enable_thinking": False}, False)],
)
def test_a_prompt_that_opens_thinking_is_noticed(bpe_tokenizer, instruct, chat_template, given, opened, caplog):
    tokenizer = chatting(bpe_tokenizer, chat_template)
    thoughtful = builder(instruct, tokenizer, chat_template_args=given, thinking=ThinkingConfig())
    assert thoughtful.build(LATER).opens_thinking == opened
    assert not caplog.text
    assert thoughtful.settings["thinking"] == {"credit": "none", "open": "<think>", "close": "</think>"}
    assert not builder(instruct, tokenizer, chat_template_args=given).build(LATER).opens_thinking
    assert ("begins every response inside <think>, and prompt.thinking is not set" in caplog.text) == opened


def test_marks_that_are_tags_of_the_answer_are_refused(bpe_tokenizer, instruct):
    with pytest.raises(UserError, match="<action> is a tag of the answer"):
        builder(instruct, bpe_tokenizer, thinking=ThinkingConfig(open="<action>"))


@pytest.mark.parametrize(
    "name",
    [
        *("instruct", "instruct-act", "alfworld/instruct", "alfworld/instruct-act"),
        *("webshop/instruct", "webshop/instruct-act"),
    ],
)
def test_chat_templates_ask_for_thoughts_where_they_are_set(name):
    template = Template.load(name)
    plain, thoughtful = (
        str(template.render(LATER)),
        str(template.render(LATER, ThinkingConfig(open="[T]", close="[/T]"))),
    )
    added = "\\n\\n# Thinking\\nThink first, between [T] and [/T]. Later turns do not show your thoughts."
    assert thoughtful.count(added) == 1
    assert thoughtful.replace(added, "") == plain


def test_labels_tell_renderings_apart(bpe_tokenizer, instruct, terse):
    """Cards of another chat template, or of another day where it tells the day, have another label."""
    label = builder(instruct, bpe_tokenizer).label
    assert re.fullmatch(rf"{instruct.label}-[0-9a-f]{{8}}", label)
    assert builder(instruct, bpe_tokenizer).label == label
    days = {builder(instruct, chatting(bpe_tokenizer, f"{day} {ALL_MESSAGES}")).label for day in ("1 May", "2 May")}
    assert len({label, *days}) == 3
    assert builder(terse, bpe_tokenizer).label == terse.label


def test_a_text_begins_as_the_models_texts_do(bpe_tokenizer, terse, instruct):
    """A model that was trained with a beginning of sequence needs it; a chat template brings its own."""
    model = copy.deepcopy(bpe_tokenizer)
    model.bos_token = "<|endoftext|>"
    begin = model.bos_token_id
    assert builder(terse, model).build(LATER).ids == builder(terse, bpe_tokenizer).build(LATER).ids
    model.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", begin)]
    )
    ids = builder(terse, model).build(LATER).ids
    assert ids == [begin, *builder(terse, bpe_tokenizer).build(LATER).ids]
    cut = builder(terse, model, max_tokens=20, overflow="truncate_left").build(LATER)
    assert cut.ids == [begin, *ids[-19:]]
    assert cut.cut_tokens == len(ids) - 20
    assert builder(instruct, model).build(LATER).ids == builder(instruct, bpe_tokenizer).build(LATER).ids


# --- Window and length -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizer(terse):
    return build_word_tokenizer([terse.render(FIRST), terse.render(LATER)], terse.wording)


def text_of(tokenizer, prompt):
    return tokenizer.decode(prompt.ids)


def test_ids_are_the_rendered_text(terse, tokenizer):
    prompt = builder(terse, tokenizer).build(LATER)
    assert text_of(tokenizer, prompt) == terse.render(LATER).replace("-", " - ")


@pytest.mark.parametrize("window", [0, 1, 2, 5])
def test_the_window_shows_the_last_turns(terse, tokenizer, window):
    text = text_of(tokenizer, builder(terse, tokenizer, history_window=window).build(LATER))
    assert text.count(">") == min(window, 2)
    assert ("open fridge 1 . fridge 1 open" in text) == (window > 0)


def test_the_oldest_turns_are_dropped_first(terse, tokenizer):
    whole, one, none = (len(builder(terse, tokenizer, history_window=window).build(LATER).ids) for window in (2, 1, 0))
    for limit, length, dropped in ((whole, whole, 0), (whole - 1, one, 1), (one, one, 1), (one - 1, none, 2)):
        prompt = builder(terse, tokenizer, max_tokens=limit).build(LATER)
        assert (len(prompt.ids), prompt.dropped_turns, prompt.cut_tokens) == (length, dropped, 0)
        assert prompt.complete == (dropped == 0)
    with pytest.raises(PromptTooLongError, match=rf"turn 3 .* has {none} tokens without any history, {none - 1} are"):
        builder(terse, tokenizer, max_tokens=none - 1).build(LATER)


def test_truncation_keeps_the_right_end(terse, tokenizer):
    whole = builder(terse, tokenizer).build(LATER).ids
    prompt = builder(terse, tokenizer, max_tokens=10, overflow="truncate_left").build(LATER)
    assert prompt.ids == whole[-10:]
    assert prompt.cut_tokens == len(whole) - 10
    assert not prompt.complete
    assert builder(terse, tokenizer, max_tokens=len(whole), overflow="truncate_left").build(LATER).complete


def test_shortening_leaves_out_turns_before_it_cuts(terse, tokenizer):
    sizes = [len(builder(terse, tokenizer, history_window=window).build(LATER).ids) for window in (2, 1, 0)]
    for limit, dropped, cut in [(sizes[0], 0, 0), (sizes[0] - 1, 1, 0), (sizes[2], 2, 0), (sizes[2] - 3, 2, 3)]:
        prompt = builder(terse, tokenizer, max_tokens=limit, overflow="shorten").build(LATER)
        assert (prompt.dropped_turns, prompt.cut_tokens) == (dropped, cut)
        assert prompt.ids == builder(terse, tokenizer, history_window=2 - dropped).build(LATER).ids[cut:]
        assert prompt.complete == (not dropped and not cut)


def test_error_refuses_at_once(terse, tokenizer):
    length = len(builder(terse, tokenizer).build(LATER).ids)
    building = builder(terse, tokenizer, max_tokens=length - 1, overflow="error")
    with pytest.raises(PromptTooLongError, match=f"{length} tokens, {length - 1} are allowed"):
        building.build(LATER)


# --- Templates as data -----------------------------------------------------------------------------------------------

MINIMAL = {"name": "mine", "version": 3, "kind": "text", "parts": ["{goal}", "{actions}"]}


def write(path, **changes):
    path.write_text(yaml.safe_dump(MINIMAL | changes))
    return path


def test_a_template_of_ones_own(tmp_path):
    template = Template.load(write(tmp_path / "mine.yaml", separator=" | "))
    assert template.render(FIRST) == f"{FIRST.goal} | " + "\n".join(FIRST.admissible or ())
    assert template.label == f"mine-3-{template.content_hash[:8]}"


def test_the_hash_is_that_of_the_content(tmp_path):
    one = Template.load(write(tmp_path / "a.yaml"))
    file = tmp_path / "b.yaml"
    file.write_text("# a comment\nversion: 3\nkind: text\nparts: ['{goal}', '{actions}']\nname: mine\n")
    assert Template.load(file).content_hash == one.content_hash
    assert Template.load(write(tmp_path / "c.yaml", separator=" ")).content_hash != one.content_hash
    assert len(one.content_hash) == 64


def test_groups_keep_places_apart_and_other_names_whole():
    admissible = {
        "groups": [
            {"match": "take (?P<item>.+) from (?P<place>.+)", "show": "from {place}: {items}", "range_from": 3},
            {"match": "go (?P<item>.+)", "show": "{items}", "field": "ways"},
        ]
    }
    data = TemplateData.model_validate(MINIMAL | {"parts": ["{ways}|{actions}"], "admissible": admissible})
    cups = tuple(f"take cup {number} from desk 1" for number in (10, 9, 8, 2))
    actions = ("go north", "go door 2", "go door 1", "sing", *cups, "take pen from desk 2")
    assert Template(data).render(replace(FIRST, admissible=actions)) == (
        "north door 1 2|from desk 1: cup 2 8-10\nfrom desk 2: pen\nsing"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"partz": []}, "unknown key 'partz'; did you mean 'parts'"),
        ({"version": "new"}, "version: a whole number is needed"),
        ({"parts": ["{gaol}"]}, r"no value for \{gaol\}; there are .*\{goal\}"),
        ({"parts": ["{goal"]}, "template .*mine.yaml: .*'}'"),
        ({"system": "You are"}, "only a template of kind chat"),
        ({"observation": {"rewrite": [{"find": "(a)(?P<b>b)", "put": r"\3"}]}}, "put: invalid group reference 3"),
        ({"goal": {"rewrite": [{"find": "a", "put": r"\g<b>"}]}}, "put: unknown group name 'b'"),
        ({"observation": {"rewrite": [{"find": "("}]}}, "observation.rewrite.0.find: .*not a regular expression"),
        ({"admissible": {"groups": [{"match": "go (.+)", "show": "{items}"}]}}, "needs a named group"),
        ({"admissible": {"groups": [{"match": "(?P<item>.+)", "show": "{it}"}]}}, r"no value for \{it\}"),
        ({"history": {"turn": "{thought}"}}, r"history.* no value for \{thought\}"),
    ],
)
def test_wrong_templates_are_refused(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        Template.load(write(tmp_path / "mine.yaml", **changes))


def test_files_that_are_no_templates_are_refused(tmp_path):
    with pytest.raises(
        UserError,
        match=r"'tears' is neither a shipped template nor a YAML file; did you mean 'terse'\?",
    ):
        Template.load("tears")
    file = tmp_path / "broken.yaml"
    file.write_text("name: [")
    with pytest.raises(UserError, match=r"broken\.yaml is not a readable YAML file"):
        Template.load(file)
    file.write_text("separator: a\nresponse: b\nseparator: c\n")
    with pytest.raises(
        UserError, match=r"broken\.yaml is not a readable YAML file: .*'separator' is repeated.*\n.*line 3"
    ):
        Template.load(file)
    file.write_bytes("name: «»".encode("latin-1"))
    with pytest.raises(UserError, match=r"broken\.yaml is not a readable YAML file: .*UTF-8"):
        Template.load(file)


def test_a_rule_is_repeated_until_nothing_changes():
    rules = [{"find": r"\((\w*)\)", "put": r"\1", "repeat": True}, {"find": " +", "put": " ", "repeat": True}]
    data = TemplateData.model_validate(MINIMAL | {"goal": {"rewrite": rules}})
    assert str(Template(data).render(replace(FIRST, goal="((find))   it"))).startswith("find it")


def test_halves_of_characters_become_whole_ones(terse, tokenizer):
    shown = str(terse.render(replace(FIRST, goal="find \ud83d")))
    assert "find ?" in shown
    assert text_encoder(tokenizer)(shown)


SHIPPED = ("terse", "instruct", "alfworld/terse", "alfworld/instruct")


@pytest.mark.parametrize("name", SHIPPED)
def test_without_plans_the_rest_of_a_template_stays(name):
    whole, act = Template.load(name), Template.load(f"{name}-act")
    assert (whole.form, act.form) == (Form.PLAN_EXECUTE, Form.ACTION)
    assert act.data.observation == whole.data.observation
    assert act.data.admissible == whole.data.admissible
    shown = str(act.render(LATER))
    assert "subgoal" not in shown.lower()
    assert LATER.subgoal is not None
    assert LATER.subgoal in str(whole.render(LATER))
    if name.endswith("terse"):
        assert str(whole.render(LATER)) == f"{shown} subgoal {LATER.subgoal} ."


def test_a_template_may_extend_another(tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text("extends: terse\nname: own\nseparator: ' | '\n")
    own, terse = Template.load(file), Template.load("terse")
    assert own.data == terse.data.model_copy(update={"name": "own", "separator": " | "})
    (tmp_path / "below.yaml").write_text("extends: own.yaml\nname: below\n")
    below = Template.load(tmp_path / "below.yaml")  # from a file beside it
    assert below.data == own.data.model_copy(update={"name": "below"})
    for content, message in (
        ("extends: below.yaml\nname: own\n", r"extends .*, which extends it"),
        ("extends: nothing.yaml\n", r"nothing\.yaml is empty or damaged"),
    ):
        file.write_text(content)
        (tmp_path / "nothing.yaml").touch()
        with pytest.raises(UserError, match=message):
            Template.load(file)
    file.write_text("extends: tense\nname: own\n")
    with pytest.raises(UserError, match="'tense' is neither a shipped template"):
        Template.load(file)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_templates(name):
    template = Template.load(name)
    assert template.data.name == name.replace("/", "-")
    assert template.label.startswith(f"{template.data.name}-{template.data.version}-")
    assert ("help" in template.data.admissible.hide) == name.startswith("alfworld/")


def test_general_templates_leave_the_words_of_an_environment_alone():
    known = replace(
        FIRST, goal="Sell 3.5 of 1,000.", observation="A cold day, at 3.5 degrees. It opens.", admissible=None
    )
    assert Template.load("terse").render(known) == (
        "cold day at 3.5 degrees it opens . task sell 3.5 of 1,000 . subgoal none ."
    )
    content = str(Template.load("instruct").render(known))
    assert known.goal in content
    assert known.observation in content


@pytest.mark.parametrize("name", ["terse", "instruct-act"])
def test_an_environments_own_template_is_named_in_full(name, tmp_path):
    """Policies were trained on it when it had the name that the general one has now."""
    with pytest.raises(UserError, match=f"'{name}' is the general template, .* name 'alfworld/{name}', or a file"):
        Template.load_for("alfworld", name)
    assert Template.load_for("alfworld", f"alfworld/{name}").data == Template.load(f"alfworld/{name}").data
    assert Template.load_for("corridor", name).data == Template.load(name).data
    assert Template.load_for("somewhere:Else", name).data == Template.load(name).data
    file = tmp_path / f"{name}.yaml"
    file.write_text(f"extends: {name}\n")
    assert Template.load_for("alfworld", file).data == Template.load(name).data


# --- The memory of the plan -----------------------------------------------------------------------------------------

PLANS = ((0, "find apple"), (4, "heat apple"), (11, "put apple in fridge"))
SHOWN = {
    "text": "plans 1 find apple , 5 heat apple , 12 put apple in fridge .",
    "chat": "# Your subgoals so far\nTurn 1: find apple\nTurn 5: heat apple\nTurn 12: put apple in fridge",
}
WITH_PLANS = ("terse", "instruct", "alfworld/terse", "alfworld/instruct", "webshop/terse", "webshop/instruct")


def shown_by(template: Template, context: PromptContext) -> str:
    rendered = template.render(context)
    return rendered if isinstance(rendered, str) else rendered[-1]["content"]


@pytest.mark.parametrize("name", WITH_PLANS)
def test_every_template_can_show_the_subgoals_so_far(name):
    """One part more, right before the current subgoal; nothing else changes, and nothing if there are none."""
    plain = Template.load(name)
    showing, context = plain.with_plans(), replace(LATER, plans=PLANS)
    without = shown_by(plain, LATER)
    assert shown_by(plain, context) == shown_by(showing, LATER) == without
    mark = "subgoal find apple ." if plain.data.kind == "text" else "# Current subgoal\nfind apple"
    before, after = without.split(mark)
    assert shown_by(showing, context) == f"{before}{SHOWN[plain.data.kind]}{plain.data.separator}{mark}{after}"


def test_labels_tell_who_shows_the_subgoals(terse):
    """Prompts without them keep the label that they had before templates could show them."""
    assert terse.label == "alfworld-terse-1-668f887a"
    assert terse.with_plans().label != terse.label
    tokenizer = build_word_tokenizer([])
    labels = [
        PromptBuilder(t, tokenizer, history_window=2, max_tokens=None, overflow="error", plan_tokens=9).label
        for t in (terse, terse.with_plans())
    ]
    assert labels == [terse.label, f"{terse.with_plans().label}-plans-9"]


def test_their_words_belong_to_the_wording_only_where_they_are_shown(terse):
    plain, showing = (" ".join(t.wording).split() for t in (terse, terse.with_plans()))
    assert set(showing) - set(plain) == {"plans"}


@pytest.mark.parametrize(
    ("limit", "dropped", "shown"),
    [
        (None, 0, "1 find apple , 5 heat apple , 12 put apple in fridge"),
        (13, 0, "1 find apple , 5 heat apple , 12 put apple in fridge"),
        (12, 1, "5 heat apple , 12 put apple in fridge"),
        (9, 1, "5 heat apple , 12 put apple in fridge"),
        (8, 2, "12 put apple in fridge"),
        (5, 2, "12 put apple in fridge"),
        (4, 3, None),
    ],
)
def test_the_oldest_subgoals_are_left_out_and_counted(terse, limit, dropped, shown):
    showing, context = terse.with_plans(), replace(LATER, plans=list(PLANS))
    tokenizer = build_word_tokenizer([shown_by(showing, context)])
    prompts = PromptBuilder(showing, tokenizer, history_window=2, max_tokens=None, overflow="error", plan_tokens=limit)
    assert prompts.dropped_plans(context) == dropped
    built = tokenizer.decode(prompts.build(context).ids)
    expected = shown_by(terse, LATER).replace(
        "subgoal find", f"plans {shown} . subgoal find" if shown else "subgoal find"
    )
    assert built == tokenizer.decode(text_encoder(tokenizer)(expected))
    assert len(context.plans) == 3


def test_a_builder_whose_template_does_not_show_them_counts_none(terse):
    prompts = builder(terse, build_word_tokenizer([shown_by(terse, LATER)]))
    assert prompts.dropped_plans(replace(LATER, plans=PLANS)) == 0
    assert prompts.build(replace(LATER, plans=PLANS)) == prompts.build(LATER)


def test_a_template_says_how_they_are_shown():
    data = Template.load("terse").data.model_dump() | {"plans": {"part": "[{plans}]", "plan": "{subgoal} since {turn}"}}
    again = Template(TemplateData(**yaml.safe_load(Template(TemplateData(**data)).to_yaml())))
    assert "[find apple since 1 , heat apple since 5" in shown_by(again.with_plans(), replace(LATER, plans=PLANS))
    for wrong in ({"part": "{plan}"}, {"plan": "{plans}"}):
        with pytest.raises(ValueError, match="has no value for"):
            TemplateData(**data | {"plans": wrong})
