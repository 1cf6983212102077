"""LoRA through PEFT: small adapters are trained beside a frozen base model, which several roles share.

Source: Hu et al. 2021 (arXiv 2106.09685). The base of a policy, its critic and its reference is in memory once. The
adapter ``policy`` is what plays. ``critic`` makes the critic's own backbone of the same base. ``reference`` is a frozen
copy of the policy, for the KL term. Without any adapter the base itself computes.
"""

from __future__ import annotations

import json
import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from hiper.config import LoraConfig
from hiper.errors import UserError, first_line
from hiper.models.parts import fill_all, gathered

Role = Literal["policy", "critic", "reference"]

WEIGHTS_FILE, CONFIG_FILE = "adapter_model.safetensors", "adapter_config.json"
"""The files of an adapter's folder, as PEFT names them."""

OF_PEFT = "base_model.model."
"""What the names of tensors begin with in an adapter's file."""

# Where bitsandbytes is installed, PEFT imports it for every run. On some CPUs bitsandbytes then advises to install a
# kernel. It would be of no use: it computes no gradients, so no model of a run uses it.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)


class Adapters:
    """The adapters of a model. The adapter of the policy is added at once, and is active unless :meth:`using` is.

    Args:
        model: The base model. Its own parameters are frozen.
        config: The sizes of adapters, and the layers they stand beside.
        checkpointing: Whether the model computes activations again in the backward pass.

    Raises:
        UserError: PEFT is missing, or the model has no such layers.
    """

    def __init__(self, model: PreTrainedModel, config: LoraConfig, checkpointing: bool = False) -> None:
        self._model, self._config = model, config
        self._active: Role | None = "policy"
        target_layers(model, config)
        model.requires_grad_(False)
        self.add("policy")
        if checkpointing:
            # A layer that is computed again in the backward pass needs the adapter of its forward pass.
            checkpoint_gradients(model, context_fn=lambda: (nullcontext(), self.using(self._active)))

    def add(self, role: Role) -> None:
        """Add an adapter that changes nothing yet."""
        peft = _peft()
        config = peft.LoraConfig(
            r=self._config.rank,
            lora_alpha=self._config.alpha,
            target_modules=self._config.targets if isinstance(self._config.targets, str) else [*self._config.targets],
            task_type="CAUSAL_LM",
        )
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Already found a `peft_config`")  # of the role before
            torch.manual_seed(0)  # equal runs begin with equal adapters
            try:
                self._model.add_adapter(config, role)
            except ValueError as error:
                raise UserError(f"learner.lora.targets: {first_line(error)}") from error
        for parameter in self.parameters(role):
            # In bfloat16, steps as small as Adam's would be rounded away.
            parameter.data = parameter.data.float()
        self._activate(self._active)

    @property
    def roles(self) -> set[str]:
        """The adapters that were added."""
        return set(self._model.peft_config)

    @contextmanager
    def using(self, role: Role | None) -> Iterator[None]:
        """Let the model compute with another adapter, or with none, inside the block."""
        before, self._active = self._active, role
        self._activate(role)
        try:
            yield
        finally:
            self._active = before
            self._activate(before)

    def _activate(self, role: Role | None) -> None:
        for layer in self._layers():
            layer.enable_adapters(role is not None)
            if role is not None:
                layer.set_adapter(role)
        # PEFT freezes whatever is not active. Here policy and critic are trained in turn by one optimizer.
        for name, parameter in self._model.named_parameters():
            if (owner := role_of(name)) is not None:
                parameter.requires_grad_(owner != "reference")

    def parameters(self, role: Role) -> list[nn.Parameter]:
        """Return the parameters of an adapter."""
        return [p for name, p in self._model.named_parameters() if role_of(name) == role]

    def tensors(self, role: Role) -> dict[str, Tensor]:
        """Return the tensors of an adapter by their names, without the role in them. They may be sharded."""
        return tensors_of(self._model, role)

    def load(self, role: Role, tensors: Mapping[str, Tensor]) -> None:
        """Set the tensors of an adapter, as :meth:`tensors` returns them.

        Raises:
            ValueError: They are those of an adapter of another size, or of another model.
        """
        fill_all(self.tensors(role), tensors, "it is an adapter of another rank, of other targets or of another model")

    def restore(self, role: Role, folder: Path) -> None:
        """Set an adapter to that of a folder. A folder of a whole model gives an adapter that changes nothing.

        Raises:
            UserError: The folder's adapter is damaged, or one of another size or model.
        """
        try:
            if is_adapter(folder):
                self.load(role, read_adapter(folder))
            else:
                for name, tensor in self.tensors(role).items():
                    if "lora_B" in name:
                        tensor.zero_()
        except (ValueError, OSError, SafetensorError) as error:
            raise UserError(
                f"the adapter in '{folder}' cannot be used with these settings of learner.lora: {first_line(error)}"
            ) from error

    def copy(self, source: Role, target: Role) -> None:
        """Copy an adapter into another, which is added if it is not there."""
        if not self.parameters(target):
            self.add(target)
        self.load(target, self.tensors(source))

    def save(self, folder: Path, *, writing: bool = True) -> None:
        """Write the policy's adapter as PEFT does. The folder names its base, with which transformers loads it.

        Args:
            folder: A folder that is there.
            writing: Whether this process writes. All processes that hold parts must call this together.
        """
        save_adapter(self._model, folder, writing=writing)

    def _layers(self) -> list[Any]:
        from peft.tuners.tuners_utils import BaseTunerLayer

        return [module for module in self._model.modules() if isinstance(module, BaseTunerLayer)]


