"""The path that real models take: a Qwen2 checkpoint with a byte-level BPE tokenizer and the ChatML template."""

from __future__ import annotations

import datetime
import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, Qwen2ForCausalLM, Qwen2Tokenizer
from transformers.utils import chat_template_utils

from hiper.advantages import TokenKind
from hiper.analysis.credit.report import credit_report
from hiper.commands.credit import credit_parts
from hiper.commands.export import export_policy
from hiper.commands.play import play
from hiper.config import Config, ModelConfig, apply_overrides
from hiper.display.console import Display
from hiper.display.tables import Table
from hiper.episode import read_episodes
from hiper.errors import UserError
from hiper.evaluation.saved import SavedPolicy
from hiper.imitation.warm_start import WarmStart
from hiper.models import llama
from hiper.models.build import load_policy
from hiper.models.weights import stop_ids
from hiper.plan_execute.prompts import Prompt
from hiper.plan_execute.render import PromptContext
from hiper.plan_execute.tokenizer import encode_text
from hiper.rollout.samplers import Sample
from hiper.runs.folder import Run
from hiper.training.build import build
from hiper.training.estimate.models import shape_of
from hiper.training.trainer import train

CONTEXT = PromptContext("open the door", (), "You see a door.", None, ("open door",), 0)


@pytest.fixture(scope="module")
def checkpoint(
    make_qwen2: Callable[..., Qwen2ForCausalLM], bpe_tokenizer: Qwen2Tokenizer, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return save_checkpoint(make_qwen2, bpe_tokenizer, tmp_path_factory.mktemp("hub") / "tiny-qwen2-instruct")


def save_checkpoint(
    make_qwen2: Callable[..., Qwen2ForCausalLM], bpe_tokenizer: Qwen2Tokenizer, path: Path, **sizes: int
) -> Path:
    """As on the hub: spare rows in the vocabulary, two tokens that end a response."""
    end, pad = bpe_tokenizer.eos_token_id, bpe_tokenizer.pad_token_id
    model = make_qwen2(vocab_size=len(bpe_tokenizer) + 7, max_position_embeddings=4096, eos_token_id=end, **sizes)
    sampling = {"do_sample": True, "temperature": 0.7, "top_p": 0.8}
    model.generation_config = GenerationConfig(eos_token_id=[end, pad], pad_token_id=pad, **sampling)
    model.save_pretrained(path)
    bpe_tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def settings(checkpoint: Path) -> Config:
    tree: dict[str, Any] = {
        "env": {"name": "corridor", "cells": 3, "max_turns": 2},
        "prompt": {"template": "instruct", "max_tokens": 3000},
        # In bfloat16, which some CPUs choose by themselves, generation and training would round differently.
        "model": {
            "path": str(checkpoint),
            "critic": "own",
            "compute_dtype": "float32",
            "gradient_checkpointing": True,
        },
        "warm_start": {"tasks": 2, "epochs": 1, "batch_turns": 4},
        "rollout": {"episodes": 4, "slots": 4, "max_response_tokens": 20},
        "learner": {"lr": 1e-3, "critic_lr": 1e-3, "kl_coef": 0.01},
        "evaluation": {"splits": ["held_out"], "tasks": 1, "final_tasks": 1},
        "training": {"iterations": 1, "threads": 1},
    }
    return Config.model_validate(tree)


@pytest.fixture(scope="module")
def run(settings: Config, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = Run.create(tmp_path_factory.mktemp("runs") / "run", settings)
    train(run, Display(console=Console(file=StringIO())))
    return run


def test_one_iteration(run: Run):
    (metrics,) = [record for record in run.metrics() if "policy/kl" in record]
    assert metrics["mismatch/max_abs"] < 1e-4
    assert metrics["update/skipped_steps"] == 0.0
    assert metrics["policy/kl_reference"] >= 0.0
    assert metrics["prompt/cut"] == 0.0


def test_prompts_are_chats(run: Run, bpe_tokenizer: Qwen2Tokenizer):
    turn = next(read_episodes(run.training_episodes(1))).turns[0]
    prompt = bpe_tokenizer.decode(list(turn.prompt_ids))
    assert isinstance(prompt, str)
    assert prompt.endswith("<|im_end|>\n<|im_start|>assistant\n")
    assert "<switch>" in prompt


def test_the_trained_policy_is_an_ordinary_directory(run: Run, settings: Config, bpe_tokenizer: Qwen2Tokenizer):
    folder = run.checkpoints[-1] / "policy"
    theirs, ours = AutoModelForCausalLM.from_pretrained(folder), build(settings, folder).learner.weights().model
    ids = torch.tensor([encode_text(bpe_tokenizer, "<switch>KEEP</switch>")])
    ours.eval()
    assert torch.equal(theirs(input_ids=ids).logits, ours(input_ids=ids).logits)
    before = AutoModelForCausalLM.from_pretrained(str(settings.model.path))
    assert not torch.equal(theirs(input_ids=ids).logits, before(input_ids=ids).logits)
    text = "<|im_start|>user\ngo to « cabinet 3 »<|im_end|>\n"
    assert AutoTokenizer.from_pretrained(folder)(text)["input_ids"] == encode_text(bpe_tokenizer, text)
    assert json.loads((folder / "generation_config.json").read_text())["eos_token_id"][0] == bpe_tokenizer.eos_token_id


def test_both_ends_and_no_sampling_defaults_of_the_checkpoint(settings: Config, bpe_tokenizer: Qwen2Tokenizer):
    parts = build(settings)
    ends = stop_ids(parts.learner.weights().model, parts.tokenizer)
    assert set(ends) == {bpe_tokenizer.eos_token_id, bpe_tokenizer.pad_token_id}
    assert parts.agent.params.temperature == 1.0  # the run's, not the checkpoint's; nor is its top_p used anywhere


def test_spare_rows_of_the_vocabulary_can_be_sampled(settings: Config, bpe_tokenizer: Qwen2Tokenizer):
    """An id that no token has is read as nothing."""
    said = (len(bpe_tokenizer) + 3, *encode_text(bpe_tokenizer, "<switch>"), bpe_tokenizer.eos_token_id)
    move = build(settings).agent.understand(
        CONTEXT, lambda action: True, Prompt([1]), Sample(said, (-1.0,) * len(said), True)
    )
    assert move.text == "<switch>"
    assert len(move.kinds) == len(said)


# --- Models that think ------------------------------------------------------------------------------------------------


THINKING = (
    "{{ '<|im_start|>user\\n' + messages[0].content + strftime_now(' (%d %b %Y)') + '<|im_end|>\\n' }}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% if enable_thinking %}<think>\n{% endif %}{% endif %}"
)


@pytest.fixture(scope="module")
def thoughtful(settings: Config, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """Settings of a model whose chat template opens thinking where it is asked to, and writes the day."""
    path = tmp_path_factory.mktemp("hub") / "thoughtful"
    shutil.copytree(checkpoint, path)
    (path / "chat_template.jinja").write_text(THINKING)
    changes = [f"model.path={path}", "prompt.chat_template_args={enable_thinking: true}", "prompt.thinking={}"]
    return Config.model_validate(apply_overrides(settings.model_dump(), changes))


def set_day(patch: pytest.MonkeyPatch, *day: int) -> None:
    class Fixed(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Fixed:
            return cls(day[0], day[1], day[2], tzinfo=tz)

    patch.setattr(datetime, "datetime", Fixed)
    patch.setattr(chat_template_utils, "datetime", Fixed)


@pytest.fixture
def another_day(monkeypatch: pytest.MonkeyPatch) -> None:
    set_day(monkeypatch, 2099, 12, 31)


@pytest.fixture(scope="module")
def thoughtful_run(thoughtful: Config, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = Run.create(tmp_path_factory.mktemp("runs") / "thoughtful", thoughtful)
    with pytest.MonkeyPatch.context() as patch:
        set_day(patch, 2026, 11, 30)  # the day stands in prompts, and what a random model answers depends on them
        train(run, Display(console=Console(file=StringIO())))
    return run


def test_without_any_token_that_earns_credit_there_is_no_policy_loss(thoughtful: Config, tmp_path: Path):
    """A single token is never enough to come out of the thinking block."""
    tree = thoughtful.model_dump(mode="json")
    tree["rollout"]["max_response_tokens"] = 1
    run = quietly(Run.create(tmp_path / "run", Config.model_validate(tree)))
    (metrics,) = run.iteration_metrics()
    assert metrics["invalid/unclosed_thinking"] == 1.0
    assert "policy/loss" not in metrics


def test_a_model_that_never_stops_thinking_trains(thoughtful_run: Run):
    """All of its tokens are thoughts but for the end, so hardly any has a policy loss."""
    turns = [turn for episode in thoughtful_run.episodes(1) for turn in episode.turns]
    cut_off = [turn for turn in turns if turn.invalid == "unclosed_thinking"]
    assert cut_off
    assert all(set(turn.kinds[:-1]) == {TokenKind.THINKING} for turn in cut_off)
    (metrics,) = [record for record in thoughtful_run.metrics() if "policy/kl" in record]
    assert all(math.isfinite(value) for value in metrics.values())
    assert metrics["tokens/thinking"] > 1
    assert metrics["invalid/unclosed_thinking"] == len(cut_off) / len(turns)
    report = credit_report(thoughtful_run)
    assert np.isfinite([opinion.turn_N for opinion in report.opinions.values()]).all()
    *_, tokens = (part for part in credit_parts(report) if isinstance(part, Table))
    thoughts = report.turn(report.shown).kinds.count(TokenKind.THINKING)
    assert tokens.rows[0][:2] == [f"({thoughts} tokens of thinking)", "-"]
    assert len(tokens.rows) == 1 + len(report.tokens) - thoughts


def test_thoughts_are_shown_where_a_policy_plays(thoughtful_run: Run):
    policy, screen = SavedPolicy.open(thoughtful_run.path).load(1.0), StringIO()
    env = policy.env("held_out")
    task = env.panel.tasks[0].id
    play(env, policy.agent, task, 0, Console(file=screen, width=10_000), wait=False)
    for turn in policy.play(env, task).turns:
        assert turn.thinking > 1
        assert turn.text.split()[0] in screen.getvalue()
    assert "thinking that does not end" in screen.getvalue()


def test_arguments_thinking_and_day_stay_with_run_and_policy(
    thoughtful_run: Run, thoughtful: Config, another_day: None, caplog: pytest.LogCaptureFixture
):
    card = thoughtful_run.evaluations()["held_out"][-1].card
    thinking = {"credit": "none", "open": "<think>", "close": "</think>"}
    assert card.prompt == {"chat_template_args": {"enable_thinking": True}, "thinking": thinking}
    resumed = build(thoughtful_run.config, thoughtful_run.checkpoints[-1] / "policy")
    saved = SavedPolicy.open(thoughtful_run.path)
    for prompts in (resumed.prompts, saved.load().agent.prompts):
        assert (prompts.settings, prompts.label) == (card.prompt, card.template)
        prompt = str(prompts.tokenizer.decode(prompts.build(CONTEXT).ids))
        assert "2099" not in prompt
        assert prompt.endswith("<think>\n")
    assert not caplog.text
    other = SavedPolicy.open(thoughtful_run.path, overrides=["prompt.chat_template_args={enable_thinking: false}"])
    prompts = other.load().agent.prompts
    assert str(prompts.tokenizer.decode(prompts.build(CONTEXT).ids)).endswith("assistant\n")
    assert prompts.label != card.template
    assert "writes the date into prompts: they keep 31 December 2099" not in caplog.text
    build(thoughtful)  # the model that training began from has no day of its own
    assert "writes the date into prompts: they keep 31 December 2099" in caplog.text


def test_a_warm_start_that_goes_on_another_day_keeps_the_first(
    thoughtful: Config, tmp_path: Path, request: pytest.FixtureRequest
):
    def stop() -> None:
        raise KeyboardInterrupt

    def begin(check: Callable[[], None]) -> WarmStart:
        parts, display = build(thoughtful), Display(console=Console(file=StringIO()))
        args = (thoughtful, parts.learner, parts.env, parts.prompts, parts.tokenizer, parts.agent)
        return WarmStart(*args, tmp_path / "unfinished", display, check_together=check)  # it is called after each step

    first = begin(stop)
    with pytest.raises(KeyboardInterrupt):
        first.run()
    request.getfixturevalue("another_day")
    later = begin(lambda: None)
    assert later.prompts.label != first.prompts.label
    later.run()
    assert later.prompts.label == first.prompts.label


# --- LoRA -----------------------------------------------------------------------------------------------------------

LORA = {"rank": 4, "alpha": 8, "targets": ["q_proj", "v_proj", "down_proj"]}


def with_lora(settings: Config, **training: Any) -> Config:
    tree = settings.model_dump(mode="json")
    tree["learner"] |= {"lora": LORA, "lr": 1e-2}
    tree["warm_start"] |= {"lr": 1e-2}
    tree["training"] |= {"iterations": 2, "checkpoint_every": 1} | training
    return Config.model_validate(tree)


def quiet() -> Display:
    return Display(console=Console(file=StringIO()))


def quietly(run: Run) -> Run:
    train(run, quiet())
    return run


@pytest.fixture(scope="module")
def lora_run(settings: Config, tmp_path_factory: pytest.TempPathFactory) -> Run:
    pytest.importorskip("peft")
    return quietly(Run.create(tmp_path_factory.mktemp("lora") / "run", with_lora(settings)))


def test_lora_trains_adapters_alone(lora_run: Run, checkpoint: Path):
    parts = build(lora_run.config, lora_run.checkpoints[-1] / "policy")
    model = parts.learner.weights().model
    base = AutoModelForCausalLM.from_pretrained(checkpoint).state_dict()
    trained = {name.replace(".base_layer", ""): tensor for name, tensor in model.state_dict().items()}
    assert all(torch.equal(base[name], trained[name]) for name in base)
    moved = {name: float(p.detach().abs().sum()) for name, p in model.named_parameters() if "lora_B" in name}
    assert min(size for name, size in moved.items() if "policy" in name) > 0
    files = {file.name for file in (lora_run.checkpoints[-1] / "policy").iterdir()}
    assert "adapter_model.safetensors" in files
    assert "model.safetensors" not in files
    assert (lora_run.checkpoints[-1] / "critic.safetensors").stat().st_size < 100_000
    metrics = lora_run.iteration_metrics()
    assert metrics[0]["policy/kl_reference"] == pytest.approx(0.0, abs=1e-6)  # the reference is the warm start
    assert metrics[-1]["policy/kl_reference"] > 1e-6
    assert all(record["mismatch/max_abs"] < 1e-4 for record in metrics)


def test_lora_resumes_as_if_it_had_not_stopped(lora_run: Run, settings: Config, tmp_path: Path):
    first = quietly(Run.create(tmp_path / "run", with_lora(settings, iterations=1)))
    last = first.checkpoints[-1]
    Run(first.path, with_lora(settings)).save_settings()
    resumed = quietly(Run.open(first.path))
    assert last != resumed.checkpoints[-1]
    for file in ("policy/adapter_model.safetensors", "critic.safetensors", "heads.safetensors"):
        assert (resumed.checkpoints[-1] / file).read_bytes() == (lora_run.checkpoints[-1] / file).read_bytes()


def test_an_adapter_is_a_policy_everywhere(lora_run: Run, checkpoint: Path):
    """Ours merges it into its base; transformers loads it beside its base; both have the same logits."""
    folder = lora_run.checkpoints[-1] / "policy"
    ids = torch.arange(5, 25).unsqueeze(0)
    ours, theirs = load_policy(folder, ModelConfig()), AutoModelForCausalLM.from_pretrained(folder)
    base = AutoModelForCausalLM.from_pretrained(checkpoint)
    with torch.no_grad():
        torch.testing.assert_close(ours(ids).logits, theirs(ids).logits, atol=1e-5, rtol=1e-5)
        assert float((ours(ids).logits - base(ids).logits).abs().max()) > 1e-3
    assert llama.understands(ours.get_decoder())
    assert SavedPolicy.open(lora_run.path).load().weights.model.state_dict().keys() == base.state_dict().keys()


def test_an_adapter_is_exported_as_a_whole_model(lora_run: Run, tmp_path: Path):
    """It needs no base any more, has the adapter's logits, and still plays under its own settings."""
    screen = StringIO()
    export_policy(str(lora_run.path), tmp_path / "whole", Display(console=Console(file=screen, width=200)))
    assert "in float32, its adapter added into its base" in screen.getvalue()
    assert not (tmp_path / "whole" / "adapter_config.json").exists()
    beside = AutoModelForCausalLM.from_pretrained(lora_run.checkpoints[-1] / "policy")
    ids = torch.arange(5, 25).unsqueeze(0)
    with torch.no_grad():
        whole = AutoModelForCausalLM.from_pretrained(tmp_path / "whole")
        torch.testing.assert_close(whole(ids).logits, beside(ids).logits, atol=1e-5, rtol=1e-5)
    assert SavedPolicy.open(tmp_path / "whole").load().env("held_out").panel
    assert AutoTokenizer.from_pretrained(tmp_path / "whole").chat_template
    export_policy(str(lora_run.checkpoints[0] / "policy"), tmp_path / "half", quiet(), "bfloat16")
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "half", dtype="auto").dtype == torch.bfloat16
    with pytest.raises(UserError, match="half exists: name a new folder"):
        export_policy(str(lora_run.path), tmp_path / "half", quiet())


def test_a_plain_adapter_is_exported(lora_run: Run, tmp_path: Path):
    shutil.copytree(lora_run.checkpoints[-1] / "policy", tmp_path / "adapter")
    for file in ("hiper.yaml", "template.yaml", "SHA256SUMS"):
        (tmp_path / "adapter" / file).unlink()
    export_policy(str(tmp_path / "adapter"), tmp_path / "whole", quiet())
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "whole")
    with pytest.raises(UserError, match="neither a run"):
        export_policy(str(tmp_path / "nothing"), tmp_path / "more", quiet())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rank": 8}, "adapter of another rank"),
        ({"targets": ["q_proj"]}, "of other targets"),
        ({"targets": ["nose"]}, r"learner.lora.targets: the model has no layer called 'nose'$"),
        ({"targets": ["q_proj", "nose"]}, "no layer called 'nose'"),
        ({"targets": ".*[.]nose"}, "no layer called '.*nose'; a text is a regular expression for whole names"),
        ({"targets": "q_proj"}, "no layer called 'q_proj'; a text is a regular expression for whole names"),
        ({"targets": r".*layers\.0\.self_attn.*"}, r"matches model.layers.0.self_attn, which cannot have an adapter"),
        ({"targets": ["q_proj", "lm_head"]}, "'lm_head' matches lm_head, which cannot have an adapter"),
        ({"targets": ["embed_tokens"]}, "matches model.embed_tokens, which cannot have an adapter"),
    ],
)
def test_lora_settings_that_do_not_fit(lora_run: Run, change: dict[str, Any], said: str):
    tree = lora_run.config.model_dump(mode="json")
    tree["learner"]["lora"] |= change
    with pytest.raises(UserError, match=said):
        build(Config.model_validate(tree), lora_run.checkpoints[-1] / "policy")


@pytest.mark.parametrize(
    "targets", [r".*layers\.1\..*[qv]_proj.*", ["layers.1.self_attn.q_proj", "1.self_attn.v_proj"]]
)
def test_targets_by_expression_and_by_name(settings: Config, targets: str | list[str]):
    """Policy, critic and reference get equal layers, and the estimate counts the same ones."""
    pytest.importorskip("peft")
    tree = with_lora(settings).model_dump(mode="json")
    tree["learner"]["lora"]["targets"] = targets
    config = Config.model_validate(tree)
    parts = build(config)
    parts.learner.set_reference()
    model = parts.learner.weights().model
    layers = {
        role: {name.split(".lora_")[0] for name, _ in model.named_parameters() if f".{role}." in name}
        for role in ("policy", "critic", "reference")
    }
    wanted = {f"model.layers.1.self_attn.{matrix}_proj" for matrix in "qv"}
    assert layers == dict.fromkeys(layers, wanted)
    numbers = sum(p.numel() for name, p in model.named_parameters() if ".policy." in name)
    base = AutoModelForCausalLM.from_pretrained(str(config.model.path))
    assert shape_of(base, config.learner.lora).adapter == numbers > 0


def test_peft_brings_no_advice_about_other_packages(lora_run: Run, tmp_path: Path):
    """It imports bitsandbytes where that is installed, asked or not. Nobody who does not quantize should hear of it."""
    adapter = lora_run.checkpoints[-1] / "policy"
    command = [sys.executable, "-m", "hiper", "export", str(adapter), "--out", str(tmp_path / "whole")]
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    assert said.stderr == ""


def test_an_adapter_of_another_base_is_refused(
    lora_run: Run, make_qwen2: Callable[..., Qwen2ForCausalLM], tmp_path: Path
):
    other = make_qwen2(hidden_size=64)
    other.save_pretrained(tmp_path / "other")
    shutil.copytree(lora_run.checkpoints[-1] / "policy", tmp_path / "adapter")
    file = tmp_path / "adapter" / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"base_model_name_or_path": str(tmp_path / "other")}))
    with pytest.raises(UserError, match=r"adapter in '.*' does not fit its base model"):
        load_policy(tmp_path / "adapter", ModelConfig())


