"""Which tokens of a response made which decision, under any tokenizer.

Everything is derived from the response's own token ids: each token's extent in the text is worked out from what that
token decodes to, and nothing is ever tokenised again. A token may straddle blocks (byte-level BPE likes "><") or hold
a part of a character only; it then extends over every character of which it holds a part.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from functools import cache
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from tokenizers import decoders
from tokenizers.models import WordLevel

from hiper.advantages import TokenKind
from hiper.plan_execute.parse import BlockName, Parsed, Span

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


_KINDS_LAST_FIRST = (
    (BlockName.ACTION, TokenKind.ACTION),
    (BlockName.SUBGOAL, TokenKind.SUBGOAL),
    (BlockName.SWITCH, TokenKind.SWITCH),
)


class TokenText(NamedTuple):
    """A response's text, and each token's characters in it: ``starts[i]`` up to, not including, ``ends[i]``.

    Neither ever decreases, and together the tokens cover the text. Lists rather than arrays: responses are short and
    many.
    """

    text: str
    starts: list[int]
    ends: list[int]


class TokenReader:
    """Turns the ids of responses into :class:`TokenText`. One per tokenizer: it remembers what tokens decode to."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._decoder = _decoder_for(tokenizer)

    def read(self, ids: Sequence[int], ended: bool) -> TokenText:
        """The text of a response, and each token's extent.

        Args:
            ids: of the response.
            ended: by its last token, of which a model may know several: that has an empty extent behind the text.
        """
        if not ended:
            return self._decoder.decode(ids)
        text, starts, ends = self._decoder.decode(ids[:-1])
        return TokenText(text, [*starts, len(text)], [*ends, len(text)])


def token_kinds(tokens: TokenText, parsed: Parsed, include_tags: bool) -> NDArray[np.int8]:
    """The :class:`TokenKind` of each token of a response.

    A token belongs to a block if it holds any of its characters, and to the first of several, except that a block's
    content takes precedence over a neighbour's tag. Tokens outside all blocks are OTHER. Blocks that are missing or
    torn (see :attr:`Parsed.blocks`) have no tokens.

    Args:
        tokens: the response as its tokens.
        parsed: what ``tokens.text`` was parsed to.
        include_tags: whether the tags belong to their blocks, and the token that ends the response to the action.
            Without a loss on it, a model trained for long forgets to stop.
    """
    kinds = np.full(len(tokens.starts), TokenKind.OTHER, dtype=np.int8)
    last_first = [(kind, parsed.blocks[name]) for name, kind in _KINDS_LAST_FIRST if name in parsed.blocks]
    if include_tags:
        for kind, block in last_first:  # of two assignments to a token the later stands
            kinds[_overlapping(tokens, block.outer)] = kind
        if BlockName.ACTION in parsed.blocks and len(kinds) and tokens.starts[-1] == tokens.ends[-1]:
            kinds[-1] = TokenKind.ACTION
    for kind, block in last_first:
        kinds[_overlapping(tokens, block.inner)] = kind
    return kinds


def low_index(tokens: TokenText, parsed: Parsed) -> int | None:
    """The token with which </subgoal> is complete, counted within the response; None where there is no subgoal block.

    V_low is read from the hidden state at this token: the first that knows the whole subgoal.
    """
    block = parsed.blocks.get(BlockName.SUBGOAL)
    return None if block is None else _overlapping(tokens, block.outer).stop - 1


def _overlapping(tokens: TokenText, span: Span) -> slice:
    """The tokens that hold any of the characters of ``span``; they are consecutive."""
    if span.start == span.end:
        return slice(0, 0)
    return slice(bisect_right(tokens.ends, span.start), bisect_left(tokens.starts, span.end))


# --- Decoders: what each token contributes to the text ---------------------------------------------------------------


class _Decoder(Protocol):
    def decode(self, ids: Sequence[int]) -> TokenText: ...


def _decoder_for(tokenizer: PreTrainedTokenizerBase) -> _Decoder:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None and isinstance(backend.decoder, decoders.ByteLevel):
        return _ByteLevelDecoder(tokenizer)
    if backend is not None and backend.decoder is None and isinstance(backend.model, WordLevel):
        return _WordDecoder(tokenizer)
    return _IncrementalDecoder(tokenizer)


