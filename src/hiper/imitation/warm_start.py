"""The warm start: the policy imitates demonstrations, in a stage or two, and goes on where it was interrupted."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from hiper.config import Config, ImperfectConfig, WarmStartConfig, leaves
from hiper.display.console import Display
from hiper.errors import UnwritableError, UserError
from hiper.files import alone_at, whole_file, whole_folder
from hiper.imitation.demonstrations import Lapse
from hiper.imitation.fine_tuning import FineTuning, demonstration_rows, shuffled_batches
from hiper.models.actor_critic import Row
from hiper.seeding import derive_seed
from hiper.training.build import Assembly, assemble, save_policy
from hiper.training.checkpoints import DAMAGE
from hiper.training.recovery import Stop

SECONDS_BETWEEN_SAVES = 600.0
OF_A_WARM_START = ("seed", "env.", "prompt.", "model.", "warm_start.", "learner.max_grad_norm")
"""What a warm start hangs on begins like this; settings of what comes later may change, and it still serves."""


def clone(config: Config, folder: Path, display: Display) -> None:
    """A warm start alone, saved as a policy; one that was interrupted is gone on with.

    Args:
        config: the settings; what comes after the warm start has no part in it.
        folder: where the policy goes.
        display: where progress is shown.

    Raises:
        UserError: another process is at it, there is nothing to imitate, the loss diverged, or the disk is full.
        KeyboardInterrupt: a stop was asked for; what was done has been saved.
    """
    with alone_at(folder), Stop(display) as stop:
        parts = assemble(config)
        display.header(folder, parts)
        try:
            warm_start(parts, folder, display, stop.check)
        except UnwritableError as error:
            raise UserError(f"{error}; {kept_of(folder)}. Make room and give the same command again") from error
        except KeyboardInterrupt:
            display.interrupted(kept_of(folder), display.command)
            raise
        unfinished_of(folder).unlink(missing_ok=True)


def warm_start(parts: Assembly, folder: Path, display: Display, check: Callable[[], None] = lambda: None) -> None:
    """Fine-tune the policy on demonstrations of training tasks, then give the critic's backbone what it learned.

    Args:
        parts: of the run.
        folder: where the policy is saved in the end. A file beside it, :func:`unfinished_of`, keeps what is done; the
            caller deletes it when it is needed no more.
        display: where progress is shown.
        check: called between steps; an interrupt that it raises ends the warm start.

    Raises:
        UserError: there is nothing to imitate, the loss diverged, or what was done so far is of no use.
        UnwritableError: the disk refused.
    """
    unfinished = _Unfinished(unfinished_of(folder), parts.config)
    begun = unfinished.load(parts.learner.device)
    config, last = parts.config.warm_start, parts.config.warm_start.imperfect
    stages = [_Stage("warm start", config, config.lapses, lapses_too=False)]
    if last.epochs or last.turns:
        lapses = config.lapses if last.lapses is None else last.lapses
        stages.append(_Stage("lapses too", last, lapses, lapses_too=True))
    at = 0 if begun is None else begun["stage"]
    for number, stage in enumerate(stages[at:], at):
        _imitate(parts, stage, number, begun if number == at else None, unfinished, display, check)
    parts.learner.model.copy_backbone()
    with whole_folder(folder) as partial:
        save_policy(partial, parts)


def unfinished_of(folder: Path) -> Path:
    """Where a warm start keeps what is done before its policy is saved in ``folder``."""
    return folder.with_name(folder.name + ".unfinished")


def kept_of(folder: Path) -> str:
    """What an interrupt has left of it, in words."""
    return "the warm start is saved as far as it came" if unfinished_of(folder).exists() else "nothing was done yet"


class _Stage(NamedTuple):
    """Some passes over the demonstrated tasks, each played anew."""

    name: str
    of: WarmStartConfig | ImperfectConfig
    """How much of it, and how: its section of the settings."""
    lapses: Sequence[Lapse]
    lapses_too: bool
    """They are imitated."""


class _Unfinished:
    """A warm start's file of what is done."""

    def __init__(self, path: Path, config: Config) -> None:
        self.path = path
        every = leaves(config.model_dump(mode="json"))
        self._settings = {key: value for key, value in every if key.startswith(OF_A_WARM_START)}
        self._saved = time.monotonic()

    def load(self, device: torch.device) -> dict[str, Any] | None:
        """What an earlier process did, if any.

        Raises:
            UserError: it cannot be read, or was done under other settings.
        """
        if not self.path.exists():
            return None
        what = f"{self.path}, a warm start as far as it came,"
        try:
            state: dict[str, Any] = torch.load(self.path, map_location=device, weights_only=True)
            before, now = state["settings"], self._settings
            other = [key for key in {**before, **now} if before.get(key) != now.get(key)]
        except DAMAGE as error:
            raise UserError(f"{what} is damaged; delete it to begin anew") from error
        if other:
            changes = ", ".join(f"{key}={before.get(key)} and not {now.get(key)}" for key in other)
            raise UserError(f"{what} was begun with {changes}: give these again, or delete it to begin anew")
        return state

    def save(self, stage: int, tuning: FineTuning) -> None:
        with whole_file(self.path) as partial:
            torch.save({"settings": self._settings, "stage": stage, **tuning.state()}, partial)
        self._saved = time.monotonic()

    @property
    def old(self) -> bool:
        """Whether it is time to save."""
        return time.monotonic() - self._saved > SECONDS_BETWEEN_SAVES


