"""Loading of policies from Hugging Face directories or names, and making of nano models and critics."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from huggingface_hub.utils.tqdm import enable_progress_bars
from torch import Tensor, nn
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from hiper.advantages import Critic
from hiper.config import LoraConfig, ModelConfig
from hiper.errors import UserError, first_line
from hiper.models.actor_critic import ActorCritic
from hiper.models.lora import CONFIG_FILE, Adapters, base_of, checkpoint_gradients, is_adapter, merged
from hiper.models.nano import build_nano
from hiper.plan_execute.tokenizer import build_word_tokenizer, find_model
from hiper.processes import place

WEIGHTS = ("*.safetensors", "*.bin")
"""The files that weights are loaded from."""

LFS_POINTER = b"version https://git-lfs"
"""The beginning of the text that Git LFS keeps in the place of a file."""

MOST_DIFFERENCE = {torch.float32: 3e-4, torch.bfloat16: 0.03}
"""The :func:`logit_difference` that rounding explains in most models, by the format of the parameters."""


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
    """Return the device called ``name``. ``auto`` is a CUDA device of this process's own if there is one, else the CPU.

    Raises:
        UserError: Torch does not know the device or cannot find it, or there are fewer GPUs than processes.
    """
    if name == "auto":
        if not torch.cuda.is_available():
            return torch.device("cpu")
        if (local_rank := place().local_rank) >= (gpus := torch.cuda.device_count()):
            raise UserError(
                f"process {local_rank + 1} of this machine has no GPU of its own: there are {gpus}; start fewer "
                "processes, or set training.device=cpu"
            )
        torch.cuda.set_device(local_rank)
        return torch.device("cuda", local_rank)
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"training.device={name}: {str(error).splitlines()[0]}") from error


def memory_of(device: torch.device) -> int | None:
    """Return the memory of a device in bytes; None if it is not known."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    if device.type == "cpu":
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return None


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
    """Load a causal language model, without dropout. An adapter is added into the weights of its base.

    Args:
        path: A Hugging Face directory or name, or the folder of an adapter.
        config: The number format of the parameters, and whether to checkpoint gradients.

    Raises:
        UserError: There is no such model, it is of another kind, or its weights do not fit its config.
    """
    source = find_model(path)
    if is_adapter(Path(source)):
        return merged(load_base(Path(source), config), Path(source))
    try:
        _check_files(path, source)
        AutoConfig.from_pretrained(source, trust_remote_code=False)
        with without_loading_bars():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                source, dtype=getattr(torch, config.param_dtype), output_loading_info=True, trust_remote_code=False
            )
        policy, problems = cast(tuple[PreTrainedModel, dict[str, Any]], loaded)
    except (UserError, torch.OutOfMemoryError, MemoryError):
        raise
    except ImportError as error:
        raise UserError(f"the model '{path}' needs a package that is missing: {first_line(error)}") from error
    except Exception as error:  # damaged and inconsistent files end in errors of every kind
        raise UserError(f"no causal language model can be loaded from '{path}': {first_line(error)}") from error
    missing = sorted(problems["missing_keys"]) + sorted(map(str, problems["mismatched_keys"]))
    if missing:
        raise UserError(
            f"the weights at '{path}' do not fit their config: {len(missing)} missing, such as {missing[0]}"
        )
    for parameter in policy.parameters():
        # A file's tensors are mapped to memory without alignment. Arithmetic on addresses that are no multiple of 64
        # rounds differently, so the weights of a resumed run would differ from an uninterrupted run's.
        parameter.data = parameter.data.clone()
    _without_dropout(policy)
    _check_passes(policy, path)
    if config.gradient_checkpointing:
        checkpoint_gradients(policy)
    return policy


def load_base(adapter: Path, config: ModelConfig) -> PreTrainedModel:
    """Load the base model of an adapter's folder.

    Raises:
        UserError: It cannot be loaded, or the folder does not name it.
    """
    base = base_of(adapter)
    try:
        return load_policy(base, config)
    except UserError as error:
        raise UserError(
            f"the base model of the adapter in '{adapter}': {error}. Its place stands in {adapter / CONFIG_FILE}"
        ) from error


