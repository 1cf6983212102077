"""Text to token ids and back: the word-level tokenizer of small models, and encoding for any tokenizer.

A word-level tokenizer knows the words of one environment's language and nothing else. A word ("in/on" is one), a
number, a tag is a token each, and so is every other character; white space only separates. Text of words and numbers
with single spaces between them, as ALFWorld's actions are, comes back exactly; :func:`round_trip` tells of other texts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split

from hiper.errors import UserError
from hiper.plan_execute.parse import SWITCH_WORDS, TAGS, Form, response_text

# transformers takes seconds to import; those who only build prompts do without.
if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

    from hiper.envs.base import Decision

PAD, EOS, UNK = "<pad>", "<eos>", "<unk>"

# A tag, a number, a word, any other character, as the tokenizers library understands it: to Python's `re`, accents and
# vowel signs that stand alone are no letters.
_WORD = r"</?[a-z]+>|[0-9]+|[^\W\d_]+(?:[/'-][^\W\d_]+)*|[^\s]"


def build_word_tokenizer(texts: Iterable[str], extra_words: Iterable[str] = ()) -> PreTrainedTokenizerFast:
    """A word-level tokenizer for the language of ``texts`` (prompts and responses).

    Its vocabulary, in this order: special tokens, tags and switch words, every number up to the largest seen below
    100, all other words sorted. So it depends on the set of words alone, and an unseen count of a known thing is no
    unknown word.

    Args:
        texts: all the model is going to read and write; a sample that shows every word once is enough.
        extra_words: further words, for example names known to appear in held-out tasks only.
    """
    split = _word_splitter().pre_tokenize_str
    seen = {word for text in (*texts, *extra_words) for word, _ in split(text)}
    largest = max((int(word) for word in seen if re.fullmatch("[0-9]{1,2}", word)), default=-1)
    fixed = [PAD, EOS, UNK, *TAGS, *SWITCH_WORDS, *map(str, range(largest + 1))]
    vocabulary = {word: index for index, word in enumerate(dict.fromkeys([*fixed, *sorted(seen)]))}
    core = Tokenizer(WordLevel(vocabulary, unk_token=UNK))
    core.pre_tokenizer = _word_splitter()
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNK,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    # Beside a Qwen2 model's config, AutoTokenizer of transformers 5 takes the words for the merges of a Qwen2Tokenizer,
    # whatever tokenizer.json says; with any entry here it reads the file.
    tokenizer.init_kwargs["auto_map"] = {"AutoTokenizer": [None, None]}
    return tokenizer


def load_tokenizer(source: str | Path) -> PreTrainedTokenizerBase:
    """A tokenizer saved with a model, or one by name, exactly as its files describe it.

    ``AutoTokenizer`` prefers the class registered for the model's architecture to the one the files name, and rebuilds
    the tokenizer as that class does. Where the files name no particular class, they are read as they are.

    Raises:
        UserError: there is no tokenizer.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast
    from transformers.models.auto.tokenization_auto import get_tokenizer_config

    try:
        named = get_tokenizer_config(str(source)).get("tokenizer_class")
        generic = named in ("TokenizersBackend", "PreTrainedTokenizerFast")
        loader = PreTrainedTokenizerFast if generic else AutoTokenizer
        tokenizer: PreTrainedTokenizerBase = loader.from_pretrained(str(source))
    except Exception as error:  # the tokenizers library knows no other kind
        raise UserError(
            f"{source}: no tokenizer can be loaded; give a model's directory or its name on the hub, or upgrade the "
            f"library tokenizers, which may know the files by then ({error})"
        ) from error
    return tokenizer


def encode_text(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """The ids of ``text`` and nothing else: no special tokens are added, nothing is cut."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None and backend.truncation is None:
        # The same ids without the wrapper, whose bookkeeping costs more than the encoding.
        return list(backend.encode(text, add_special_tokens=False).ids)
    return list(tokenizer.encode(text, add_special_tokens=False))


def text_encoder(tokenizer: PreTrainedTokenizerBase) -> Callable[[str], list[int]]:
    """:func:`encode_text` for many texts: with a word-level tokenizer some ten times faster, by remembering words."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    splitter = getattr(backend, "pre_tokenizer", None)
    if splitter is None or splitter.__getstate__() != _word_splitter().__getstate__():
        return partial(encode_text, tokenizer)

    @lru_cache(maxsize=1 << 16)
    def encode_chunk(chunk: str) -> tuple[int, ...]:
        return tuple(encode_text(tokenizer, chunk))

    # White space only separates, so what stands between it can be encoded on its own.
    return lambda text: [token for chunk in text.split() for token in encode_chunk(chunk)]


def _word_splitter() -> Split:
    return Split(Regex(_WORD), behavior="removed", invert=True)


def encode_response(
    tokenizer: PreTrainedTokenizerBase, decision: Decision, form: Form = Form.PLAN_EXECUTE
) -> list[int]:
    """The ids of the response that states ``decision``, with the token that ends it: what a sampled one looks like."""
    return [*encode_text(tokenizer, response_text(decision, form)), tokenizer.eos_token_id]


def round_trip(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    """What ``text`` (an action, say) reads once it has gone through the tokenizer and back."""
    return str(tokenizer.decode(encode_text(tokenizer, text), clean_up_tokenization_spaces=False))
