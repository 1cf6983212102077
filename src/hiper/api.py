"""HiPER from Python: train, resume, evaluate, load a policy, read a run. The command line calls the same functions.

Importing this module imports no torch; the functions that need it do so themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hiper.config import Config, load_config
from hiper.display.console import Display
from hiper.errors import UserError
from hiper.rollout.environment import resolve_splits
from hiper.runs.folder import Run

if TYPE_CHECKING:
    from hiper.evaluation.saved import LoadedPolicy
    from hiper.evaluation.splits import EvaluatedSplit


def train(
    recipe: Config | str | Path, *settings: str, out: str | Path | None = None, display: Display | None = None
) -> Run:
    """Train an agent: warm start, reinforcement learning, and evaluation before and after.

    >>> run = train("quickstart", "seed=1", "learner.lr=1e-4", out="runs/first")  # doctest: +SKIP

    Args:
        recipe: a shipped recipe's name, a YAML file, or the settings themselves.
        settings: ``dotted.key=value`` overrides.
        out: the folder of the run; None: ``runs/NAME-seedSEED``.
        display: where progress is shown; None: standard output.

    Returns:
        The finished run.

    Raises:
        UserError: a setting, the data or the model is not usable, or the folder holds a run already.
    """
    config = resolve_splits(_config(recipe, settings))
    run = Run.create(Path(out) if out else default_folder(config), config)
    return _trained(run, display)


def resume(run: Run | str | Path, display: Display | None = None) -> Run:
    """Continue a run where it stopped, under its own settings. A finished run is returned as it is.

    Args:
        run: the run or its folder.
        display: where progress is shown; None: standard output.

    Raises:
        UserError: there is no such run, or its newest checkpoint is damaged.
    """
    return _trained(run if isinstance(run, Run) else open_run(run), display)


def clone_expert(
    recipe: Config | str | Path, *settings: str, out: str | Path | None = None, display: Display | None = None
) -> Path:
    """Run only the warm start of a recipe, and save the policy. An interrupted warm start is resumed.

    Args:
        recipe: a shipped recipe's name, a YAML file, or the settings themselves.
        settings: ``dotted.key=value`` overrides.
        out: the policy's folder; None: ``runs/NAME-sft-seedSEED``.
        display: where progress is shown; None: standard output.

    Returns:
        The policy's folder.

    Raises:
        UserError: there is nothing to imitate, the loss diverged, or the folder is there already.
    """
    config = _config(recipe, settings)
    folder = Path(out) if out else default_folder(config, "sft-")
    if folder.exists():
        raise UserError(f"{folder} exists already; choose another folder with --out")
    if config.warm_start.tasks == 0:
        raise UserError("warm_start.tasks is 0, so there is nothing to learn from")
    from hiper.training.begin import clone

    clone(resolve_splits(config), folder, display or Display())
    return folder


def load_policy(
    path: str | Path, *settings: str, env: str | None = None, temperature: float | None = None
) -> LoadedPolicy:
    """Load a policy to play with.

    >>> policy = load_policy("runs/first")  # doctest: +SKIP
    >>> env = policy.env("valid_unseen")  # doctest: +SKIP
    >>> policy.play(env, env.panel.tasks[0].id).won  # doctest: +SKIP

    Args:
        path: a run (its newest checkpoint), a checkpoint, or a policy folder.
        settings: ``dotted.key=value`` overrides of the settings it plays under.
        env: another environment than it was trained on; None: the same.
        temperature: of the sampling; None: that of evaluations in training.

    Raises:
        UserError: there is no policy, it is damaged, or a setting is wrong.
    """
    from hiper.evaluation.saved import SavedPolicy

    return SavedPolicy.open(Path(path), env, settings).load(temperature)


def evaluate(
    policy: LoadedPolicy | str | Path,
    *,
    splits: Sequence[str] | None = None,
    tasks: int | None = None,
    seed: int | None = None,
    out: str | Path | None = None,
    display: Display | None = None,
) -> dict[str, EvaluatedSplit]:
    """Play held-out tasks.

    Args:
        policy: a loaded policy, or whatever :func:`load_policy` takes.
        splits: what is played; None: the policy's own held-out splits.
        tasks: the size of a fixed subset of tasks per split; None: all tasks.
        seed: the seed of sampling and environment; None: the policy's own.
        out: where to write cards and episodes; None: nowhere.
        display: where progress is shown; None: standard output.

    Returns:
        By split: the episodes, their outcomes by task type with intervals, and the result card.

    Raises:
        UserError: a split does not exist or has fewer tasks, or ``out`` holds a card already.
    """
    from hiper.evaluation.splits import evaluate_splits

    loaded = load_policy(policy) if isinstance(policy, str | Path) else policy
    chosen = loaded.config.evaluation.splits if splits is None else splits
    folder = Path(out) if out else None
    found = evaluate_splits(loaded, chosen, display or Display(), tasks=tasks, seed=seed, folder=folder)
    return {result.split: result for result in found}


def open_run(path: str | Path) -> Run:
    """Open a run to read it: settings, metrics, episodes with their credit, evaluations. Needs no torch.

    >>> run = open_run("runs/first")  # doctest: +SKIP
    >>> run.metrics()[-1]["success/all"], run.evaluations()["valid_unseen"][-1].overall.success  # doctest: +SKIP

    Raises:
        UserError: the folder holds no run, or its settings are invalid.
    """
    return Run.open(Path(path))


def default_folder(config: Config, kind: str = "") -> Path:
    """Where a run goes if nobody says where."""
    return Path("runs") / f"{config.name}-{kind}seed{config.seed}"


def _config(recipe: Config | str | Path, settings: Sequence[str]) -> Config:
    if not isinstance(recipe, Config):
        return load_config(recipe, settings)
    if settings:
        raise UserError(f"settings such as {settings[0]!r} go with a recipe's name; change the settings themselves")
    return recipe


def _trained(run: Run, display: Display | None) -> Run:
    if not run.finished:
        from hiper.training.trainer import train as train_run

        train_run(run, display or Display())
    return run