def _demonstrated(
    parts: Assembly, stage: _Stage, tasks: Sequence[str], seed: int, display: Display, check: Callable[[], None]
) -> tuple[list[Row], float]:
    """The rows of a stage's passes, and how many turns are imitated: of the last pass it may be a part."""
    # A task takes a turn at least, so that this is the most passes that so many turns can take.
    passes = math.ceil(stage.of.epochs if stage.of.turns is None else stage.of.turns / len(tasks))
    enough = math.inf if stage.of.turns is None else stage.of.turns
    rows: list[Row] = []
    with display.bar("demonstrations", passes) as advance:
        for epoch in range(passes):
            rows += demonstration_rows(
                parts.env,
                tasks,
                parts.prompts,
                parts.tokenizer,
                perturb=stage.of.perturb,
                lapses=stage.lapses,
                lapses_too=stage.lapses_too,
                seed=derive_seed(seed, epoch),
            )
            advance()
            check()
            if len(rows) >= enough:
                break
    return rows, stage.of.turns or len(rows) * stage.of.epochs / passes


def _imitate(
    parts: Assembly,
    stage: _Stage,
    number: int,
    begun: dict[str, Any] | None,
    unfinished: _Unfinished,
    display: Display,
    check: Callable[[], None],
) -> None:
    config, seed = parts.config.warm_start, derive_seed(parts.config.seed, stage.name)
    panel = parts.env.panel
    tasks = [task.id for task in panel.subset(min(config.tasks, len(panel)))]
    rows, turns = _demonstrated(parts, stage, tasks, seed, display, check)
    if not rows:
        raise UserError(f"the expert solved none of the {len(tasks)} tasks it was to demonstrate: nothing to imitate")
    steps = max(1, round(turns / config.batch_turns))
    tuning = FineTuning(parts.learner, steps, stage.of.lr, config.prompt_loss)
    if begun is not None:
        tuning.restore(begun)
        display.note(f"{stage.name}: going on after {len(tuning.losses)} of {steps} steps")
    began, done = time.perf_counter(), len(tuning.losses)
    with display.bar(stage.name, steps, done) as advance:
        for batch in islice(shuffled_batches(rows, config.batch_turns, seed), done, steps):
            tuning.step(batch)
            advance()
            if unfinished.old:
                unfinished.save(number, tuning)
            try:
                check()
            except KeyboardInterrupt:
                unfinished.save(number, tuning)
                raise
    unfinished.save(number, tuning)
    display.note(
        f"{stage.name}: {len(tasks)} demonstrated tasks, {steps * config.batch_turns} turns in {steps} steps, "
        f"loss {np.mean(tuning.losses[-50:]):.3f}, {time.perf_counter() - began:.0f} s"
    )
