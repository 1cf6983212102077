"""The rules and the wording of a game file.

A game file carries its own PDDL domain and its own text grammar. The engine implements one set of rules in plain
Python. It does not interpret domain and grammar, it recognises them. Each action of the domain, each command template
and each text production must be one that the engine reproduces. Anything else is refused and never played
approximately. The two generations of data, "put X in/on Y" and "move X to Y", differ only in wording.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from hiper.errors import UserError, shortened


@dataclass(frozen=True, slots=True)
class Dialect:
    """The wording and the optional rules of a game."""

    put_verb: str
    """ "move" or "put": the verb for laying an object down. It tells the generations of data apart."""
    put_joint: str
    """The words between object and receptacle: " to " or " in/on "."""
    arrive_at_location: bool
    """Whether going somewhere names the location ("loc 5") instead of the receptacle."""
    help: str | None
    """The text of the command ``help``. None: there is no such command."""
    always: tuple[str, ...]
    """The commands that are understood in every state."""
    sink_types: frozenset[str]
    """Receptacle types an object can be cleaned with."""


ACTION_DIGESTS = {
    "look": {"6e7bb1b38b831ecb"},
    "inventory": {"59a5e9e207c4ca61"},
    "examinereceptacle": {"9b40d37f8d40f113"},
    "examineobject": {"a771a77ce1882d57"},
    "gotolocation": {"dd0dd2a56c32ce82"},
    "openobject": {"dd0fde414a559eb3"},
    "closeobject": {"67570af6ce69d510"},
    "pickupobject": {"31f0a7f87d757c04"},
    "putobject": {"01c6ab9bdb2d2fbe"},
    "cleanobject": {"6a8a73de194fdbaf", "a058970025154665"},
    "heatobject": {"d87d98147384b7ca"},
    "coolobject": {"a9efc8e0c80a2668"},
    "toggleobject": {"004b357daaea4c24"},
    "sliceobject": {"3c00049923343c71"},
    "help": {"aa2f8e54f31dbb8a"},
}
"""Digests of the PDDL actions that the engine implements, over their tokens in lower case without comments."""

_MOST_ACTIONS = 100
"""More actions than any domain has. Each is read on its own, which would take long for very many."""
_CLEAN_WITH_SINK_TOO = "6a8a73de194fdbaf"

COMMANDS = {
    "GotoLocation": "go to [{r.name | receptacleatlocation(r:receptacle, lend:location)}]",
    "OpenObject": "open {r}",
    "CloseObject": "close {r}",
    "PickupObject": "take {o} from {r}",
    "inventory": "inventory",
    "examineReceptacle": "examine {r}",
    "examineObject": "examine {o}",
    "ToggleObject": "use {o}",
    "HeatObject": "heat {o} with {r}",
    "CleanObject": "clean {o} with {r}",
    "CoolObject": "cool {o} with {r}",
    "SliceObject": "slice {co} with {ko}",
    "look": "look",
}
"""Command template of every action whose wording is the same in all data."""

_PUTS = {
    ("move {o} to {r}", "You move the {o.name} to the {r.name}."): ("move", " to "),
    ("put {o} in/on {r}", "You put the {o.name} in/on the {r.name}."): ("put", " in/on "),
}
"""Command and text of laying something down, with their verb and joint."""
PUT_JOINTS = dict(_PUTS.values())
"""The words between object and receptacle, by the verb of a dialect."""
_ARRIVALS = {
    "You arrive at {r.name}. #examineReceptacle.feedback#": False,
    "You arrive at {lend.name}. #examineReceptacle.feedback#": True,
}

GENERATED_LANGUAGE_DIGEST = "97472fd7c678c721"
"""Digest of the domain and the grammar of generated games.

They state the same rules and sentences in other words, so they are recognised as a whole. Tests play them beside
TextWorld.
"""

PRODUCTIONS_DIGEST = "6a70a8900bc2e6b0"
"""Digest of all other text productions that the engine's sentences reproduce, in :data:`_PRODUCTIONS` order."""

_PRODUCTIONS = (
    "intro",
    "OpenObject.feedback",
    "CloseObject.feedback",
    "PickupObject.feedback",
    "inventory.feedback",
    "examineReceptacle.feedback",
    "examineObject.feedback",
    "toggleObject.feedback",
    "heatObject.feedback",
    "cleanObject.feedback",
    "coolObject.feedback",
    "sliceObject.feedback",
    "look.feedback",
    "look-variations",
    "list_objects_on_the_floor",
    "list_appliances",
    "overview(o)",
    "overview(r)",
    "list_empty",
    "list_separator",
    "list_last_separator",
)

_TASK = re.compile(r'"rhs"\s*:\s*"Your task is to: ((?:[^"\\]|\\.)*)"')
_ACTION = re.compile(r"^action (\w+)\s*\{(.*?)^\}", re.MULTILINE | re.DOTALL)
_TEMPLATE = re.compile(r'template\s*::\s*"([^"]*)"')
_FEEDBACK = re.compile(r'feedback\s*::\s*"([^"]*)"')
_BLOCK = re.compile(r'grammar\s*::\s*"""(.*?)"""', re.DOTALL)
_PDDL_TOKEN = re.compile(r"[()]|[^\s()]+")
_PDDL_COMMENT = re.compile(r";[^\n]*")


