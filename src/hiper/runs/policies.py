"""Policy folders: a saved policy together with the settings and the template that it plays under."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, Self

from hiper.config import WARM_START_PREFIXES, Config, flatten
from hiper.errors import UserError
from hiper.files import check_sealed, user_path, write_text
from hiper.runs.folder import Run, checkpoint_policy, read_settings
from hiper.strict_yaml import read_mapping


@dataclass(frozen=True)
class PolicyFolder:
    """A Hugging Face directory with ``hiper.yaml`` and ``template.yaml`` beside the weights.

    The two files make the folder stand on its own: no recipe or template elsewhere is needed to play the policy.
    """

    path: Path

    @classmethod
    def find(cls, path: Path) -> Self:
        """Find the policy meant by a run (its newest checkpoint), a checkpoint, or a policy folder itself.

        Raises:
            UserError: ``path`` is none of them.
        """
        for folder in (user_path(path), checkpoint_policy(path)):
            if cls(folder).settings_file.is_file():
                return cls(folder)
        if Run.exists(path) and (checkpoints := Run.open(path).checkpoints):
            return cls(checkpoint_policy(checkpoints[-1]))
        raise UserError(f"{path} is neither a run with a checkpoint, nor a checkpoint, nor a policy directory")

    @property
    def settings_file(self) -> Path:
        """The settings under which the policy was trained."""
        return self.path / "hiper.yaml"

    @property
    def template(self) -> Path | None:
        """The prompt template that the folder brings along; None: its settings name one."""
        return self._template_file if self._template_file.is_file() else None

    @property
    def _template_file(self) -> Path:
        return self.path / "template.yaml"

    @property
    def own_files(self) -> list[Path]:
        """The files beside the model that playing it needs."""
        return [file for file in (self.settings_file, self._template_file) if file.is_file()]

    def write(self, config: Config, template: str) -> None:
        """Write settings and template beside the weights.

        Args:
            config: the settings of the run.
            template: the prompt template, as YAML.
        """
        write_text(self.settings_file, config.to_yaml())
        write_text(self._template_file, template)

    def check(self) -> None:
        """Check that the files are as a run wrote them. Folders without checksums say nothing of it.

        Raises:
            UserError: A file is missing or was changed. The message names it, and an older checkpoint, if any.
        """
        try:
            check_sealed(self.path)
        except UserError as error:
            advice = "restore the file"
            if self.path == checkpoint_policy(checkpoint := self.path.parent):
                older = sorted(p for p in checkpoint.parent.glob("iter-*") if p.name < checkpoint.name)
                advice = f"the checkpoint before it is {older[-1]}" if older else advice
            raise UserError(f"policy {error}; {advice}") from error

    def settings(self) -> Config:
        """Read the settings.

        Raises:
            UserError: the file is missing or invalid.
        """
        return read_settings(self.settings_file)

    def settings_tree(self) -> dict[str, Any]:
        """Read the settings without validation: a policy may be older than today's training settings.

        Raises:
            UserError: the file is no YAML mapping.
        """
        return read_mapping(self.settings_file)


def find_policy(given: str | Path, env: str | None) -> PolicyFolder | None:
    """Find the policy that someone named. None: it is a plain model, from outside this project.

    A plain model is a folder of Hugging Face, also of an adapter, or a name on the hub of the form ``owner/name``.

    Args:
        given: A run, a checkpoint, a policy folder, or a plain model.
        env: The environment to play; a plain model has none of its own.

    Raises:
        UserError: It is none of them, or a plain model without an environment.
    """
    path = user_path(given)
    try:
        return PolicyFolder.find(path)
    except UserError as error:
        # The first part of a name on the hub is an owner. A folder of that name means a path.
        named = re.fullmatch(r"[\w.-]+/[\w.-]+", str(given)) and not str(given).startswith(".")
        on_hub = bool(named) and not path.parent.exists()
        if not on_hub and not any((path / file).is_file() for file in ("config.json", "adapter_config.json")):
            raise UserError(f"{error}, nor a folder or a name (owner/name) of a Hugging Face model") from None
        if env is None:
            raise UserError(
                f"{given} is a plain model, not a policy of a run; name the environment that it should play, as in "
                "--env alfworld"
            ) from None
        return None


def shipped_warm_start(config: Config) -> Path | None:
    """Return the folder of the warm start that ships for these settings, or None."""
    if not (config.warm_start.tasks and config.warm_start.shipped):
        return None
    with as_file(files("hiper").joinpath("warm_starts")) as shipped:
        made = (PolicyFolder(folder) for folder in sorted(shipped.iterdir()) if folder.is_dir())
        wanted = warm_start_settings(config)
        return next((folder.path for folder in made if warm_start_settings(folder.settings()) == wanted), None)


def warm_start_settings(config: Config) -> dict[str, Any]:
    """Return the settings that a warm start depends on, by dotted key, as JSON values."""
    every = dict(flatten(config.model_dump(mode="json")))
    every.pop("warm_start.shipped")  # it says which one is taken, not how one is made
    return {key: value for key, value in every.items() if key.startswith(WARM_START_PREFIXES)}


def changes_between(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Describe in words how settings by dotted key differ; "" if they do not."""
    other = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    return ", ".join(f"{key}={before.get(key)} and not {now.get(key)}" for key in other)


def unfinished_file(folder: Path) -> Path:
    """Return the file that stores a warm start's progress until its policy is saved in ``folder``."""
    return folder.with_name(folder.name + ".unfinished")


def describe_progress(folder: Path) -> str:
    """Describe in words what an interrupt has left of a warm start."""
    return "the warm start's progress is saved" if unfinished_file(folder).exists() else "nothing was done yet"