@pytest.fixture(scope="module")
def wider(
    settings: Config,
    make_qwen2: Callable[..., Qwen2ForCausalLM],
    bpe_tokenizer: Qwen2Tokenizer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Config:
    """Settings of a model that is wide enough for formats that share a scale between 64 or 256 numbers."""
    sizes = {"hidden_size": 128, "intermediate_size": 256}
    path = save_checkpoint(make_qwen2, bpe_tokenizer, tmp_path_factory.mktemp("hub") / "wider", **sizes)
    return Config.model_validate(apply_overrides(settings.model_dump(), [f"model.path={path}"]))


def test_qlora_trains_adapters_of_a_model_in_four_bits(wider: Config, tmp_path: Path):
    for package in ("peft", "bitsandbytes"):
        pytest.importorskip(package)
    tree = with_lora(wider, iterations=2).model_dump(mode="json")
    tree["learner"]["lora"]["quantize"] = "4bit"
    run = quietly(Run.create(tmp_path / "run", Config.model_validate(tree)))
    first, last = run.iteration_metrics()
    assert first["policy/kl_reference"] == pytest.approx(0.0, abs=1e-6)
    assert last["policy/kl_reference"] > 1e-6
    assert last["mismatch/max_abs"] < 1e-4
    policy = build(run.config, run.checkpoints[-1] / "policy").learner.weights().model
    assert llama.understands(policy.get_decoder())
    linear = [m for m in policy.modules() if type(m).__module__.startswith("bitsandbytes")]
    assert len(linear) == 7 * policy.config.num_hidden_layers
    # What is saved is an adapter, which fits the base in full precision too.
    merged = load_policy(run.checkpoints[-1] / "policy", ModelConfig())
    assert {p.dtype for p in merged.parameters()} == {torch.float32}
    assert run.checkpoints[-1].joinpath("policy", "adapter_model.safetensors").is_file()


def test_four_bits_without_bitsandbytes(settings: Config, monkeypatch: pytest.MonkeyPatch):
    tree = with_lora(settings).model_dump(mode="json")
    tree["learner"]["lora"]["quantize"] = "4bit"
    monkeypatch.setattr("hiper.models.build.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'hiper\[bitsandbytes\]'"):
        build(Config.model_validate(tree))


def test_the_moments_of_eight_bits(wider: Config, tmp_path: Path):
    """They train, and a run resumes with them as if it had not stopped, up to rounding in the last digit."""
    pytest.importorskip("bitsandbytes")
    changes = ["learner.optimizer=adamw_8bit", "warm_start.tasks=0", "training.checkpoint_every=1"]
    config = Config.model_validate(apply_overrides(wider.model_dump(), [*changes, "training.iterations=2"]))
    whole = quietly(Run.create(tmp_path / "whole", config))
    state = torch.load(whole.checkpoints[-1] / "trainer.pt", weights_only=True)["optimizer"]["state"]
    moments = [kinds["__bnb_optimizer_quant_state__"]["state1"] for kinds in state.values()]
    assert any(moment.numel() >= 4096 for moment in moments)
    assert all(moment.dtype == torch.uint8 for moment in moments if moment.numel() >= 4096)
    once = Config.model_validate(apply_overrides(config.model_dump(), ["training.iterations=1"]))
    parted = quietly(Run.create(tmp_path / "parted", once))
    Run(parted.path, config).save_settings()
    resumed = quietly(Run.open(parted.path))
    for file in ("policy/model.safetensors", "critic.safetensors", "heads.safetensors"):
        ours, theirs = (load_file(found.checkpoints[-1] / file) for found in (resumed, whole))
        for name in theirs:
            torch.testing.assert_close(ours[name], theirs[name], atol=1e-6, rtol=0)


def test_lora_needs_a_pretrained_model(settings: Config):
    tree = with_lora(settings).model_dump(mode="json")
    tree["model"]["path"] = None
    with pytest.raises(ValueError, match=r"name it with model.path"):
        Config.model_validate(tree)
