"""The Python interface: train, resume, evaluate, load a policy, read a run. The command line calls it too.

Importing this module does not import torch. The functions that need torch import it themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING

from rich.console import Console

from hiper.config import Config, load_config
from hiper.display.console import Display
from hiper.errors import UserError
from hiper.files import forget_lock, user_path
from hiper.processes import ALONE, Processes
from hiper.rollout.environment import resolve_splits
from hiper.runs.folder import Run, checkpoint_policy
from hiper.runs.follower import Follower
from hiper.runs.policies import PolicyFolder, changes_between, unfinished_file, warm_start_settings

if TYPE_CHECKING:
    from hiper.evaluation.saved import LoadedPolicy
    from hiper.evaluation.splits import EvaluatedSplit


def train(
    recipe: Config | str | Path,
    *settings: str,
    out: str | Path | None = None,
    display: Display | None = None,
    processes: Processes = ALONE,
    force: bool = False,
) -> Run:
    """Train an agent: warm start, reinforcement learning, and evaluation before and after.

    >>> run = train("quickstart", "seed=1", "learner.lr=1e-4", out="runs/first")  # doctest: +SKIP

    Args:
        recipe: A shipped recipe's name, a YAML file, or the settings themselves.
        settings: The ``dotted.key=value`` overrides.
        out: The folder of the run. None: ``runs/NAME-seedSEED``.
        display: The display of progress. None: standard output.
        processes: The processes that train together, as :func:`~hiper.processes.together` gives them.
        force: If true, begin although the memory that is free is too small.

    Returns:
        The finished run.

    Raises:
        UserError: A setting, the data or the model cannot be used or cannot fit, or the folder already holds a run.
    """
    config, display = _config(recipe, settings), _display(display, processes)
    folder = user_path(out) if out else default_folder(config)
    run = Run.create(folder, config) if processes.first else Follower(folder, config)
    display.whole_line(f"run        {run.path}")
    with display.bar("opening the data"):
        config = resolve_splits(config)
    return _trained(replace(run, config=config), display, processes, force)


def resume(
    run: Run | str | Path, display: Display | None = None, processes: Processes = ALONE, force: bool = False
) -> Run:
    """Resume a run from its newest checkpoint, under its own settings. A finished run is returned unchanged.

    Args:
        run: The run or its folder.
        display: The display of progress. None: standard output.
        processes: The processes that train together. Their number may differ from that of an earlier process.
        force: If true, begin although the memory that is free is too small.

    Raises:
        UserError: There is no such run, or its newest checkpoint is damaged.
    """
    opened, display = run if isinstance(run, Run) else open_run(run), _display(display, processes)
    display.whole_line(f"run        {opened.path}")
    return _trained(opened if processes.first else Follower(opened.path, opened.config), display, processes, force)


def clone_expert(
    recipe: Config | str | Path,
    *settings: str,
    out: str | Path | None = None,
    display: Display | None = None,
    processes: Processes = ALONE,
    force: bool = False,
) -> Path:
    """Run only the warm start of a recipe, and save the policy. An interrupted warm start is resumed.

    A policy that these settings made already is kept as it is.

    Args:
        recipe: A shipped recipe's name, a YAML file, or the settings themselves.
        settings: The ``dotted.key=value`` overrides.
        out: The policy's folder. None: ``runs/NAME-sft-seedSEED``.
        display: The display of progress. None: standard output.
        processes: The processes that train together.
        force: If true, begin although the memory that is free is too small.

    Returns:
        The policy's folder.

    Raises:
        UserError: There is nothing to imitate, the loss diverged, or the folder already holds something else.
    """
    config = _config(recipe, settings)
    display = _display(display, processes)
    folder = user_path(out) if out else default_folder(config, "sft-")
    if processes.agree(check_cloned(config, folder)):
        unfinished_file(folder).unlink(missing_ok=True)  # a kill after the last step leaves it
        forget_lock(folder)
        display.note(f"{folder} is done already")
        return folder
    display.whole_line(f"folder     {folder}")
    with display.bar("opening the data"):
        config = resolve_splits(config)
    with display.bar("loading torch"):
        from hiper.training.begin import clone
        from hiper.training.estimate.fit import refuse_what_cannot_fit

        if not force:
            refuse_what_cannot_fit(config, processes, imitating=True)
    clone(config, folder, display, processes)
    return folder


def check_cloned(config: Config, folder: Path) -> bool:
    """Return whether ``folder`` holds the policy of these settings already.

    Raises:
        UserError: There is nothing to imitate, or the folder holds something else.
    """
    if config.warm_start.tasks == 0:
        raise UserError("warm_start.tasks is 0, so there is nothing to learn from")
    if not folder.exists():
        return False
    policy = PolicyFolder(folder)
    if not policy.settings_file.is_file():
        raise UserError(f"{folder} exists already; choose another folder with --out")
    if changes := changes_between(warm_start_settings(policy.settings()), warm_start_settings(config)):
        raise UserError(
            f"{folder} exists already, as a policy of other settings ({shorten(changes, 200, placeholder=' ...')}); "
            "choose another folder with --out"
        )
    policy.check()
    return True


def load_policy(
    path: str | Path, *settings: str, env: str | None = None, temperature: float | None = None
) -> LoadedPolicy:
    """Load a policy or a plain model to play with.

    >>> policy = load_policy("runs/first")  # doctest: +SKIP
    >>> env = policy.env("valid_unseen")  # doctest: +SKIP
    >>> policy.play(env, env.panel.tasks[0].id).won  # doctest: +SKIP

    Args:
        path: A run (its newest checkpoint), a checkpoint, or a policy folder. Or a plain causal language model, by its
            folder or by its name on the hub; it plays under the default settings.
        settings: The ``dotted.key=value`` overrides of the policy's saved settings, or of the defaults.
        env: The name of the environment. None: that of the policy's training. A plain model needs one.
        temperature: The sampling temperature. None: the temperature of evaluations during training.

    Raises:
        UserError: There is no policy, it is damaged, or a setting is wrong.
    """
    from hiper.evaluation.saved import SavedPolicy

    return SavedPolicy.open(path, env, settings).load(temperature)


def evaluate(
    policy: LoadedPolicy | str | Path,
    *,
    splits: Sequence[str] | None = None,
    tasks: int | None = None,
    seed: int | None = None,
    out: str | Path | None = None,
    display: Display | None = None,
    processes: Processes = ALONE,
) -> dict[str, EvaluatedSplit]:
    """Play held-out tasks.

    Args:
        policy: A loaded policy, or a path for :func:`load_policy`.
        splits: The names of the splits. None: the policy's own held-out splits.
        tasks: The size of a fixed subset of tasks in each split. None: all tasks.
        seed: The seed of sampling and environment. None: the policy's own seed.
        out: The folder of the cards and episodes. None: write nothing.
        display: The display of progress. None: standard output.
        processes: The processes that play together. The first one writes.

    Returns:
        The results by split: the episodes, their outcomes by task type with intervals, and the result card.

    Raises:
        UserError: A split does not exist or has fewer tasks, or ``out`` already holds a card.
    """
    from hiper.evaluation.splits import evaluate_splits

    loaded = load_policy(policy) if isinstance(policy, str | Path) else policy
    chosen = loaded.config.evaluation.splits if splits is None else splits
    folder = user_path(out) if out else None
    shown = _display(display, processes)
    found = evaluate_splits(loaded, chosen, shown, tasks=tasks, seed=seed, folder=folder, processes=processes)
    return {result.split: result for result in found}


def open_run(path: str | Path) -> Run:
    """Open a run to read its settings, metrics, episodes with credit, and evaluations. Needs no torch.

    >>> run = open_run("runs/first")  # doctest: +SKIP
    >>> run.metrics()[-1]["success/all"], run.evaluations()["valid_unseen"][-1].overall.success  # doctest: +SKIP

    Raises:
        UserError: The folder holds no run, or its settings are invalid.
    """
    return Run.open(user_path(path))


def default_folder(config: Config, kind: str = "") -> Path:
    """Return the folder of a run or policy when the caller names none."""
    return Path("runs") / f"{config.name}-{kind}seed{config.seed}"


def _config(recipe: Config | str | Path, settings: Sequence[str]) -> Config:
    if not isinstance(recipe, Config):
        return load_config(recipe, settings)
    if settings:
        raise UserError(f"settings such as {settings[0]!r} need a recipe's name; change the Config itself instead")
    return recipe


def _trained(run: Run, display: Display, processes: Processes, force: bool) -> Run:
    if not processes.agree(run.finished):
        with display.bar("loading torch"):
            from hiper.training.estimate.fit import refuse_what_cannot_fit
            from hiper.training.trainer import train as train_run

            if not force:
                newest = run.checkpoints[-1:]
                refuse_what_cannot_fit(run.config, processes, *(checkpoint_policy(folder) for folder in newest))

        train_run(run, display, processes)
    else:
        forget_lock(run.path)
    return run


def _display(display: Display | None, processes: Processes) -> Display:
    """Return the display of progress, which only the first process has."""
    return (display or Display()) if processes.first else Display(console=Console(quiet=True))
