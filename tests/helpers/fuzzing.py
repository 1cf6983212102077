"""What the fuzz tests share: their profiles, damage to texts and bytes, the oracle, and the count of inputs.

The oracle: within a limit of time, an input gives either a value that the test then uses, or a UserError with a short
message. Any other end is a failure, which hypothesis shrinks and shows.
"""

from __future__ import annotations

import faulthandler
import re
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from hiper.errors import UserError

FULL = "full"
"""The profile of ``make fuzz``. Every other run takes the quick one."""
_COMMON: dict[str, Any] = {
    "deadline": None,  # `limited` is stricter
    "database": None,
    "phases": (Phase.explicit, Phase.generate, Phase.shrink),
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
}
settings.register_profile("quick", derandomize=True, **_COMMON)
settings.register_profile(FULL, **_COMMON)

COUNTS: Counter[tuple[str, str]] = Counter()
"""The number of inputs by kind and end."""

T = TypeVar("T")


def inputs(number: int) -> settings:
    """The settings of a test of that many inputs. The quick profile tries a fiftieth of them."""
    full = settings.get_current_profile_name() == FULL
    return settings(max_examples=number if full else max(4, number // 50))


def table() -> Iterator[str]:
    """The lines of the table of inputs by kind and end."""
    ends = sorted({end for _, end in COUNTS})
    yield f"{'fuzzed':28}" + "".join(f"{end:>11}" for end in (*ends, "inputs"))
    for kind in (*sorted({kind for kind, _ in COUNTS}), "all"):
        counts = [sum(n for (k, e), n in COUNTS.items() if e == end and kind in (k, "all")) for end in ends]
        yield f"{kind:28}" + "".join(f"{count:11,}" for count in (*counts, sum(counts)))


def fuzzed(
    kind: str,
    load: Callable[[], T],
    use: Callable[[T], str | None],
    *,
    given: str | bytes = "",
    names: Sequence[str] = (),
    seconds: float = 2.0,
    code: bool = False,
) -> None:
    """Give one input to ``load``, and what comes out to ``use``.

    Args:
        kind: The kind of input, for the table.
        load: Reads the input. It may refuse it with a UserError.
        use: Verifies what was read, and may return a word for the table. Here a UserError is a failure.
        given: The input, of which a message may quote a line at most.
        names: Texts of which a message must hold one, such as the name of the file.
        seconds: The limit of time of both, of the processor's time.
        code: Whether the input is code, so that a message may speak of types and errors.
    """
    with limited(seconds):
        try:
            read = load()
        except UserError as error:
            check_message(str(error), given, names, code)
            end = "refused"
        else:
            end = use(read) or "used"
    COUNTS[kind, end] += 1


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Fail after so many seconds of the processor, or after many more on the clock.

    The signal ends loops of Python and of regular expressions. A loop elsewhere in C ends the process with a traceback.
    """

    def too_slow(number: int, frame: object) -> None:
        pytest.fail(f"no end after {seconds} s")

    before = [(number, signal.signal(number, too_slow)) for number in (signal.SIGPROF, signal.SIGALRM)]
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, 60 + 20 * seconds)
    faulthandler.dump_traceback_later(120 + 40 * seconds, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before:
            signal.signal(number, handler)


_INTERNAL = re.compile(
    r"Traceback|<class |<function |<object |object at 0x|site-packages|pydantic|\.py\b|NoneType|Ellipsis"
    r"|\w+(Error|Exception)\b|has no attribute|not subscriptable|not iterable|not supported between|positional argument"
    r"|keyword argument|unhashable|codec can't|must be str|is not JSON serializable|object is not"
)
_QUOTED = 160


def check_message(message: str, given: str | bytes = "", names: Sequence[str] = (), code: bool = False) -> None:
    """Demand that a message is short, names a file or a setting, and shows little of the input and no internals."""
    text = given.decode("utf-8", "replace") if isinstance(given, bytes) else given
    lines = message.splitlines()
    assert message.strip(), "the message is empty"
    assert len(lines) <= 12, f"the message has {len(lines)} lines: {message[:300]}"
    assert len(message) <= 1500, f"the message has {len(message)} characters: {message[:300]}"
    assert max(map(len, lines)) <= 600, f"a line of the message has {max(map(len, lines))} characters: {message[:300]}"
    assert message.isprintable() or set(filter(lambda c: not c.isprintable(), message)) <= {"\n"}, (
        f"the message holds what cannot be shown: {message[:300]!r}"
    )
    plain = message
    for name in names:
        plain = plain.replace(name, "")
    found = None if code else _INTERNAL.search(plain)
    assert not found or found[0] in text, f"the message shows internals ({found and found[0]}): {message}"
    assert not any(line[i : i + _QUOTED] in text for line in lines for i in range(len(line) - _QUOTED)), (
        f"the message quotes too much: {message}"
    )
    assert not names or any(name in message for name in names), f"the message names none of {names}: {message}"


ODD_TEXTS = (
    "", " ", "\t", "\n", "\r\n", "~", "null", "true", "yes", "no", "-", "- ", ": ", "?", "? ", "[", "]", "{", "}",
    "{}", "[]",
    "&a ", "*a", "<<: *a", "!", "!!int ", "!!set ", "!!python/object:os.system ", "%YAML 9.9\n", "---\n", "...\n",
    "|", ">",
    "'", '"', "#", "\\", "\\u", "\x00", "\x07", "\x1b[31m", "\ufeff", "\ufffe", "\u00a0", "\u2028", "\u202e", "☃",
    "𝔘", "e\u0301",
    "0x_", "0b_", "010", "1_000", "12:30", "2026-99-99", "1e400", "-1e400", ".inf", "-.inf", ".nan", "nan", "inf",
    "NaN",
    "Infinity", "1e-400", "-0", "-1", "0", "1", "1e3", "1.5", "9" * 30, "9" * 5000, "18446744073709551616", "x" * 5000,
    "[" * 2000, "{" * 2000, "(" * 2000, "- " * 400, '{"a":' * 1500, "a.b.c", "../..", "/", "~", "C:\\",
    "<!doctype html>",
    "{0}", "{}", "{x!r}", "{x.y}", "%s", "$(ls)", "`", ";", "=", "==",
)  # fmt: skip
"""Pieces of text that parsers trip over."""


@st.composite
def damaged(draw: st.DrawFn, base: Any, pieces: Sequence[Any], most: int = 3) -> Any:
    """A text, bytes or a list with up to ``most`` spans cut, deleted, doubled, swapped, replaced or filled in."""
    for _ in range(draw(st.integers(1, most))):
        low, high = sorted(draw(st.tuples(st.integers(0, len(base)), st.integers(0, len(base)))))
        if draw(st.booleans()):  # short spans are likelier to leave the rest readable
            high = min(high, low + draw(st.integers(0, 20)))
        span, piece = base[low:high], draw(st.sampled_from(pieces))
        before, after = base[:low], base[high:]
        ways = (
            before + piece + span + after,
            before + piece + after,
            before + after,
            before + span + span + after,
            before,
            after + span + before,
            before + _flipped(span) + after,
        )
        base = ways[draw(st.integers(0, len(ways) - 1))]
    return base


def _flipped(span: Any) -> Any:
    """A span with its first item changed a little."""
    if isinstance(span, bytes):
        return bytes([span[0] ^ 1]) + span[1:] if span else span
    if isinstance(span, str):
        return chr(ord(span[0]) ^ 1) + span[1:] if span else span
    return span[::-1]


ODD_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**70), 10**40, 0.5, -0.0, 1e-320, 1e300, float("inf"),
    float("-inf"), float("nan"),
    "", " ", "x", "x" * 5000, "\ud800", "\x00", "☃", "1", "true", "nan", [], {}, [[]], [None], {"": None},
    {"a": {"b": []}},
    [1, "a", None], list(range(50)),
)  # fmt: skip
"""Values of every kind that JSON and YAML know."""


@st.composite
def altered(draw: st.DrawFn, tree: Any, most: int = 3) -> Any:
    """A tree of mappings and lists in which up to ``most`` values are replaced, deleted, doubled or renamed."""
    import copy

    tree = copy.deepcopy(tree)
    for _ in range(draw(st.integers(1, most))):
        holder: Any = None
        here = tree
        key: Any = None
        while isinstance(here, dict | list) and here and (holder is None or draw(st.integers(0, 3))):
            holder, key = here, draw(st.sampled_from(list(here) if isinstance(here, dict) else range(len(here))))
            here = holder[key]
        if holder is None:
            return draw(st.sampled_from(ODD_VALUES))
        odd = copy.deepcopy(draw(st.sampled_from(ODD_VALUES)))
        match draw(st.sampled_from(("replace", "replace", "delete", "double", "rename", "move"))):
            case "replace":
                holder[key] = odd
            case "delete":
                del holder[key]
            case "double" if isinstance(holder, list):
                holder.append(holder[key])
            case "rename" if isinstance(holder, dict):
                holder[draw(st.sampled_from(("", "x", "name", "asin", "extends", "__class__")))] = holder.pop(key)
            case _:
                holder[key] = [here]
    return tree
