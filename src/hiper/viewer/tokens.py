"""The text of stored tokens, read with the library tokenizers alone: transformers would take seconds to import."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from hiper.plan_execute.spans import TokenReader

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class TokenTexts:
    """The texts of tokens of one tokenizer.

    Args:
        file: Its ``tokenizer.json``.
    """

    def __init__(self, file: Path) -> None:
        from tokenizers import Tokenizer

        self.backend_tokenizer = Tokenizer.from_file(str(file))
        # A reader of tokens needs three methods of a tokenizer, and this class has them.
        self._reader = TokenReader(cast("PreTrainedTokenizerBase", self))

    def convert_ids_to_tokens(self, token_id: int) -> str | None:
        """Return a token as the vocabulary writes it."""
        token: str | None = self.backend_tokenizer.id_to_token(token_id)
        return token

    def decode(self, ids: Sequence[int], **_: Any) -> str:
        """Decode tokens, special ones too."""
        return str(self.backend_tokenizer.decode(list(ids), skip_special_tokens=False))

    def split(self, ids: Sequence[int]) -> list[str]:
        """Return the text of each token. All together are the decoded text; a part of a character is empty."""
        tokens = self._reader.read(ids, ended=False)
        done, texts = 0, []
        for end in tokens.ends:
            texts.append(tokens.text[done:end])
            done = max(done, end)
        return texts


def find_token_texts(policy: Path | None) -> TokenTexts | None:
    """Return the texts of tokens by the tokenizer in a policy's folder; None: it has none that can be read."""
    if policy is None:
        return None
    file = policy / "tokenizer.json"
    try:
        told = file.stat()
        return _load(file, told.st_mtime_ns)
    except Exception:  # the library tokenizers raises no narrower class
        return None


@lru_cache(maxsize=4)
def _load(file: Path, changed: int) -> TokenTexts:
    return TokenTexts(file)


def words(texts: TokenTexts | None, ids: Sequence[int]) -> list[str]:
    """Return the text of each token, or the ids where there is no tokenizer."""
    return [f"{i} " for i in ids] if texts is None else texts.split(ids)


def in_json(value: object) -> str:
    """Write JSON that browsers read: escapes are ASCII, and a number that is NaN or infinite becomes null."""
    try:
        return json.dumps(value, separators=(",", ":"), allow_nan=False)
    except ValueError:
        return json.dumps(_finite(value), separators=(",", ":"), allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(below) for key, below in value.items()}
    return [_finite(below) for below in value] if isinstance(value, list | tuple) else value