def _check_files(path: str | Path, source: str) -> None:
    """Refuse models that transformers cannot load, or that cannot be trained, by what their files show.

    Args:
        path: The model as the user named it.
        source: Its folder or its name on the hub.

    Raises:
        UserError: It is a GGUF file, quantised, of custom code, or only pointers of Git LFS.
        OSError: There is no config.
    """
    folder = Path(source)
    if folder.is_dir():
        weights = [file for pattern in WEIGHTS for file in folder.glob(pattern) if not file.name.startswith("adapter_")]
        for file in (*folder.glob("*.json"), *weights):
            if file.is_file() and _begins(file, LFS_POINTER):
                raise UserError(
                    f"{file} is a pointer of Git LFS, not the file itself; run `git lfs pull` in {path}, or download "
                    "the model with `hf download`"
                )
        if not weights and (gguf := next(folder.glob("*.gguf"), None)):
            raise UserError(
                f"'{path}' holds weights in GGUF format ({gguf.name}), which cannot be trained; give the original "
                "model in Hugging Face format, with safetensors"
            )
        if not (folder / "config.json").is_file():
            raise UserError(
                f"no causal language model can be loaded from '{path}': the folder has no config.json; give the folder "
                "of a Hugging Face model"
            )
    tree, _ = PreTrainedConfig.get_config_dict(source)
    quantisation = tree.get("quantization_config") or tree.get("compression_config")
    if quantisation is None and isinstance(text := tree.get("text_config"), dict):
        quantisation = text.get("quantization_config")
    if quantisation:
        method = quantisation.get("quant_method", "quantised") if isinstance(quantisation, dict) else "quantised"
        raise UserError(
            f"the weights of '{path}' are quantised ({method}), and quantised weights cannot be trained; give the "
            "model in bfloat16 or float32, from which they were made"
        )
    if "AutoModelForCausalLM" in (tree.get("auto_map") or {}) and tree.get("model_type") not in CONFIG_MAPPING:
        raise UserError(
            f"'{path}' runs code of its own ({tree['auto_map']['AutoModelForCausalLM']}), which hiper does not run; "
            "choose a model whose architecture transformers knows"
        )


def _begins(file: Path, start: bytes) -> bool:
    with file.open("rb") as opened:
        return opened.read(len(start)) == start


def _without_dropout(policy: PreTrainedModel) -> None:
    """Set every rate of dropout and noise that a module holds to zero.

    The policy that samples and the policy that is updated must be the same, or PPO's ratios are noise. Modules of
    transformers hold rates of their own beside ``nn.Dropout``.
    """
    for module in policy.modules():
        for name, value in vars(module).items():
            if isinstance(value, float) and (_is_noise(name) or (name == "p" and isinstance(module, nn.Dropout))):
                setattr(module, name, 0.0)


def _silence_config(policy: PreTrainedModel) -> None:
    """Set every rate of dropout and noise in the config to zero, for models that read it in each pass."""
    configs = [policy.config, *(module.config for module in policy.modules() if hasattr(module, "config"))]
    for config in configs:
        for name, value in vars(config).items():
            if isinstance(value, float) and _is_noise(name):
                setattr(config, name, 0.0)


def _is_noise(name: str) -> bool:
    return any(word in name for word in ("drop", "jitter", "noise"))


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


def add_critic(
    policy: PreTrainedModel, config: ModelConfig, critic: Critic = "decisions", lora: LoraConfig | None = None
) -> ActorCritic:
    """Join a policy with a critic. The critic's own backbone, if it has one, begins as a copy of the policy's.

    With LoRA, it is an adapter of its own beside the policy's.

    Raises:
        UserError: PEFT is missing, or the model has none of the layers that ``lora`` names.
    """
    own = config.critic == "own" and critic != "none"
    adapters = None if lora is None else Adapters(policy, lora, config.gradient_checkpointing)
    if adapters is not None and own:
        adapters.add("critic")
    backbone = copy.deepcopy(policy.get_decoder()) if own and adapters is None else None
    return ActorCritic(policy, backbone, detached=config.critic == "detached", critic=critic, adapters=adapters)


