"""Which tokens may come next, if the whole response has to match a pattern. The library llguidance computes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from hiper.errors import UserError, shortened
from hiper.plan_execute.tokenizer import SPACE, is_subword, is_word_level


class TokenRules:
    """Makes constraints for the tokens of one model.

    Args:
        tokenizer: The tokenizer of the model.
        words: The number of tokens that the model knows.
        stop_ids: The tokens that end a response.

    Raises:
        UserError: llguidance is missing, or it does not support the tokenizer.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, words: int, stop_ids: Sequence[int]) -> None:
        try:
            import llguidance
            import llguidance.hf
            import llguidance.numpy
        except ImportError as error:
            raise UserError(
                "sampler.choose=admissible needs llguidance: run `pip install 'hiper[structured]'`, or leave it out"
            ) from error
        self.library: Any = llguidance
        self.words = words
        self.start, self.end = "", ""
        """What may come before a response, and what follows it, in the texts of tokens."""
        if is_word_level(tokenizer) or is_subword(tokenizer):
            wrapped = llguidance.TokenizerWrapper(_Words(tokenizer, words, stop_ids))
            self.start, self.end = (" ?", "") if is_subword(tokenizer) else ("", " ")
            self.tokens = llguidance.LLTokenizer(wrapped, n_vocab=words, eos_token=list(stop_ids))
            return
        try:
            fast = cast(PreTrainedTokenizerFast, tokenizer)
            self.tokens = llguidance.hf.from_tokenizer(fast, n_vocab=words, eos_token=list(stop_ids))
        except Exception as error:  # the library raises no narrower class
            raise UserError(
                f"sampler.choose=admissible: llguidance does not support the tokenizer {tokenizer.name_or_path!r} "
                f"({shortened(error)}); use sampler.type=vllm, or leave sampler.choose out"
            ) from error

    def begin(self, pattern: str) -> Constraint:
        """Return the constraint of a response that has to match a regular expression."""
        return Constraint(self, pattern)


class Constraint:
    """The constraint of one response, which grows by a token at a time."""

    def __init__(self, rules: TokenRules, pattern: str) -> None:
        # Forcing would write text that has no alternative in tokens of its own choice. Nano models lack some of them.
        whole = (rules.start + pattern + rules.end).replace("/", r"\/")
        grammar = f'%llguidance {{"no_forcing": true}}\nstart: /{whole}/'
        self._rules = rules
        self._matcher = rules.library.LLMatcher(rules.tokens, rules.library.grammar_from("lark", grammar))
        self._mask = rules.library.numpy.allocate_token_bitmask(1, rules.words)
        self._check()

    def allowed(self) -> NDArray[np.bool_]:
        """Return which tokens may come next (V,)."""
        self._rules.library.numpy.fill_next_token_bitmask(self._matcher, self._mask, 0)
        self._check()
        bits = np.unpackbits(self._mask.view(np.uint8), bitorder="little")
        return bits[: self._rules.words].astype(bool)

    def take(self, token: int) -> None:
        """Append a token that is allowed."""
        if not self._matcher.is_stopped():  # after a whole response only its end may follow, which is not consumed
            self._matcher.consume_token(token)
            self._check()

    def _check(self) -> None:
        if self._matcher.is_error():
            told = shortened(self._matcher.get_error())
            raise UserError(f"sampler.choose=admissible: llguidance cannot go on: {told}")


class _Words:
    """The tokenizer of a nano model as llguidance reads it.

    A word-level token is a word and a space. With the space before the word, "pot" would be the beginning of "potato".
    A subword token shows by itself whether a space comes before it.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, words: int, stop_ids: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self.eos_token_id, self.bos_token_id = stop_ids[0], None
        named = tokenizer.convert_ids_to_tokens(list(range(min(words, len(tokenizer)))))
        shows_spaces = is_subword(tokenizer)
        spelled = [word.replace(SPACE, " ") if shows_spaces else f"{word} " for word in named]
        self.tokens = [word.encode() for word in spelled] + [b""] * (words - len(named))
        special = {tokenizer.pad_token_id, tokenizer.unk_token_id, *stop_ids} - {None}
        self.special_token_ids = sorted(special)

    def __call__(self, text: bytes | str) -> list[int]:
        """Return the tokens of a text."""
        read = text.decode() if isinstance(text, bytes) else text
        ids: list[int] = self._tokenizer(read, add_special_tokens=False)["input_ids"]
        return ids
