"""The warm start: the policy imitates an expert, in stages. An interrupted warm start can resume."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from hiper.config import Config, DaggerConfig, ImperfectConfig, Lapse, WarmStartConfig
from hiper.display.console import Display
from hiper.display.text import duration
from hiper.envs.base import TextEnv
from hiper.errors import UserError
from hiper.files import atomic_file
from hiper.imitation.dagger import corrected_rows
from hiper.imitation.fine_tuning import FineTuning, demonstration_rows, shuffled_batches
from hiper.imitation.renaming import rename
from hiper.learner.imitation import Imitation
from hiper.learner.learner import Learner
from hiper.plan_execute.prompts import PromptBuilder
from hiper.rollout.agent import Agent
from hiper.rollout.progress import episodes_bar
from hiper.rollout.samplers import RemoteSampler
from hiper.rows import Row
from hiper.runs.policies import changes_between, warm_start_settings
from hiper.seeding import derive_seed

SECONDS_BETWEEN_SAVES = 600.0
"""The least time between two saves during a stage."""


class _Demonstrations(NamedTuple):
    """A stage: some passes over the demonstrated tasks. Each pass plays them anew."""

    name: str
    """The name, which seeds the stage."""
    title: str
    """The name in messages."""
    config: WarmStartConfig | ImperfectConfig
    """The settings of the stage."""
    lapses: Sequence[Lapse]
    """The kinds of lapse that may happen."""
    lapses_too: bool
    """Whether lapses are imitated as well."""


class _Dagger(NamedTuple):
    """A stage: the policy plays each demonstrated task once, and imitates what the expert would have done there."""

    name: str
    """The name, which seeds the stage."""
    title: str
    """The name in messages."""
    config: DaggerConfig
    """The settings of the stage."""


@dataclass(frozen=True)
class WarmStart:
    """A warm start that is ready to run."""

    config: Config
    learner: Learner
    env: TextEnv
    """The environment, with the training tasks as its panel."""
    prompts: PromptBuilder
    tokenizer: PreTrainedTokenizerBase
    agent: Agent
    """The policy as a player. Its sampler gets the weights when they are needed."""
    unfinished: Path
    """The file that stores progress. The caller deletes it when it is no longer needed."""
    display: Display
    check: Callable[[], None] = lambda: None
    """A function called between tasks. If it raises KeyboardInterrupt, the warm start ends."""
    check_together: Callable[[], None] = lambda: None
    """The same between steps, called by all processes together. Progress is saved then."""

    def run(self) -> None:
        """Fine-tune the policy on demonstrations of training tasks, then copy it into the critic's backbone.

        Raises:
            UserError: There is nothing to imitate, the loss diverged, or the stored progress cannot be used.
            UnwritableError: The progress cannot be written.
        """
        saved = _Unfinished(self.unfinished, self.config, self.learner, self.tokenizer)
        begun = saved.read()
        settings, last = self.config.warm_start, self.config.warm_start.imperfect
        rounds = settings.dagger.rounds
        stages: list[_Demonstrations | _Dagger] = [
            _Demonstrations("warm start", "warm start", settings, settings.lapses, lapses_too=False),
            *(_Dagger(f"dagger {n}", f"DAgger, round {n} of {rounds}", settings.dagger) for n in range(1, rounds + 1)),
        ]
        if last.epochs or last.turns:
            lapses = settings.lapses if last.lapses is None else last.lapses
            stages.append(_Demonstrations("lapses too", "warm start with lapses", last, lapses, lapses_too=True))
        at = 0 if begun is None else begun["stage"]
        for number, stage in enumerate(stages[at:], at):
            imitation = self.learner.imitate()
            losses = saved.restore(imitation) if begun is not None and number == at else []
            self._imitate(stage, number, saved, imitation, losses)
        self.learner.copy_policy_to_critic()

    def _imitate(
        self,
        stage: _Demonstrations | _Dagger,
        number: int,
        saved: _Unfinished,
        imitation: Imitation,
        losses: list[float],
    ) -> None:
        config, seed = self.config.warm_start, derive_seed(self.config.seed, stage.name)
        tasks = [task.id for task in self.env.panel.subset(min(config.tasks, len(self.env.panel)))]

        def save() -> None:
            # The weights decide what the policy plays. So an interrupted round of DAgger is done again as a whole.
            if isinstance(stage, _Demonstrations) or not losses:
                saved.save(number, imitation, losses)

        if isinstance(stage, _Demonstrations):
            rows, turns = self._demonstrated(stage, tasks, seed)
        else:
            save()
            rows = self._corrected(stage, tasks, seed)
            turns = len(rows)
        if not rows:
            raise UserError(
                f"the expert solved none of the {len(tasks)} demonstrated tasks, so there is nothing to imitate; raise "
                "warm_start.tasks or lower warm_start.perturb"
            )
        steps = max(1, round(turns / config.batch_turns))
        tuning = FineTuning(imitation, steps, stage.config.lr, config.prompt_loss, losses)
        began, done = time.perf_counter(), len(losses)
        if done:
            self.display.note(f"{stage.title}: resuming after {done} of {steps} steps")
        with self.display.bar(stage.title, steps, done) as advance:
            for batch in islice(shuffled_batches(rows, config.batch_turns, seed), done, steps):
                tuning.step(batch)
                advance()
                if self.learner.processes.agree(saved.old):
                    save()
                try:
                    self.check_together()
                except KeyboardInterrupt:
                    save()
                    raise
        save()
        self.display.note(
            f"{stage.title}: {steps * config.batch_turns:,} turns imitated in {steps} steps, of {len(rows):,} turns "
            f"that the expert showed on {len(tasks)} tasks; loss {np.mean(losses[-50:]):.3f}, "
            f"{duration(time.perf_counter() - began)}"
        )

    def _corrected(self, stage: _Dagger, tasks: Sequence[str], seed: int) -> list[Row]:
        """Let the policy play, and return the rows with the expert's answers."""
        processes, sampler = self.learner.processes, self.agent.sampler
        self.learner.publish(sampler, 0)
        own = len(processes.own(tasks))
        with episodes_bar(self.display, f"{stage.title}: episodes", own, self.env.max_turns, self.check) as watch:
            rows = corrected_rows(
                self.env,
                tasks,
                self.agent.at(stage.config.temperature),
                self.prompts,
                self.tokenizer,
                slots=self.config.rollout.slots,
                seed=seed,
                on_turn=watch.turn,
                on_episode=watch.episode,
                processes=processes,
            )
        if isinstance(sampler, RemoteSampler):
            sampler.rest()
        return rows

    def _demonstrated(self, stage: _Demonstrations, tasks: Sequence[str], seed: int) -> tuple[list[Row], float]:
        """Return the rows of a stage's passes and the number of turns to imitate. The last pass may be cut."""
        config = stage.config
        # Every task takes at least one turn, so this many passes are always enough.
        passes = math.ceil(config.epochs if config.turns is None else config.turns / len(tasks))
        enough = math.inf if config.turns is None else config.turns
        rows: list[Row] = []
        own = len(self.learner.processes.own(tasks))
        with self.display.bar("demonstrations", passes * own) as advance:

            def on_task() -> None:
                advance()
                self.check()

            for epoch in range(passes):
                rows += demonstration_rows(
                    self.env,
                    tasks,
                    self.prompts,
                    self.tokenizer,
                    perturb=config.perturb,
                    lapses=stage.lapses,
                    lapses_too=stage.lapses_too,
                    seed=derive_seed(seed, epoch),
                    on_task=on_task,
                    processes=self.learner.processes,
                )
                if len(rows) >= enough:
                    break
        if self.config.warm_start.rename:
            rows = rename(rows, self.tokenizer, self.config.warm_start.rename, derive_seed(seed, "rename"))
        return rows, config.turns or len(rows) * config.epochs / passes


