"""Search terms of a text, as Lucene's English analysis in Anserini makes them.

Text is split at Unicode's word boundaries (UAX #29). Possessives and stop words are removed, and words are reduced to
Porter stems.
"""

from __future__ import annotations

from itertools import chain

import regex

from hiper.envs.webshop.stemmer import stem

_STOPPED = """
a an and are as at be but by for if in into is it no not of on or such that the their then there these they this to was
will with
"""
STOP_WORDS = frozenset(_STOPPED.split())
_LONGEST = 255
"""The largest number of characters of a word. Longer words are cut into pieces."""

_REMEMBERED = 1 << 19
"""The number of pieces of text whose terms are cached."""

_EXTENDED = r"[\p{WB=Format}\p{WB=Extend}\p{WB=ZWJ}]*"
_LETTER = rf"[\p{{WB=ALetter}}\p{{WB=Hebrew_Letter}}]{_EXTENDED}"
_DIGIT = rf"\p{{WB=Numeric}}{_EXTENDED}"
_KATAKANA = rf"\p{{WB=Katakana}}{_EXTENDED}"
_JOINER = rf"\p{{WB=ExtendNumLet}}{_EXTENDED}"
# The colon joined letters until Unicode 15.
_IN_WORDS = rf"[:\p{{WB=MidLetter}}\p{{WB=MidNumLet}}\p{{WB=Single_Quote}}]{_EXTENDED}"
_IN_NUMBERS = rf"[\p{{WB=MidNum}}\p{{WB=MidNumLet}}\p{{WB=Single_Quote}}]{_EXTENDED}"
_WORD = rf"(?:{_LETTER}(?:{_IN_WORDS}(?={_LETTER}))?|{_DIGIT}(?:{_IN_NUMBERS}(?={_DIGIT}))?)+"
_RUN = rf"(?:{_WORD}|(?:{_KATAKANA})+)"
# Extended_Pictographic of Unicode 12.1, which Lucene 9 is built with; later versions hold less.
_PICTOGRAPH = (
    r"[\u00A9\u00AE\u203C\u2049\u2122\u2139\u2194-\u2199\u21A9\u21AA\u231A\u231B\u2328\u2388\u23CF\u23E9-\u23F3"
    r"\u23F8-\u23FA\u24C2\u25AA\u25AB\u25B6\u25C0\u25FB-\u25FE\u2600-\u2605\u2607-\u2612\u2614-\u2685\u2690-\u2705"
    r"\u2708-\u2712\u2714\u2716\u271D\u2721\u2728\u2733\u2734\u2744\u2747\u274C\u274E\u2753-\u2755\u2757"
    r"\u2763-\u2767\u2795-\u2797\u27A1\u27B0\u27BF\u2934\u2935\u2B05-\u2B07\u2B1B\u2B1C\u2B50\u2B55\u3030\u303D"
    r"\u3297\u3299\U0001F000-\U0001F0FF\U0001F10D-\U0001F10F\U0001F12F\U0001F16C-\U0001F171\U0001F17E\U0001F17F"
    r"\U0001F18E\U0001F191-\U0001F19A\U0001F1AD-\U0001F1E5\U0001F201-\U0001F20F\U0001F21A\U0001F22F"
    r"\U0001F232-\U0001F23A\U0001F23C-\U0001F23F\U0001F249-\U0001F3FA\U0001F400-\U0001F53D\U0001F546-\U0001F64F"
    r"\U0001F680-\U0001F6FF\U0001F774-\U0001F77F\U0001F7D5-\U0001F7FF\U0001F80C-\U0001F80F\U0001F848-\U0001F84F"
    r"\U0001F85A-\U0001F85F\U0001F888-\U0001F88F\U0001F8AE-\U0001F8FF\U0001F90C-\U0001F93A\U0001F93C-\U0001F945"
    r"\U0001F947-\U0001FFFD]"
)
_EMOJI = (
    rf"(?:\p{{RI}}\p{{RI}}|[#*]\uFE0F?\u20E3|{_PICTOGRAPH}\p{{WB=Extend}}*(?:\u200D{_PICTOGRAPH}\p{{WB=Extend}}*)*)"
)
_TOKEN = regex.compile(
    rf"(?:{_JOINER})*{_RUN}(?:(?:{_JOINER})+{_RUN})*(?:{_JOINER})*"
    r"|[\p{LB=Complex_Context}]+|\p{Script=Han}|\p{Script=Hiragana}"
    rf"|{_EMOJI}",
    regex.V1,
)
_POSSESSIVE = ("'s", "’s", "＇s", "'S", "’S", "＇S")


def terms(text: str) -> list[str]:
    """Return the terms under which a text is found, in order and with repetitions."""
    return list(chain.from_iterable(map(_pieces.__getitem__, text.split())))


class _Pieces(dict[str, tuple[str, ...]]):
    """A cache of the terms of pieces of text without white space. No word reaches beyond a piece, and most recur."""

    def __missing__(self, piece: str) -> tuple[str, ...]:
        if len(self) >= _REMEMBERED:
            self.clear()
        found = [piece] if piece.isascii() and piece.isalnum() else _TOKEN.findall(piece)
        words = (word[at : at + _LONGEST] for word in found for at in range(0, len(word), _LONGEST))
        plain = (word.removesuffix(word[-2:] if word.endswith(_POSSESSIVE) else "").lower() for word in words)
        self[piece] = kept = tuple(stem(word) for word in plain if word not in STOP_WORDS)
        return kept


_pieces = _Pieces()
