"""What tests of several packages share. Torch and transformers are loaded by the tests that need them alone."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console
from tokenizers import Regex, Tokenizer, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

from helpers.missing import skip_without, told_of
from hiper import cli
from hiper.config import load_config
from hiper.display.console import Display
from hiper.envs.base import EndReason
from hiper.episode import Episode, Turn

if TYPE_CHECKING:
    from transformers import Qwen2ForCausalLM, Qwen2Tokenizer

    from hiper.runs.folder import Run
    from hiper.training.build import Parts


APART = ("records", "engine")
"""Marks of tests that run only where `-m` asks for them: where records change, and where an engine is installed."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests that run apart, unless `-m` asks for them."""
    apart = [mark for mark in APART if mark not in config.option.markexpr]
    left_out = [item for item in items if any(item.get_closest_marker(mark) for mark in apart)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("records")]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say how many tests were skipped because data outside the repository are missing."""
    if told := told_of(str(report.longrepr[2]) for report in terminalreporter.stats.get("skipped", [])):
        terminalreporter.write_line(told)


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
    from transformers import Qwen2Tokenizer
    from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

    core = Tokenizer(BPE())
    split = pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(corpus, BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False))
    model = json.loads(core.to_str())["model"]
    merges: list[Any] = [tuple(merge) for merge in model["merges"]]
    tokenizer = Qwen2Tokenizer(
        vocab=model["vocab"],
        merges=merges,
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
        skip_without("official games", archive)
    return archive


@pytest.fixture(scope="session")
def make_episode() -> Callable[..., Episode]:
    """Episodes out of "SWITCH subgoal > action" lines; KEEP takes the subgoal from the line before."""

    def make(*lines: str, won: bool = True, task_type: str = "errand", task_id: str = "house/errand-1") -> Episode:
        turns: list[Turn] = []
        for number, line in enumerate(lines):
            plan, _, action = line.partition(" > ")
            word, _, stated = plan.partition(" ")
            turns.append(
                Turn(
                    observation=f"You see room {number}.",
                    admissible=("look", action),
                    prompt_ids=(1, 2, 3),
                    response_ids=(4, 5),
                    logprobs=(-0.5, -0.25),
                    kinds=(1, 3),
                    low_index=0,
                    text=line,
                    switch=word == "SWITCH",
                    boundary=word == "SWITCH" or number == 0,
                    subgoal=stated or turns[-1].subgoal,
                    action=action,
                    invalid=None,
                    copy_differs=False,
                    reward=float(won and number == len(lines) - 1),
                )
            )
        end = EndReason.WON if won else EndReason.TURN_LIMIT
        return Episode(task_id, task_type, 0, "run an errand.", tuple(turns), won, not won, won, end, float(won))

    return make


TINY = """\
# A corridor, learned in seconds.
name: tiny
env: {name: corridor, cells: 3, max_turns: 6}
prompt: {template: terse, max_tokens: 90}
model: {nano: {layers: 1, hidden: 64, feed_forward: 128, heads: 2, kv_heads: 1, max_positions: 512}, critic: shared}
warm_start: {tasks: 100, epochs: 12, lr: 1.0e-2, batch_turns: 32}
rollout: {episodes: 16, slots: 16, max_response_tokens: 24}
learner: {lr: 1.0e-3, critic_lr: 1.0e-3, kl_coef: 0.0}
evaluation: {splits: [held_out], every: 1}
training: {iterations: 2, checkpoint_every: 1, threads: 1}
"""


@pytest.fixture(scope="session")
def tiny_recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe that trains in seconds."""
    file = tmp_path_factory.mktemp("recipes") / "tiny.yaml"
    file.write_text(TINY)
    return file


@pytest.fixture(scope="module")
def tiny_parts(tiny_recipe: Path) -> Parts:
    """The parts of a run of it, untrained."""
    from hiper.training.build import build

    return build(load_config(tiny_recipe))


@pytest.fixture
def empty_run(tiny_parts: Parts, tmp_path: Path) -> Run:
    """A run's folder with nothing but the settings of these parts."""
    from hiper.runs.folder import Run

    run = Run.create(tmp_path / "run", tiny_parts.config)
    run.save_settings()
    return run


@pytest.fixture(scope="session")
def tiny_run(tiny_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of it. Copy it before changing anything."""
    from hiper.runs.folder import Run
    from hiper.training.trainer import train

    run = Run.create(tmp_path_factory.mktemp("runs") / "tiny", load_config(tiny_recipe))
    train(run, Display(command="hiper train tiny", console=Console(file=StringIO())))
    return run.path


@pytest.fixture(scope="session")
def make_qwen2() -> Callable[..., Qwen2ForCausalLM]:
    """Tiny Qwen2 models with random weights, large enough to tell tokens apart; equal seeds give equal models."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    def make(seed: int = 0, **settings: Any) -> Qwen2ForCausalLM:
        sizes: dict[str, Any] = {
            "vocab_size": 40,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 128,
            "tie_word_embeddings": True,
            "initializer_range": 0.25,
            "eos_token_id": 1,
            "pad_token_id": 0,
            "bos_token_id": None,
        }
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = Qwen2ForCausalLM(Qwen2Config(**(sizes | settings)))
        model.eval()
        return model

    return make


@dataclass
class Result:
    """Of a command."""

    code: int
    out: str
    err: str


@pytest.fixture
def hiper(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Runs a command as the shell would, in this process."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: object, stdin: str = "") -> Result:
        monkeypatch.setattr(sys, "argv", ["hiper", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", StringIO(stdin))
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return Result(int(ended.value.code or 0), out, err)

    return run