def read_language(domain: str, grammar: str, where: str) -> tuple[Dialect, str]:
    """Return the dialect of a game and its task sentence.

    Raises:
        UserError: a rule or a sentence is not one that the engine knows.
    """
    found = _TASK.search(grammar)
    if not found:
        raise UserError(f"{where}: the grammar has no task sentence; this is not an ALFWorld game file")
    common = grammar[: found.start(1)] + grammar[found.end(1) :]
    try:
        task = json.loads(f'"{found.group(1)}"', strict=False)
        if any(mark in task for mark in "#{}[]|"):
            raise UserError(f"the task sentence {shortened(repr(task))} holds a mark of the grammar itself")
        return _dialect(domain, common), task
    except (UserError, ValueError, TypeError, LookupError, RecursionError) as error:
        raise UserError(f"{where}: {shortened(error, 300)}; only standard ALFWorld games can be played") from None


def with_task(grammar: str, task: str) -> str:
    """Return a grammar that states another task.

    Args:
        grammar: a grammar that :func:`read_language` reads.
        task: the sentence after "Your task is to: ".
    """
    found = _TASK.search(grammar)
    assert found
    return grammar[: found.start(1)] + json.dumps(task)[1:-1] + grammar[found.end(1) :]


@lru_cache(maxsize=32)
def _dialect(domain: str, grammar: str) -> Dialect:
    """Return the dialect of a domain and a grammar. It is parsed once, as all games of a set share them."""
    if language_digest(domain, grammar) == GENERATED_LANGUAGE_DIGEST:
        return _generated_dialect(grammar)
    actions = _action_digests(domain)
    commands, feedback, productions = _read_grammar(grammar)
    for action, command in COMMANDS.items():
        _expect(commands.get(action) == command, f"the command of action '{action}'", commands.get(action))
    put = (commands.get("PutObject", ""), _only(productions, "PutObject.feedback"))
    _expect(put in _PUTS, "the command and text of action 'PutObject'", put)
    arrival = _only(productions, "GotoLocation.feedback")
    _expect(arrival in _ARRIVALS, "the text of action 'GotoLocation'", arrival)
    _expect(productions_digest(productions) == PRODUCTIONS_DIGEST, "one of the texts", "an unknown text")
    help_text = _help_text(feedback.get("help", ""), productions) if "help" in actions else None
    put_verb, put_joint = _PUTS[put]
    return Dialect(
        put_verb=put_verb,
        put_joint=put_joint,
        arrive_at_location=_ARRIVALS[arrival],
        help=help_text,
        always=("inventory", "look") if help_text is None else ("help", "inventory", "look"),
        sink_types=frozenset(
            {"sinktype", "sinkbasintype"} if actions["cleanobject"] == _CLEAN_WITH_SINK_TOO else {"sinkbasintype"}
        ),
    )


def language_digest(domain: str, grammar: str) -> str:
    """Return the digest of a whole language: the domain, and the grammar without its task sentence."""
    return hashlib.sha256(f"{domain}\0{grammar}".encode()).hexdigest()[:16]


def _generated_dialect(grammar: str) -> Dialect:
    _, feedback, productions = _read_grammar(grammar)
    return Dialect(
        put_verb="move",
        put_joint=" to ",
        arrive_at_location=False,
        help=_help_text(feedback["help"], productions),
        always=("help", "inventory", "look"),
        sink_types=frozenset({"sinkbasintype"}),
    )


def _action_digests(domain: str) -> dict[str, str]:
    """Return the name and digest of each action of a PDDL domain. All of them must be known."""
    digests = dict(_actions(_PDDL_TOKEN.findall(_PDDL_COMMENT.sub("", domain).lower())))
    for action, digest in digests.items():
        _expect(digest in ACTION_DIGESTS.get(action, ()), f"the rule of action '{action}'", "an unknown rule")
    for action in ACTION_DIGESTS:
        _expect(action in digests or action == "help", f"the rule of action '{action}'", "nothing")
    return digests


def _actions(tokens: list[str]) -> Iterator[tuple[str, str]]:
    starts = [i for i, token in enumerate(tokens) if token == ":action"]
    _expect(len(starts) < _MOST_ACTIONS, "the domain", f"a list of {len(starts):,} actions")
    for start in starts:
        depth, end = 1, start
        while depth and end < len(tokens):
            depth += (tokens[end] == "(") - (tokens[end] == ")")
            end += 1
        text = " ".join(["(", *tokens[start:end]])
        yield tokens[start + 1], hashlib.sha256(text.encode()).hexdigest()[:16]


def _read_grammar(grammar: str) -> tuple[dict[str, str], dict[str, str], dict[str, Any]]:
    """Return the command template and the feedback of each action, and the text productions by name."""
    commands: dict[str, str] = {}
    feedback: dict[str, str] = {}
    for name, body in _ACTION.findall(grammar):
        for field, table in ((_TEMPLATE, commands), (_FEEDBACK, feedback)):
            if found := field.search(body):
                table[name] = found.group(1)
    productions: dict[str, Any] = {}
    for block in _BLOCK.findall(grammar):
        productions.update(json.loads(block))
    return commands, feedback, productions


def productions_digest(productions: dict[str, Any]) -> str:
    """Return the digest of the productions behind the engine's sentences."""
    text = json.dumps([productions.get(name) for name in _PRODUCTIONS], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _only(productions: dict[str, Any], name: str) -> str:
    match productions.get(name):
        case [{"rhs": str(text), **rest}] if not rest:
            return text
        case other:
            raise UserError(f"the text '{name}' is {str(other)[:80]!r}, which the engine does not know")


def _help_text(feedback: str, productions: dict[str, Any]) -> str:
    text = _only(productions, feedback[1:-1]) if feedback.startswith("#") else feedback
    return text.lstrip()  # the grammar's reader skips white space before the first word


def _expect(known: bool, what: str, found: object) -> None:
    if not known:
        raise UserError(f"{what} is {str(found)[:80]!r}, which the engine does not know")
