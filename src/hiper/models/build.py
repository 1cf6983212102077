"""Loading of policies from Hugging Face directories or names, and making of nano models and critics."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from huggingface_hub.errors import StrictDataclassError
from huggingface_hub.utils.tqdm import enable_progress_bars
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from hiper.advantages import Critic
from hiper.config import ModelConfig
from hiper.errors import UserError
from hiper.models.actor_critic import ActorCritic
from hiper.models.nano import build_nano
from hiper.plan_execute.tokenizer import build_word_tokenizer

UNLOADABLE = (OSError, ValueError, KeyError, RuntimeError, SafetensorError, StrictDataclassError)
"""The exceptions that transformers raises for missing, damaged or inconsistent files."""


@contextmanager
def without_loading_bars() -> Iterator[None]:
    """Hide transformers' progress bars of reading and writing weights. Bars of downloads stay."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    enable_progress_bars()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


def use_threads(count: int | None) -> None:
    """Set the number of CPU threads of torch. None leaves the choice to torch."""
    if count is not None:
        torch.set_num_threads(count)


def choose_device(name: str) -> torch.device:
    """Return the device called ``name``. ``auto`` is a CUDA device if there is one, else the CPU.

    Raises:
        UserError: Torch does not know the device or cannot find it.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"training.device={name}: {str(error).splitlines()[0]}") from error


def choose_autocast(config: ModelConfig, device: torch.device) -> torch.dtype | None:
    """Return the number format of forward passes. None: the format of the parameters.

    CPUs without bfloat16 instructions emulate the format and are many times slower. ``auto`` chooses float32 there.

    Raises:
        UserError: The parameters have fewer digits than the computation, which autocast does not support.
    """
    compute, held = config.compute_dtype, config.param_dtype
    if compute == "auto":
        native = device.type == "cuda" or bool(torch.cpu.get_capabilities().get("avx512_bf16"))
        compute = "bfloat16" if native or held == "bfloat16" else "float32"
    if compute == "float32" and held != "float32":
        raise UserError(f"model.compute_dtype is float32, but model.param_dtype is {held}: set that to float32 as well")
    return None if compute == config.param_dtype else getattr(torch, compute)


def load_policy(path: str | Path, config: ModelConfig) -> PreTrainedModel:
    """Load a causal language model, without dropout.

    Args:
        path: A Hugging Face directory or name.
        config: The number format of the parameters, and whether to checkpoint gradients.

    Raises:
        UserError: There is no such model, it is of another kind, or its weights do not fit its config.
    """
    try:
        AutoConfig.from_pretrained(path)
        with without_loading_bars():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                path, dtype=getattr(torch, config.param_dtype), output_loading_info=True
            )
        policy, problems = cast(tuple[PreTrainedModel, dict[str, Any]], loaded)
    except UNLOADABLE as error:
        raise UserError(f"no causal language model can be loaded from '{path}': {_first_line(error)}") from error
    missing = sorted(problems["missing_keys"]) + sorted(map(str, problems["mismatched_keys"]))
    if missing:
        raise UserError(
            f"the weights at '{path}' do not fit their config: {len(missing)} missing, such as {missing[0]}"
        )
    if not _head_gives_logits(policy):
        raise UserError(
            f"'{path}' changes its logits after the language head, which the learner does not support; choose "
            "another model"
        )
    for parameter in policy.parameters():
        # A file's tensors are mapped to memory without alignment. Arithmetic on addresses that are no multiple of 64
        # rounds differently, so the weights of a resumed run would differ from an uninterrupted run's.
        parameter.data = parameter.data.clone()
    _without_dropout(policy)
    if config.gradient_checkpointing:
        policy.gradient_checkpointing_enable()
    return policy


def _without_dropout(policy: PreTrainedModel) -> None:
    """Set every dropout rate to zero.

    The policy that samples and the policy that is updated must be the same, or PPO's ratios are noise. Modules of
    transformers hold rates of their own beside ``nn.Dropout``.
    """
    for module in policy.modules():
        for name, value in vars(module).items():
            if isinstance(value, float) and ("drop" in name or (name == "p" and isinstance(module, nn.Dropout))):
                setattr(module, name, 0.0)


def make_nano(
    config: ModelConfig, language: Iterable[str], seed: int, wording: Iterable[str] = ()
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Make a nano model, and a tokenizer that knows the words of ``language`` and ``wording``.

    Args:
        config: The model's sizes.
        language: The texts of an environment.
        seed: The seed of the weights.
        wording: Further texts, such as the template's.
    """
    tokenizer = build_word_tokenizer(language, wording)
    return build_nano(config.nano, tokenizer, seed), tokenizer


def add_critic(policy: PreTrainedModel, config: ModelConfig, critic: Critic = "decisions") -> ActorCritic:
    """Join a policy with a critic. The critic's own backbone, if it has one, begins as a copy of the policy's."""
    own = config.critic == "own" and critic != "none"
    backbone = copy.deepcopy(policy.get_decoder()) if own else None
    return ActorCritic(policy, backbone, detached=config.critic == "detached", critic=critic)


@torch.no_grad()
def _head_gives_logits(policy: PreTrainedModel) -> bool:
    """Return whether logits are the language head's output on the last hidden states.

    The learner calls the head alone, at the positions it reads. Some models scale or cap the head's output.
    """
    ids = torch.arange(4, device=policy.device).unsqueeze(0)
    head = cast(nn.Module, policy.get_output_embeddings())
    own = head(policy.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state)
    return torch.allclose(own.float(), policy(input_ids=ids, use_cache=False).logits.float(), rtol=1e-2, atol=1e-2)


def stop_ids(policy: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the tokens that end a response: the tokenizer's and the model's own. Chat models have several."""
    generation = getattr(policy, "generation_config", None)
    named = getattr(generation, "eos_token_id", None)
    named = [named] if isinstance(named, int) else named or []
    return sorted({tokenizer.eos_token_id, *named})


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
