"""Writing of a policy as a whole model, for other programs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Literal

from hiper.display.console import Display
from hiper.errors import UserError
from hiper.files import atomic_folder, seal, user_path
from hiper.runs.policies import PolicyFolder

Format = Literal["float32", "bfloat16"]


def export_policy(given: str, folder: Path, display: Display, dtype: Format | None = None) -> None:
    """Write a policy as an ordinary Hugging Face folder. An adapter of LoRA is added into its base model.

    Args:
        given: A run (its newest checkpoint), a checkpoint, a policy folder, or the folder of any adapter.
        folder: The folder to write.
        display: The display of progress.
        dtype: The number format of the weights. None: that of the policy's training.

    Raises:
        UserError: There is no policy or no base, or ``folder`` exists.
    """
    if folder.exists():
        raise UserError(f"{folder} exists: name a new folder with --out, or delete it")
    policy, own_settings = _find(given)
    with display.bar("loading torch"):
        from hiper.config import ModelConfig
        from hiper.models.build import load_policy, without_loading_bars
        from hiper.models.lora import is_adapter
        from hiper.plan_execute.tokenizer import load_tokenizer
    if dtype is None:
        tree = own_settings.settings_tree() if own_settings else {}
        dtype = tree.get("model", {}).get("param_dtype", "float32")
    with display.bar("loading the model"):
        model = load_policy(policy, ModelConfig(param_dtype=dtype))
    with display.bar("writing"), atomic_folder(folder) as partial:
        with without_loading_bars():
            model.save_pretrained(partial)
        load_tokenizer(policy).save_pretrained(partial)
        for file in own_settings.own_files if own_settings else ():
            shutil.copyfile(file, partial / file.name)
        seal(partial)
    merged = ", its adapter added into its base" if is_adapter(policy) else ""
    count = sum(parameter.numel() for parameter in model.parameters())
    display.note(f"written: {folder} ({count:,} parameters in {dtype}{merged})")


def _find(given: str) -> tuple[Path, PolicyFolder | None]:
    """Return the folder of a policy, and where its settings are. A plain adapter has none.

    Raises:
        UserError: There is no policy.
    """
    try:
        found = PolicyFolder.find(Path(given))
    except UserError:
        plain = user_path(given)
        if not (plain / "adapter_config.json").is_file():
            raise
        return plain, None
    found.check()
    return found.path, found