class _Unfinished:
    """The file that stores a warm start's progress."""

    def __init__(self, path: Path, config: Config, learner: Learner, tokenizer: PreTrainedTokenizerBase) -> None:
        self._path, self._learner, self._tokenizer = path, learner, tokenizer
        self._settings = warm_start_settings(config)
        self._saved = time.monotonic()

    def read(self) -> dict[str, Any] | None:
        """Return the notes of an earlier process, or None. Of them, the chat template alone is restored yet.

        Raises:
            UserError: The file cannot be read, or was written under other settings.
        """
        if not self._learner.processes.agree(self._path.exists()):
            return None
        what = f"{self._path}, the progress of a warm start,"
        notes = self._checked(self._learner.imitate().notes)
        before = warm_start_settings(Config()) | notes["settings"]  # an older program knew fewer settings
        if changes := changes_between(before, self._settings):
            raise UserError(
                f"{what} was made with {changes}; use these settings again, or delete the file to start again"
            )
        self._tokenizer.chat_template = notes.get("chat_template", self._tokenizer.chat_template)
        return notes

    def restore(self, imitation: Imitation) -> list[float]:
        """Restore policy and optimizer, and return the losses of the stage so far.

        Raises:
            UserError: The file is damaged.
        """
        return list(self._checked(imitation.load)["losses"])

    def save(self, stage: int, imitation: Imitation, losses: Sequence[float]) -> None:
        """Save the progress, which is the same in every process. The first one writes."""
        with atomic_file(self._path) if self._learner.processes.first else nullcontext() as partial:
            notes = {"settings": self._settings, "stage": stage, "losses": losses}
            # A chat template that writes the day keeps the day on which the warm start began.
            notes["chat_template"] = self._tokenizer.chat_template
            imitation.save(partial, notes)
        self._saved = time.monotonic()

    @property
    def old(self) -> bool:
        """Whether the last save is long ago."""
        return time.monotonic() - self._saved > SECONDS_BETWEEN_SAVES

    def _checked(self, read: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
        try:
            notes = read(self._path)
            if not {"settings", "stage", "losses"} <= notes.keys():
                raise ValueError("it lacks its notes")
        except ValueError as error:
            raise UserError(
                f"{self._path}, the progress of a warm start, is damaged; delete the file to start again"
            ) from error
        return notes
