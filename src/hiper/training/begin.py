"""The beginning of a run: its parts are built and warm-started, or restored from the newest checkpoint."""

from __future__ import annotations

from contextlib import closing, nullcontext, suppress
from pathlib import Path

from hiper.config import Config
from hiper.display.console import Display
from hiper.errors import UnwritableError, UserError
from hiper.files import check_sealed, exclusive_lock, user_path
from hiper.imitation.warm_start import WarmStart
from hiper.processes import ALONE, Processes
from hiper.runs.folder import Run
from hiper.runs.policies import describe_progress, shipped_warm_start, unfinished_file
from hiper.stopping import Stop
from hiper.training.build import Parts, build
from hiper.training.checkpoints import check_checkpoint, load_checkpoint
from hiper.training.progress import header


def begin(run: Run, display: Display, stop: Stop, processes: Processes) -> tuple[Parts, int]:
    """Build the parts of a run. Warm-start them, or restore the newest checkpoint.

    Returns:
        The parts and the number of iterations done. The sampler has the current weights.

    Raises:
        UserError: A setting, the data, a model or a checkpoint cannot be used.
    """
    config = run.config
    with stop.at_once():
        if checkpoints := processes.agree(run.checkpoints):
            return _restore(run, checkpoints[-1], display, processes)
        shipped = shipped_warm_start(config)
        parts = build(config, shipped, display, processes, logs=run.path)
    run.save_settings()  # building has shown that they are usable
    display.note(*header(parts))
    if 0 < config.training.iterations <= (alone := config.learner.critic_warmup_iterations):
        display.note(f"the policy will not learn: learner.critic_warmup_iterations ({alone}) takes every iteration")
    if shipped is not None:
        display.note(f"warm start: the one that ships with hiper; `hiper sft {config.name}` makes it anew")
        parts.learner.copy_policy_to_critic()
        parts.store_policy(run.warm_start)
    elif config.warm_start.tasks:
        warm_start(parts, run.warm_start, display, stop)
    elif config.model.path is None:
        parts.store_policy(run.warm_start)
    if config.learner.kl_coef:
        parts.learner.set_reference()
    with stop.at_once():  # an engine may take a minute to start
        parts.learner.publish(parts.agent.sampler, 0)
    return parts, 0


def _restore(run: Run, newest: Path, display: Display, processes: Processes) -> tuple[Parts, int]:
    display.note(f"continuing from {newest}")
    with display.bar("checking"):
        check_checkpoint(run, newest)
    if newest != run.checkpoint(0) and not run.metrics_file.exists():
        raise UserError(
            f"{run.metrics_file} is missing: restore it, or make an empty file of this name to go on without the "
            "metrics of earlier iterations"
        )
    parts = build(run.config, newest / "policy", display, processes, logs=run.path)
    with display.bar("restoring"):
        if run.config.learner.kl_coef:
            parts.learner.set_reference(_reference(run))
        done = load_checkpoint(run, newest, parts)
    parts.learner.publish(parts.agent.sampler, done)
    return parts, done


def _reference(run: Run) -> Path | str:
    """Return the place of the policy that a resumed run began with.

    Raises:
        UserError: The policy no longer exists, or is damaged.
    """
    config, warm = run.config, run.warm_start
    if warm.exists():
        _check_reference(warm)
        return warm
    if config.model.path is None or config.warm_start.tasks:
        raise UserError(f"{warm}, the reference policy of learner.kl_coef, is missing; restore the folder")
    if (path := user_path(config.model.path)).is_absolute() and not path.exists():
        raise UserError(
            f"{path}, the reference policy of learner.kl_coef, is missing; restore it, or set model.path in "
            f"{run.settings_file} to its new place"
        )
    _check_reference(path)
    return config.model.path


def _check_reference(folder: Path) -> None:
    try:
        check_sealed(folder)
    except UserError as error:
        raise UserError(f"{error}. It is the reference policy of learner.kl_coef; restore the folder") from error


def warm_start(parts: Parts, folder: Path, display: Display, stop: Stop) -> None:
    """Warm-start the policy and save it in ``folder``.

    A file beside the folder stores the progress. The caller deletes it.

    Raises:
        UserError: See :meth:`WarmStart.run`.
    """
    WarmStart(
        config=parts.config,
        learner=parts.learner,
        env=parts.env,
        prompts=parts.prompts,
        tokenizer=parts.tokenizer,
        agent=parts.agent,
        unfinished=unfinished_file(folder),
        display=display,
        check=stop.check,
        check_together=stop.check_together,
    ).run()
    parts.store_policy(folder)


def clone(config: Config, folder: Path, display: Display, processes: Processes = ALONE) -> None:
    """Run only the warm start and save the policy. Resumes an interrupted warm start.

    Args:
        config: The settings. Those of later stages have no effect.
        folder: The folder of the policy.
        display: The display of progress.
        processes: The processes that train together.

    Raises:
        UserError: Another process uses the folder, there is nothing to imitate, the loss diverged, or the disk is full.
        KeyboardInterrupt: The user stopped. The progress has been saved.
    """
    alone = exclusive_lock(folder) if processes.first else nullcontext()
    with alone, Stop(display.note, processes.any) as stop:
        with stop.at_once():
            parts = build(config, display=display, processes=processes, playing=False)
        display.note(*header(parts))
        try:
            with closing(parts):
                warm_start(parts, folder, display, stop)
        except UnwritableError as error:
            raise UserError(
                f"{error}; {describe_progress(folder)}. Free some space, then give the same command again"
            ) from error
        except KeyboardInterrupt:
            with suppress(OSError):  # the terminal may be gone
                display.interrupted(describe_progress(folder), display.command)
            raise
        if processes.first:
            unfinished_file(folder).unlink(missing_ok=True)
