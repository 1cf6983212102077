"""What tests of several packages share."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Regex, Tokenizer, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import Qwen2Tokenizer
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

# Blocks without white space between them, so that merges straddle tags ("><", ">KEEP"), as in large vocabularies.
BPE_CORPUS = [
    f"<switch>{switch}</switch><subgoal>{subgoal}</subgoal><action>{action}</action>"
    for switch in ("KEEP", "SWITCH")
    for subgoal in ("find a mug", "heat the mug", "put the mug in the cabinet")
    for action in ("go to cabinet 3", "open fridge 1", "take mug 1 from desk 2", "heat mug 1 with microwave 1")
] * 4


def train_qwen2_tokenizer(corpus: list[str], vocab_size: int = 400) -> Qwen2Tokenizer:
    """A byte-level BPE tokenizer made the way Qwen2's is, with the ChatML template."""
    core = Tokenizer(BPE())
    split = pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(corpus, BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False))
    model = json.loads(core.to_str())["model"]
    tokenizer = Qwen2Tokenizer(
        vocab=model["vocab"],
        merges=[tuple(merge) for merge in model["merges"]],
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
    )
    tokenizer.chat_template = CHATML
    return tokenizer


@pytest.fixture(scope="session")
def bpe_tokenizer() -> Qwen2Tokenizer:
    return train_qwen2_tokenizer(BPE_CORPUS)


@pytest.fixture(scope="session")
def official_games() -> Path:
    """The archive of the official ALFWorld games; skips where it is not at hand."""
    archive = Path(__file__).parents[2] / "shared" / "data" / "alfworld" / "json_2.1.1_train_valid_seen.tar.xz"
    if not archive.is_file():
        pytest.skip(f"the official games are not at {archive}")
    return archive
