"""Tokenizers: those of nano models, loading any tokenizer, and text to token ids and back.

A word-level tokenizer knows only the words of one environment's language. Each word, number and tag is one token, and
so is every other character. "in/on" and "3x-large" are one word, "1-4" is three. White space only separates tokens.
A subword tokenizer separates the same words, and spells rare ones in parts.

Texts of words and numbers with single spaces between them are decoded exactly, for example ALFWorld's actions.
:func:`round_trip` shows what becomes of other texts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from itertools import chain, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE, WordLevel
from tokenizers.trainers import BpeTrainer

from hiper.config import ThinkingConfig
from hiper.errors import UserError, first_line
from hiper.files import user_path
from hiper.plan_execute.parse import SWITCH_WORDS, TAGS, Form, response_text

# transformers takes seconds to import, and building prompts does not need it.
if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

    from hiper.envs.base import Decision

PAD, EOS, UNK = "<pad>", "<eos>", "<unk>"
SPACE = "\u2581"
"""How a subword tokenizer writes the space before a word."""

# A tag, a number, a word, or any other character, in the syntax of the tokenizers library. Python's `re` differs: it
# does not count separate accents and vowel signs as letters.
_WORD = r"</?[a-z]+>|[0-9]+(?:\.[0-9]+)?(?!\.?[^\W_])|[^\W_]+(?:[/'.-][^\W_]+)*|[^\s]"


def build_word_tokenizer(texts: Iterable[str], extra_words: Iterable[str] = ()) -> PreTrainedTokenizerFast:
    """Make a word-level tokenizer for the language of ``texts``, which are prompts and responses.

    The vocabulary holds, in this order: special tokens, tags and switch words, every number up to the largest one
    below 100 in the texts, and all other words sorted. So it depends only on the set of words, and a count that the
    texts do not hold is still a known word.

    Args:
        texts: a sample of what the model will read and write. It must hold every word at least once.
        extra_words: further words, for example names that appear only in held-out tasks.
    """
    split = _word_splitter().pre_tokenize_str
    seen = {word for text in (*texts, *extra_words) for word, _ in split(text)}
    largest = max((int(word) for word in seen if re.fullmatch("[0-9]{1,2}", word)), default=-1)
    fixed = [PAD, EOS, UNK, *TAGS, *SWITCH_WORDS, *map(str, range(largest + 1))]
    vocabulary = {word: index for index, word in enumerate(dict.fromkeys([*fixed, *sorted(seen)]))}
    core = Tokenizer(WordLevel(vocabulary, unk_token=UNK))
    core.pre_tokenizer = _word_splitter()
    return _wrapped(core)


def build_subword_tokenizer(
    texts: Iterable[str], size: int, extra_words: Iterable[str] = ()
) -> PreTrainedTokenizerFast:
    """Make a tokenizer of words and parts of words for the language of ``texts`` (byte-pair encoding).

    Words are those of :func:`build_word_tokenizer`, and no token goes beyond one. Frequent words are single tokens. A
    word that was never seen is spelled in parts, so that it can be copied.

    Args:
        texts: a sample of what the model will read and write.
        size: the number of tokens.
        extra_words: further words.
    """
    core = Tokenizer(BPE(unk_token=UNK))
    core.pre_tokenizer = _subword_splitter()
    core.decoder = decoders.Metaspace(SPACE)
    ascii_signs = [chr(code) for code in range(ord("!"), ord("~") + 1)]
    trainer = BpeTrainer(
        vocab_size=size, special_tokens=[PAD, EOS, UNK], initial_alphabet=ascii_signs, show_progress=False
    )
    core.train_from_iterator(chain(texts, extra_words), trainer)
    return _wrapped(core)


def _wrapped(core: Tokenizer) -> PreTrainedTokenizerFast:
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNK,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    # Beside a Qwen2 model's config, AutoTokenizer of transformers 5 ignores tokenizer.json and reads the words as the
    # merges of a Qwen2Tokenizer. With any entry here, it reads the file.
    tokenizer.init_kwargs["auto_map"] = {"AutoTokenizer": [None, None]}
    return tokenizer


def is_word_level(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether every token is a word, with white space between words that no token holds."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return backend is not None and backend.decoder is None and isinstance(backend.model, WordLevel)


def is_subword(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether :func:`build_subword_tokenizer` made a tokenizer."""
    return _splits_like(tokenizer, _subword_splitter())


def _splits_like(tokenizer: PreTrainedTokenizerBase, splitter: pre_tokenizers.PreTokenizer) -> bool:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    own = getattr(backend, "pre_tokenizer", None)
    return own is not None and own.__getstate__() == splitter.__getstate__()


def find_model(source: str | Path) -> str:
    """Return what transformers loads a model by: a folder, with ``~`` expanded, or a name on the hub.

    A text is a path if it begins with a dot, a slash or ``~``, or has another form than ``owner/name``.

    Raises:
        UserError: The path leads to no folder.
    """
    given = str(source)
    path = user_path(given)
    if given.strip() and path.is_dir():
        return str(path)
    if path.is_file():
        raise UserError(
            f"'{given}' is a file; give the folder of a Hugging Face model, with config.json, tokenizer and weights"
        )
    begins_like_a_path = given.startswith((".", "~")) or path.is_absolute() or isinstance(source, Path)
    if begins_like_a_path or given.count("/") > 1 or "\\" in given or given.endswith("/") or not given.strip():
        there = next((parent for parent in path.absolute().parents if parent.is_dir()), path.absolute().root)
        raise UserError(
            f"there is no folder '{path}' (there is '{there}'); give a model's folder, or its name on the hub"
        )
    return given