def tensors_of(model: PreTrainedModel, role: Role) -> dict[str, Tensor]:
    """Return the tensors of a model's adapter; see :meth:`Adapters.tensors`."""
    named = model.named_parameters()
    return {name.replace(f".{role}.", "."): p.detach() for name, p in named if role_of(name) == role}


def rank_of(model: PreTrainedModel) -> int | None:
    """Return the rank of the policy's adapter. None: the model has none."""
    adapters = getattr(model, "peft_config", {})
    return int(adapters["policy"].r) if "policy" in adapters else None


def save_adapter(model: Any, folder: Path, *, writing: bool = True) -> None:
    """Write the policy's adapter of a model; see :meth:`Adapters.save`."""
    named = {f"{OF_PEFT}{name}": tensor for name, tensor in tensors_of(model, "policy").items()}
    tensors = gathered(named, keep=writing)
    if not writing:
        return
    base = Path(str(model.name_or_path))
    config = model.peft_config["policy"]
    config.base_model_name_or_path = str(base.absolute()) if base.is_dir() else model.name_or_path
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / WEIGHTS_FILE, {"format": "pt"})
    config.save_pretrained(str(folder))


def target_layers(model: PreTrainedModel, config: LoraConfig) -> list[nn.Linear]:
    """Return the layers of a model, without adapters yet, that will get adapters: linear ones, but not the head.

    Raises:
        UserError: A name or the expression matches nothing, or something that is no such layer.
    """
    head, targets = model.get_output_embeddings(), config.targets
    modules = {name: module for name, module in model.named_modules() if name}
    fits = {name: m for name, m in modules.items() if isinstance(m, nn.Linear) and m is not head}
    if targets == "all-linear":
        return list(fits.values())
    if isinstance(targets, str):
        chosen = {targets: [name for name in modules if re.fullmatch(targets, name)]}
    else:
        chosen = {t: [name for name in modules if name == t or name.endswith(f".{t}")] for t in targets}
    for target, names in chosen.items():
        if not names:
            hint = "; a text is a regular expression for whole names" if isinstance(targets, str) else ""
            raise UserError(f"learner.lora.targets: the model has no layer called '{target}'{hint}")
        if other := next((name for name in names if name not in fits), None):
            raise UserError(
                f"learner.lora.targets: '{target}' matches {other}, which cannot have an adapter: only linear layers "
                "can, without the head"
            )
    return [fits[name] for name in dict.fromkeys(name for names in chosen.values() for name in names)]


def role_of(name: str) -> str | None:
    """Return the adapter that a parameter belongs to: what follows its matrix in its name. None: the base."""
    *_, matrix, role, _ = ["", "", *name.split(".")]
    return role if matrix in ("lora_A", "lora_B") else None


def is_adapter(folder: Path) -> bool:
    """Return whether a folder holds an adapter alone, without its base."""
    whole = (file for kind in ("*.safetensors", "*.bin") for file in folder.glob(kind))
    return (folder / CONFIG_FILE).is_file() and all(file.name.startswith("adapter_") for file in whole)


def base_of(folder: Path) -> str:
    """Return the folder or the name of an adapter's base.

    Raises:
        UserError: The folder does not name it.
    """
    try:
        base = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise UserError(f"{folder / CONFIG_FILE} is damaged: it names no base model") from error
    if not isinstance(base, str) or not base:
        raise UserError(
            f"'{folder}' holds an adapter (such as LoRA's) that does not name its base model; write its folder or name "
            f"as base_model_name_or_path into {CONFIG_FILE}, or merge it into its base (merge_and_unload() of PEFT)"
        )
    return base


def read_adapter(folder: Path) -> dict[str, Tensor]:
    """Read the tensors of an adapter's folder by the names of :meth:`Adapters.tensors`."""
    return {name.removeprefix(OF_PEFT): tensor for name, tensor in load_file(folder / WEIGHTS_FILE).items()}


def merged(base: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """Return a base with the adapter of a folder added into its weights.

    Raises:
        UserError: PEFT is missing, or the adapter does not fit the base.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # PEFT uses an old name of transformers
            warnings.filterwarnings("error", "Found missing adapter keys")  # PEFT would go on without them
            joined = _peft().PeftModel.from_pretrained(base, str(folder))
        model: PreTrainedModel = joined.merge_and_unload()
    except (RuntimeError, ValueError, TypeError, KeyError, OSError, SafetensorError, UserWarning) as error:
        raise UserError(
            f"the adapter in '{folder}' does not fit its base model '{base.name_or_path}': {first_line(error)}"
        ) from error
    return model


def checkpoint_gradients(model: PreTrainedModel, **settings: Any) -> None:
    """Let a model compute activations again in the backward pass, instead of keeping them.

    Args:
        model: The model.
        settings: Arguments of ``torch.utils.checkpoint``.
    """
    # Newer versions of transformers have another name for it, and warn of the old one.
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False, **settings})
    model.disable_input_require_grads()  # only the other kind of checkpoints needs its hook, which is in the way


def _peft() -> Any:
    try:
        import peft
    except ImportError:
        raise UserError("adapters need the package peft, which is not installed: pip install 'hiper[lora]'") from None
    return peft
