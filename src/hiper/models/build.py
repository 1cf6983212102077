"""Loading of policies from Hugging Face directories or names, and making of nano models and critics."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import torch
from huggingface_hub.utils.tqdm import enable_progress_bars
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.initialization import no_init_weights
from transformers.utils import logging as transformers_logging

from hiper.advantages import Critic
from hiper.config import LoraConfig, ModelConfig, NanoConfig
from hiper.errors import UserError, first_line
from hiper.models.actor_critic import ActorCritic
from hiper.models.checks import check_passes, without_dropout
from hiper.models.lora import CONFIG_FILE, Adapters, base_of, checkpoint_gradients, is_adapter, merged
from hiper.models.nano import build_nano
from hiper.plan_execute.tokenizer import build_subword_tokenizer, build_word_tokenizer, find_model
from hiper.processes import place

log = logging.getLogger(__name__)

WEIGHTS = ("*.safetensors", "*.bin")
"""The files that weights are loaded from."""

LFS_POINTER = b"version https://git-lfs"
"""The beginning of the text that Git LFS keeps in the place of a file."""


@contextmanager
def without_loading_bars() -> Iterator[None]:
    """Hide transformers' progress bars of reading and writing weights, and each failed attempt to reach the hub.

    Bars of downloads stay.
    """
    shown, hub = transformers_logging.is_progress_bar_enabled(), logging.getLogger("huggingface_hub")
    level = hub.level
    hub.setLevel(logging.ERROR)
    transformers_logging.disable_progress_bar()
    enable_progress_bars()
    try:
        yield
    finally:
        hub.setLevel(level)
        if shown:
            transformers_logging.enable_progress_bar()


def use_threads(count: int | None) -> None:
    """Set the number of CPU threads of torch. None leaves the choice to torch.

    The setting comes before the variable OMP_NUM_THREADS. If they differ, this is told.
    """
    if count is None:
        return
    if (variable := os.environ.get("OMP_NUM_THREADS", str(count))) != str(count):
        log.warning("OMP_NUM_THREADS is %s, but training.threads is %d: torch uses %d threads", variable, count, count)
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


def _check_attention(config: ModelConfig, device: torch.device) -> None:
    """Check that attention can be computed as the settings want it.

    Raises:
        UserError: Flash attention is set without a GPU, or without computation in bfloat16.
    """
    if config.attention == "auto":
        return
    if device.type == "cpu":
        raise UserError(f"model.attention={config.attention} needs a GPU: leave it out on a CPU")
    if config.compute_dtype == "float32":
        raise UserError(f"model.attention={config.attention} computes in bfloat16: set model.compute_dtype to that")


def choose_autocast(config: ModelConfig, device: torch.device) -> torch.dtype | None:
    """Return the number format of forward passes. None: the format of the parameters.

    CPUs without bfloat16 instructions emulate the format and are many times slower. ``auto`` chooses float32 there.

    Raises:
        UserError: The parameters have fewer digits than the computation, which autocast does not support. Or attention
            is to be computed in a way that needs a GPU, or bfloat16.
    """
    _check_attention(config, device)
    compute, held = config.compute_dtype, config.param_dtype
    if compute == "auto":
        native = device.type == "cuda" or bool(torch.cpu.get_capabilities().get("avx512_bf16"))
        compute = "bfloat16" if native or held == "bfloat16" else "float32"
    if compute == "float32" and held != "float32":
        raise UserError(f"model.compute_dtype is float32, but model.param_dtype is {held}: set that to float32 as well")
    return None if compute == config.param_dtype else getattr(torch, compute)


def load_policy(path: str | Path, config: ModelConfig, *, quantized: bool = False) -> PreTrainedModel:
    """Load a causal language model, without dropout. An adapter is added into the weights of its base.

    Args:
        path: A Hugging Face directory or name, or the folder of an adapter.
        config: The number format of the parameters, and whether to checkpoint gradients.
        quantized: Whether the weights of linear layers are rounded to 4 bits, for LoRA.

    Raises:
        UserError: There is no such model, it is of another kind, or its weights do not fit its config.
    """
    source = find_model(path)
    if is_adapter(Path(source)):
        return merged(load_base(Path(source), config), Path(source))
    try:
        with without_loading_bars():
            _check_files(path, source)
            AutoConfig.from_pretrained(source, trust_remote_code=False)
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                source,
                dtype=getattr(torch, config.param_dtype),
                output_loading_info=True,
                trust_remote_code=False,
                attn_implementation=None if config.attention == "auto" else config.attention,
                quantization_config=_four_bits(config) if quantized else None,
            )
        policy, problems = cast(tuple[PreTrainedModel, dict[str, Any]], loaded)
    except (UserError, torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:  # damaged and inconsistent files end in errors of every kind
        raise _unloadable(path, error) from error
    missing = sorted(problems["missing_keys"]) + sorted(map(str, problems["mismatched_keys"]))
    if missing:
        raise UserError(
            f"the weights at '{path}' do not fit their config: {len(missing)} missing, such as {missing[0]}"
        )
    for parameter in policy.parameters():
        # A file's tensors are mapped to memory without alignment. Arithmetic on addresses that are no multiple of 64
        # rounds differently, so the weights of a resumed run would differ from an uninterrupted run's.
        parameter.data = parameter.data.clone()
    for module in policy.modules() if quantized else ():
        # bitsandbytes has a kernel for some CPUs that computes no gradients. It would be chosen once a model samples.
        if hasattr(module, "support_avx512bf16_for_cpu"):
            setattr(module, "support_avx512bf16_for_cpu", False)  # noqa: B010
    without_dropout(policy)
    check_passes(policy, path)
    if config.gradient_checkpointing:
        checkpoint_gradients(policy)
    return policy


def _four_bits(config: ModelConfig) -> Any:
    """Return what transformers needs to load a model in 4-bit NormalFloat (QLoRA, Dettmers et al. 2023, 2305.14314).

    Args:
        config: The number format of forward passes, into which weights are unpacked.

    Raises:
        UserError: bitsandbytes is missing.
    """
    if find_spec("bitsandbytes") is None:
        raise UserError(
            "learner.lora.quantize=4bit needs the package bitsandbytes, which is not installed: "
            "pip install 'hiper[bitsandbytes]'"
        )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=choose_autocast(config, device) or getattr(torch, config.param_dtype),
    )


def outline_policy(path: str | Path, config: ModelConfig) -> PreTrainedModel:
    """Make a causal language model without its weights: shapes alone, which take no memory.

    Args:
        path: A Hugging Face directory or name. Only its config is read.
        config: The number format of the parameters.

    Raises:
        UserError: There is no such model, or it is of a kind that cannot be trained.
    """
    source = find_model(path)
    if is_adapter(Path(source)):
        return outline_policy(base_of(Path(source)), config)
    try:
        with without_loading_bars():
            _check_files(path, source)
            architecture = AutoConfig.from_pretrained(source, trust_remote_code=False)
        return outline(architecture, config)
    except UserError:
        raise
    except Exception as error:
        raise _unloadable(path, error) from error


def outline(architecture: PreTrainedConfig, config: ModelConfig) -> PreTrainedModel:
    """Make a causal language model of an architecture without weights."""
    with torch.device("meta"):
        policy: Any = AutoModelForCausalLM.from_config(architecture, dtype=getattr(torch, config.param_dtype))
    return cast(PreTrainedModel, policy)


def empty_twin(policy: PreTrainedModel, dtype: torch.dtype | None = None) -> PreTrainedModel:
    """Make a model of the same architecture on the CPU, with the same adapter of LoRA. Its weights mean nothing yet.

    Args:
        policy: A causal language model.
        dtype: The number format of the parameters. None: that of ``policy``.
    """
    with no_init_weights():
        made: Any = AutoModelForCausalLM.from_config(policy.config, dtype=dtype or policy.dtype)
    twin = cast(PreTrainedModel, made)
    twin.tie_weights()
    without_dropout(twin)
    if (adapters := getattr(policy, "peft_config", None)) is not None:
        twin.add_adapter(adapters["policy"], "policy")
    twin.eval().requires_grad_(False)
    return twin


def _unloadable(path: str | Path, error: Exception) -> UserError:
    """Return the error for a model that cannot be loaded, in words for the user."""
    if isinstance(error, ImportError):
        return UserError(f"the model '{path}' needs a package that is missing: {first_line(error)}")
    remedy = ""
    if not Path(find_model(path)).is_dir():
        remedy = (
            "; without an internet connection, give the folder of a model that was downloaded elsewhere "
            "(model.path=FOLDER), or let HF_HOME name a cache that holds it"
        )
    return UserError(f"no causal language model can be loaded from '{path}': {first_line(error).rstrip('.')}{remedy}")


def load_base(adapter: Path, config: ModelConfig, *, quantized: bool = False) -> PreTrainedModel:
    """Load the base model of an adapter's folder. See :func:`load_policy` for the arguments.

    Raises:
        UserError: It cannot be loaded, or the folder does not name it.
    """
    base = base_of(adapter)
    try:
        return load_policy(base, config, quantized=quantized)
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
    tokenizer = build_nano_tokenizer(config.nano, language, wording)
    return build_nano(config.nano, tokenizer, seed), tokenizer


def build_nano_tokenizer(
    nano: NanoConfig, language: Iterable[str], wording: Iterable[str] = ()
) -> PreTrainedTokenizerBase:
    """Make the tokenizer of a nano model: of words, or of words and their parts. See :func:`make_nano`."""
    if nano.subwords is None:
        return build_word_tokenizer(language, wording)
    return build_subword_tokenizer(language, nano.subwords, wording)


def add_critic(
    policy: PreTrainedModel,
    config: ModelConfig,
    critic: Critic = "decisions",
    lora: LoraConfig | None = None,
    reference: bool = False,
) -> ActorCritic:
    """Join a policy with a critic. The critic's own backbone, if it has one, begins as a copy of the policy's.

    With LoRA, it is an adapter of its own beside the policy's, and so is a reference policy.

    Raises:
        UserError: PEFT is missing, or the model has none of the layers that ``lora`` names.
    """
    own = config.critic == "own" and critic != "none"
    adapters = None if lora is None else Adapters(policy, lora, config.gradient_checkpointing)
    if adapters is not None and own:
        adapters.add("critic")
    if adapters is not None and reference:
        adapters.add("reference")
    backbone = copy.deepcopy(policy.get_decoder()) if own and adapters is None else None
    return ActorCritic(policy, backbone, detached=config.critic == "detached", critic=critic, adapters=adapters)