def load_tokenizer(source: str | Path) -> PreTrainedTokenizerBase:
    """Load a model's tokenizer from its folder or by its name on the hub, exactly as its files describe it.

    ``AutoTokenizer`` prefers the class registered for the model's architecture to the class in the files, and rebuilds
    the tokenizer as that class does. If the files name no special class, they are read directly instead. A tokenizer
    without a padding token pads with its end-of-sequence token. Padding and truncation that were in use when the
    files were saved are switched off.

    Raises:
        UserError: there is no tokenizer, it has no end-of-sequence token, or it adds words to every text.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast
    from transformers.models.auto.tokenization_auto import get_tokenizer_config

    place = find_model(source)
    try:
        named = get_tokenizer_config(place).get("tokenizer_class")
        generic = named in ("TokenizersBackend", "PreTrainedTokenizerFast")
        loader = PreTrainedTokenizerFast if generic else AutoTokenizer
        options: dict[str, Any] = (
            {} if generic else {"trust_remote_code": False}
        )  # else transformers asks at the terminal
        tokenizer: PreTrainedTokenizerBase = loader.from_pretrained(place, **options)
    except ImportError as error:
        raise UserError(f"the tokenizer of '{source}' needs a package that is missing: {first_line(error)}") from error
    except Exception as error:  # the tokenizers library raises no narrower class
        raise UserError(
            f"{source}: no tokenizer can be loaded; give a model's directory or its name on the hub, or upgrade the "
            f"library tokenizers, since newer versions read more files ({first_line(error)})"
        ) from error
    if not encode_text(tokenizer, "go 1"):  # some are made of the model's kind alone, without a vocabulary
        raise UserError(
            f"the tokenizer of '{source}' reads a text as no tokens at all: its files are missing, such as "
            "tokenizer.json; download the whole model"
        )
    if tokenizer.eos_token_id is None:
        raise UserError(f"the tokenizer of '{source}' has no end-of-sequence token, so responses could not end")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if (backend := getattr(tokenizer, "backend_tokenizer", None)) is not None:
        backend.no_padding()
        backend.no_truncation()
    for key in ("is_local", "local_files_only"):  # where it was loaded from is no property to be saved with it
        tokenizer.init_kwargs.pop(key, None)
    if added := _added_text(tokenizer):
        raise UserError(
            f"the tokenizer of '{source}' adds {added!r} to every text; remove that from the normalizer, pre-tokenizer "
            "or post-processor in its tokenizer.json"
        )
    return tokenizer


def _added_text(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return what the ids of unlike texts have in common at both ends. Blanks and unknown words are not counted."""
    rows = [encode_text(tokenizer, text) for text in ("go 1", "look 2", "take it")]
    begin = [ids[0] for ids in takewhile(lambda ids: len(set(ids)) == 1, zip(*rows, strict=False))]
    end = [ids[0] for ids in takewhile(lambda ids: len(set(ids)) == 1, zip(*map(reversed, rows), strict=False))]
    added = [token for token in (*begin, *reversed(end)) if token != tokenizer.unk_token_id]
    return str(tokenizer.decode(added)).strip()


def begins_texts(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the tokens that a model expects before a text, by its tokenizer: the beginning of sequence, or none."""
    begin = getattr(tokenizer, "bos_token_id", None)
    return [begin] if begin is not None and tokenizer.encode("a")[:1] == [begin] else []


def encode_text(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """The token ids of ``text`` and nothing else: no special tokens, padding or truncation."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None and backend.truncation is None and backend.padding is None:
        # This gives the same ids and skips the wrapper, which takes longer than the encoding.
        return list(backend.encode(text, add_special_tokens=False).ids)
    return list(tokenizer.encode(text, add_special_tokens=False))


def text_encoder(tokenizer: PreTrainedTokenizerBase) -> Callable[[str], list[int]]:
    """Make a fast :func:`encode_text`. With a nano model's tokenizer it caches words and is about ten times faster."""
    if not any(_splits_like(tokenizer, splitter) for splitter in (_word_splitter(), _subword_splitter())):
        return partial(encode_text, tokenizer)

    @lru_cache(maxsize=1 << 16)
    def encode_chunk(chunk: str) -> tuple[int, ...]:
        return tuple(encode_text(tokenizer, chunk))

    # White space only separates tokens, so the text between spaces can be encoded by itself.
    return lambda text: [token for chunk in text.split() for token in encode_chunk(chunk)]


def _word_splitter() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Split(Regex(_WORD), behavior="removed", invert=True)


def _subword_splitter() -> pre_tokenizers.PreTokenizer:
    """Separate words, each with a mark for the space before it."""
    marked = pre_tokenizers.Metaspace(SPACE, prepend_scheme="always", split=False)
    return pre_tokenizers.Sequence([_word_splitter(), marked])


def encode_response(
    tokenizer: PreTrainedTokenizerBase,
    decision: Decision,
    form: Form = Form.PLAN_EXECUTE,
    closing: ThinkingConfig | None = None,
) -> list[int]:
    """The token ids of the response that states ``decision``, with the end-of-sequence token.

    Args:
        tokenizer: the tokenizer.
        decision: the decision.
        form: what the response has to state.
        closing: the marks of a thinking block that the prompt has opened. The response closes it at once.
    """
    begin = "" if closing is None else f"\n{closing.close}\n\n"
    return [*encode_text(tokenizer, begin + response_text(decision, form)), tokenizer.eos_token_id]


def round_trip(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    """Encode and decode a text, for example an action."""
    return str(tokenizer.decode(encode_text(tokenizer, text), clean_up_tokenization_spaces=False))