@torch.no_grad()
def _check_passes(policy: PreTrainedModel, path: str | Path) -> None:
    """Check what the learner takes for granted of a model. Nothing else of it is drawn or changed.

    - Logits are the language head's output on the last hidden states. The learner calls the head alone, at the
      positions it reads.
    - Training mode gives what evaluation mode gives. Else the policy that is updated is not the one that sampled.
      Rates of noise that stand in the config alone are set to zero there.

    Raises:
        UserError: It is otherwise, or the model cannot be run at all.
    """
    was_training = policy.training

    def read(ids: Tensor, training: bool) -> Tensor:
        policy.train(training)
        head = cast(nn.Module, policy.get_output_embeddings())
        return cast(Tensor, head(policy.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state))

    try:
        words = cast(nn.Embedding, policy.get_input_embeddings()).weight.shape[0]
        ids = torch.randint(words, (2, 16), generator=torch.Generator().manual_seed(0)).to(policy.device)
        with torch.random.fork_rng():
            sampled = read(ids, training=False)
            own = policy(input_ids=ids, use_cache=False).logits
            if noisy := _is_noisy(sampled, read(ids, training=True), read(ids, training=True)):
                _silence_config(policy)
                noisy = _is_noisy(sampled, read(ids, training=True), read(ids, training=True))
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # a model of another kind fails in its own way
        other = " or model.param_dtype=float32" if policy.dtype != torch.float32 else ""
        raise UserError(
            f"'{path}' ({policy.config.model_type}) cannot be run as a causal language model: {first_line(error)}; "
            f"try another model{other}"
        ) from error
    finally:
        policy.train(was_training)
    if not torch.allclose(sampled.float(), own.float(), rtol=1e-2, atol=1e-2, equal_nan=True):
        raise UserError(
            f"'{path}' changes its logits after the language head, which the learner does not support; choose "
            "another model"
        )
    if noisy:
        raise UserError(
            f"'{path}' ({policy.config.model_type}) computes other logits in training mode than in evaluation mode, "
            "and no rate of dropout or noise in its config explains it: what samples would not be what is trained; "
            "choose another model"
        )


def _is_noisy(sampled: Tensor, trained: Tensor, again: Tensor) -> bool:
    """Whether two passes in training mode differ from each other, or from one in evaluation mode.

    Two equal passes differ by noise alone. Training may also run other kernels, which round otherwise. What is not
    finite is diverged, which is said when it is sampled from.
    """
    if not bool(sampled.isfinite().all()):
        return False
    most = MOST_DIFFERENCE.get(sampled.dtype, MOST_DIFFERENCE[torch.float32])
    return logit_difference(trained, again) > most / 10 or logit_difference(trained, sampled) > most


def logit_difference(found_NV: Tensor, expected_NV: Tensor) -> float:
    """Return the difference of two models' logits in units of their spread: root mean squares, averaged over rows.

    A router of experts that rounding tips over changes single rows much; a wrong cache changes most of them.
    """
    difference = torch.log_softmax(found_NV.float(), -1) - torch.log_softmax(expected_NV.float(), -1)
    spread = expected_NV.float().std(-1).clamp(min=1e-9)
    return float((difference.square().mean(-1).sqrt() / spread).mean())


def stop_ids(policy: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the tokens that end a response: the tokenizer's and the model's own. Chat models have several."""
    generation = getattr(policy, "generation_config", None)
    named = getattr(generation, "eos_token_id", None)
    named = [named] if isinstance(named, int) else named or []
    return sorted({tokenizer.eos_token_id, *named})
