"""Which tokens of a response made which decision, under any tokenizer.

All of this comes from the response's own token ids. The extent of a token in the text is derived from what the token
decodes to, and no text is tokenised again. A token may cross the border of two blocks: in byte-level BPE, "><" is often
one token. A token may also hold only a part of a character. It then extends over the whole character.
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

from hiper.advantages import TokenKind
from hiper.plan_execute.parse import BlockName, Parsed, Span
from hiper.plan_execute.tokenizer import is_word_level

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


_KINDS_LAST_FIRST = (
    (BlockName.ACTION, TokenKind.ACTION),
    (BlockName.SUBGOAL, TokenKind.SUBGOAL),
    (BlockName.SWITCH, TokenKind.SWITCH),
)


class TokenText(NamedTuple):
    """The text of a response, and the extent of each token in it.

    Token i extends from character ``starts[i]`` up to, but not including, ``ends[i]``. Neither list ever decreases, and
    together the tokens cover the text. These are lists, since arrays are slow for many short responses.
    """

    text: str
    """The decoded response."""
    starts: list[int]
    """The first character of each token."""
    ends: list[int]
    """The end of each token."""


class TokenReader:
    """Turns the token ids of responses into :class:`TokenText`. It caches the texts of its tokenizer's tokens."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._decoder = _decoder_for(tokenizer)

    def read(self, ids: Sequence[int], ended: bool) -> TokenText:
        """Decode a response and find the extent of each token.

        Args:
            ids: the token ids of the response.
            ended: whether the last token is an end-of-sequence token. Its extent is empty, at the end of the text.
        """
        if not ended:
            return self._decoder.decode(ids)
        text, starts, ends = self._decoder.decode(ids[:-1])
        return TokenText(text, [*starts, len(text)], [*ends, len(text)])


def token_kinds(tokens: TokenText, parsed: Parsed, include_tags: bool) -> NDArray[np.int8]:
    """The :class:`TokenKind` of each token of a response.

    A token belongs to a block if it holds any of the block's characters. If it holds characters of several blocks, it
    belongs to the first, but the content of a block comes before the tag of another. Tokens outside all blocks are
    OTHER. A block that is missing or incomplete has no tokens (see :attr:`Parsed.blocks`). The thinking block is the
    first of all, with its marks and white space before it.

    Args:
        tokens: the response and its tokens.
        parsed: the parsed ``tokens.text``.
        include_tags: whether tags belong to their blocks, and the end-of-sequence token to the action. Without a loss
            on that token, a model forgets to stop in long training.

    Returns:
        The kinds (T,), one for each token.
    """
    kinds = np.full(len(tokens.starts), TokenKind.OTHER, dtype=np.int8)
    last_first = [(kind, parsed.blocks[name]) for name, kind in _KINDS_LAST_FIRST if name in parsed.blocks]
    if include_tags:
        for kind, block in last_first:  # the last assignment to a token holds
            kinds[_overlapping(tokens, block.outer)] = kind
        if BlockName.ACTION in parsed.blocks and len(kinds) and tokens.starts[-1] == tokens.ends[-1]:
            kinds[-1] = TokenKind.ACTION
    kinds[_overlapping(tokens, Span(0, parsed.thinking))] = TokenKind.THINKING
    for kind, block in last_first:
        kinds[_overlapping(tokens, block.inner)] = kind
    return kinds


def low_index(tokens: TokenText, parsed: Parsed) -> int | None:
    """The index in the response of the token that completes </subgoal>. None if there is no subgoal block.

    V_low is read from the hidden state at this token. It is the first hidden state after the whole subgoal.
    """
    block = parsed.blocks.get(BlockName.SUBGOAL)
    return None if block is None else _overlapping(tokens, block.outer).stop - 1


def _overlapping(tokens: TokenText, span: Span) -> slice:
    """The tokens that hold any character of ``span``. They are consecutive."""
    if span.start == span.end:
        return slice(0, 0)
    return slice(bisect_right(tokens.ends, span.start), bisect_left(tokens.starts, span.end))


class _Decoder(Protocol):
    """Decodes the tokens of a response with their extents."""

    def decode(self, ids: Sequence[int]) -> TokenText: ...


def _decoder_for(tokenizer: PreTrainedTokenizerBase) -> _Decoder:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None and isinstance(backend.decoder, decoders.ByteLevel):
        return _ByteLevelDecoder(tokenizer)
    if is_word_level(tokenizer):
        return _WordDecoder(tokenizer)
    return _IncrementalDecoder(tokenizer)


def _token(tokenizer: PreTrainedTokenizerBase, token_id: int) -> str:
    """A token as the vocabulary writes it. Empty for an id without a token, since models may have spare rows."""
    return str(tokenizer.convert_ids_to_tokens(token_id) or "")


class _WordDecoder:
    """Decodes word-level tokens: the text is the words with single spaces between them."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._word = cache(self._find_word)

    def decode(self, ids: Sequence[int]) -> TokenText:
        words = [self._word(i) for i in ids]
        ends = [end - 1 for end in accumulate(len(word) + 1 for word in words)]
        starts = [0, *ends][: len(words)]  # a space belongs to the word after it
        return TokenText(" ".join(words), starts, ends)

    def _find_word(self, token_id: int) -> str:
        return _token(self._tokenizer, token_id)


class _ByteLevelDecoder:
    """Decodes byte-level tokens: the vocabulary writes each byte as one printable character (GPT-2's table)."""

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
        # A token ends after the character that holds its last byte. A token without bytes has no characters.
        ends = [char_of_byte[max(end - 1, start)] + (end > start) for start, end in pairwise(edges)]
        return TokenText(text, starts, ends)

    def _find_bytes(self, token_id: int) -> bytes:
        token = _token(self._tokenizer, token_id)
        table = _byte_of_symbol()
        try:
            return bytes(table[symbol] for symbol in token)
        except KeyError:  # an added token is written as it is
            return token.encode()


@cache
def _byte_of_symbol() -> dict[str, int]:
    """GPT-2's table. Printable bytes are written as themselves, all others as characters from U+0100 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


def _decode_utf8(data: bytes) -> tuple[str, list[int]]:
    """Decode bytes. Broken sequences become replacement characters.

    Returns:
        The text, and the index of the character that holds each byte. One more index is for the end of the text.
    """
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
    """Decodes the tokens of any other tokenizer: it decodes a growing window and sees how the text grows.

    Tokens that hold parts of one character all extend over that character. The window moves on once its text no longer
    changes, so the time is linear in the length.
    """

    _MAX_UNSETTLED = 8  # a character has at most four bytes; text that still changes after eight tokens is broken

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