def _token(tokenizer: PreTrainedTokenizerBase, token_id: int) -> str:
    """A token as its vocabulary writes it; nothing for an id without a token (models have spare rows)."""
    return str(tokenizer.convert_ids_to_tokens(token_id) or "")


class _WordDecoder:
    """Tokens are words; the text is the words with a space before each but the first."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._word = cache(self._find_word)

    def decode(self, ids: Sequence[int]) -> TokenText:
        words = [self._word(i) for i in ids]
        ends = [end - 1 for end in accumulate(len(word) + 1 for word in words)]
        starts = [0, *ends][: len(words)]  # a space belongs to the word behind it
        return TokenText(" ".join(words), starts, ends)

    def _find_word(self, token_id: int) -> str:
        return _token(self._tokenizer, token_id)


class _ByteLevelDecoder:
    """Tokens are byte strings, written with a printable character for each byte (GPT-2's table)."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._bytes = cache(self._find_bytes)

    def decode(self, ids: Sequence[int]) -> TokenText:
        pieces = [self._bytes(i) for i in ids]
        data = b"".join(pieces)
        edges = [0, *accumulate(map(len, pieces))]
        if data.isascii():
            return TokenText(data.decode("ascii"), edges[:-1], edges[1:])
        text, char_of_byte = _decode_utf8(data)
        starts = [char_of_byte[start] for start in edges[:-1]]
        # Up to and with the character that holds the token's last byte; a token without bytes has no characters.
        ends = [char_of_byte[max(end - 1, start)] + (end > start) for start, end in pairwise(edges)]
        return TokenText(text, starts, ends)

    def _find_bytes(self, token_id: int) -> bytes:
        token = _token(self._tokenizer, token_id)
        table = _byte_of_symbol()
        try:
            return bytes(table[symbol] for symbol in token)
        except KeyError:  # an added token stands for itself
            return token.encode()


@cache
def _byte_of_symbol() -> dict[str, int]:
    """GPT-2's table: printable bytes stand for themselves, the others for the characters from U+0100 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


def _decode_utf8(data: bytes) -> tuple[str, list[int]]:
    """The text, broken sequences replaced, and for each byte (and the end) the index of the character that holds it."""
    parts: list[str] = []
    widths: list[int] = []  # bytes of each character
    done = 0
    while done < len(data):
        broken = slice(len(data), len(data))
        try:
            data[done:].decode()
        except UnicodeDecodeError as error:
            broken = slice(done + error.start, done + error.end)
        valid = data[done : broken.start].decode()
        parts.append(valid)
        widths += [len(character.encode()) for character in valid]
        if broken.start < broken.stop:
            parts.append("\N{REPLACEMENT CHARACTER}")
            widths.append(broken.stop - broken.start)
        done = broken.stop
    text = "".join(parts)
    return text, [*(char for char, width in enumerate(widths) for _ in range(width)), len(text)]


class _IncrementalDecoder:
    """Any other tokenizer: decode a growing window and see by how much the text grows.

    Tokens whose text is not settled yet (parts of a character) all extend over what they settle to together. The
    window moves on with settled text, so the time is linear in the length.
    """

    _MAX_UNSETTLED = 8  # a character has four bytes at most; what is not settled by then is broken

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer

    def decode(self, ids: Sequence[int]) -> TokenText:
        starts: list[int] = []
        ends: list[int] = []
        text = ""
        window, settled = 0, 0  # decode from `window`; tokens before `settled` have their extents
        for stop in range(1, len(ids) + 1):
            known = self._text(ids[window:settled])
            grown = self._text(ids[window:stop])
            pending = stop - settled
            if grown.endswith("\N{REPLACEMENT CHARACTER}") and stop < len(ids) and pending < self._MAX_UNSETTLED:
                continue
            new = grown[len(known) :]
            starts += [len(text)] * pending
            text += new
            ends += [len(text)] * pending
            window, settled = settled, stop
        return TokenText(text, starts, ends)

    def _text(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))
