"""The training loop: collect -> score -> assign credit -> update -> log, with evaluations on a schedule."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from hiper.display.console import Advance, Display
from hiper.episode import Episode
from hiper.errors import DivergedError, UnwritableError
from hiper.evaluation.evaluate import evaluate, result_card
from hiper.processes import ALONE, Processes
from hiper.rollout.collector import Timing, collect
from hiper.rollout.groups import Collected, collect_groups
from hiper.rollout.players import Assignment
from hiper.rollout.progress import Watch, episodes_bar
from hiper.rollout.samplers import RemoteSampler
from hiper.rollout.tasks import assignments_of, replacements_for
from hiper.runs import metrics as names
from hiper.runs.folder import Run
from hiper.runs.policies import unfinished_file
from hiper.seeding import derive_seed
from hiper.stopping import Stop, go_on
from hiper.training.ahead import Ahead
from hiper.training.alarms import alarms, as_metrics, newly
from hiper.training.assign import assign_credit, rows_of
from hiper.training.begin import begin
from hiper.training.build import Parts
from hiper.training.checkpoints import advising, save_checkpoint, stored_ahead
from hiper.training.metrics import (
    Clock,
    credit_metrics,
    engine_metrics,
    group_metrics,
    mismatch_metrics,
    plan_memory_metrics,
    rollout_metrics,
    time_metrics,
)
from hiper.training.progress import IterationLines, Pace, evaluation_line
from hiper.training.schedule import checkpoint_due, lr_scales, splits_due, tasks_due

Metrics = dict[str, float]


def train(run: Run, display: Display, processes: Processes = ALONE) -> None:
    """Train to the last iteration, from the beginning or from the newest checkpoint.

    An interrupt ends the run at the next safe point, with a checkpoint. A resumed run ends like an uninterrupted one.

    Args:
        run: The run; a :class:`~hiper.runs.follower.Follower` in all processes but the first.
        display: The display of progress.
        processes: The processes that train together.

    Raises:
        UserError: Another process trains this run, or a setting, the data or a model cannot be used.
        KeyboardInterrupt: The user stopped. The progress has been saved.
    """
    pace = Pace(run.config)
    asked = Stop(display.note, processes.any)
    with run.lock(), asked as stop, advising(run, display), display.whole(pace.words):
        run.set_diverged(None)
        parts, done = begin(run, display, stop, processes)
        try:
            Trainer(run, parts, done, display, stop, pace).train()
        finally:
            parts.close()


class Trainer:
    """The training loop of one run.

    Args:
        run: The run, which stores all results.
        parts: The parts of the run.
        done: The number of iterations done so far.
        display: The display of progress.
        stop: The user's request to stop, checked at safe points.
        pace: The pace of this process, which tells the time to go.
    """

    def __init__(self, run: Run, parts: Parts, done: int, display: Display, stop: Stop, pace: Pace) -> None:
        self.run, self.parts, self.display, self.stop, self._pace = run, parts, display, stop, pace
        self.config, self.processes = run.config, parts.processes
        self.done = self._begun = done
        self._saved, self._saved_at = done, time.monotonic()
        self._ahead = Ahead(self._play_ahead, self.processes, done, stored_ahead(run, done))
        self._weights_whole = True
        """Whether the weights are those of iteration ``done``. False from the start of an update until it is logged."""
        self._lines = IterationLines(run.config.training.iterations, display.console.width)
        for problem in run.problems(done):
            display.note(f"note: {problem}")
        self._log = run.open_log(after=done)
        # Only what alarms look at: a long run has many iterations.
        self._history = deque(run.iteration_metrics(), maxlen=self.config.alarms.patience)

    def train(self) -> None:
        """Train to the last iteration.

        Raises:
            DivergedError: The loss is NaN or infinite.
        """
        try:
            if self.processes.agree(bool(self.run.checkpoints)):
                self.run.prune(self.config.training.keep_checkpoints)  # a process may have been killed before it did
            else:
                self._save()
            if self.processes.first:
                unfinished_file(self.run.warm_start).unlink(missing_ok=True)
            self._evaluate_where_due()
            while self.done < self.config.training.iterations:
                self._pace.begin_iteration(self.done)
                metrics = self._iterate()
                self._finish_iteration(metrics)
                self.stop.check_together()
                self._evaluate_where_due()
        except DivergedError:
            raise
        except (Exception, KeyboardInterrupt) as error:
            # Save the finished iterations whatever the error is. It may be a full disk, so saving may fail too. The
            # parts of sharded weights are out of reach, unless all processes stop together.
            together = isinstance(error, KeyboardInterrupt) or self.processes.count == 1
            within_reach = together or not self.parts.learner.sharded
            whole = self._weights_whole or not self.parts.learner.stepped
            if self._saved < self.done and whole and within_reach:
                with suppress(UnwritableError):
                    self._save()
            raise
        finally:
            self._ahead.close()
            self._log.close()

    def _iterate(self) -> Metrics:
        """Do one iteration, and return its metrics."""
        config, learner = self.config, self.parts.learner
        seed = derive_seed(config.seed, "iteration", self.done)
        collected = self._collect()
        episodes, timing = collected.episodes, collected.timing
        rows = rows_of(episodes, self.parts.critic_prompts)
        clock = Clock({} if self._ahead.took(self.done) else timing.phases())
        self._look_ahead()
        with self._phase(clock, "scoring", len(rows)) as on_rows:
            scores = learner.score(rows, self._scored(on_rows))
        self.stop.check_together()
        with self._phase(clock, "credit"):
            thinking = config.prompt.credits_thinking
            assigned = assign_credit(episodes, scores, config.shaping, config.advantages, thinking=thinking)
        # Before the update, so that an error leaves the weights of a whole iteration.
        with self._phase(clock, "writing"):
            stored = [*assigned.episodes, *collected.replaced]
            self.run.write_episodes(self.run.training_episodes(self.done + 1), stored)
        with self._phase(clock, "update", len(rows) * config.learner.epochs) as on_rows:
            self._weights_whole = False
            # A stop drops this update only where that loses no other iteration; resuming then does it again.
            check = self.stop.check_together if self._saved == self.done else go_on
            update = learner.update(
                assigned.rows,
                seed=derive_seed(seed, "update"),
                lr_scales=lr_scales(config, self.done),
                on_rows=on_rows,
                check=check,
            )
        with self._phase(clock, "publishing"):
            self._ahead.finish()
            learner.publish(self.parts.agent.sampler, self.done + 1)
        # There is no loss where no token has credit, as when no response comes out of its thinking block.
        if not math.isfinite(update.get(names.POLICY_LOSS.name, 0.0)):
            raise DivergedError(f"training diverged in iteration {self.done + 1}: the loss is NaN or infinite")
        trained = sum(map(len, rows)) * config.learner.epochs
        generated = sum(len(turn.response_ids) for episode in collected.played for turn in episode.turns)
        return {
            **rollout_metrics(collected.played, unknown_id=self.parts.tokenizer.unk_token_id),
            **plan_memory_metrics(collected.played, self.parts.critic_prompts or self.parts.prompts),
            **group_metrics(collected, config.rollout.group_size),
            **credit_metrics(assigned),
            **mismatch_metrics(scores),
            **engine_metrics(self.parts.agent.sampler),
            **update,
            **time_metrics(clock.seconds, trained, generated, timing.generation),
        }

    def _look_ahead(self) -> None:
        """Begin to sample the next iteration, if the settings want that. Otherwise let the sampler rest."""
        config, following, sampler = self.config, self.done + 1, self.parts.agent.sampler
        if config.rollout.ahead and following < config.training.iterations:
            self._ahead.start(following, assignments_of(config, self.parts.env.panel, following))
        elif isinstance(sampler, RemoteSampler):
            sampler.rest()

    def _play_ahead(self, share: Sequence[Assignment], check: Callable[[], None]) -> tuple[list[Episode], Timing]:
        """Play this process's share of an iteration, in another thread."""
        slots = -(-self.config.rollout.slots // self.processes.count)
        return collect(self.parts.env, share, self.parts.agent, slots=slots, on_turn=lambda turns: check())

    def _collect(self) -> Collected:
        """Play the episodes of an iteration."""
        config, env, iteration = self.config, self.parts.env, self.done

        def play(assignments: Sequence[Assignment]) -> tuple[list[Episode], Timing]:
            if (ready := self._ahead.take(iteration)) is not None:
                return ready
            with self._episodes_bar("episodes", len(assignments), env.max_turns) as watch:
                return collect(
                    env,
                    assignments,
                    self.parts.agent,
                    slots=config.rollout.slots,
                    on_turn=watch.turn,
                    on_episode=watch.episode,
                    processes=self.processes,
                )

        return collect_groups(
            play,
            assignments_of(config, env.panel, iteration),
            lambda round_number, played: replacements_for(config, env.panel, iteration, round_number, played),
            size=config.rollout.group_size,
            rounds=config.rollout.dynamic_sampling,
        )

    @contextmanager
    def _episodes_bar(self, what: str, episodes: int, max_turns: int) -> Iterator[Watch]:
        """Show a progress bar of this process's episodes, each of whose turns is a safe point."""
        own = len(self.processes.own(range(episodes)))
        with episodes_bar(self.display, what, own, max_turns, self.stop.check) as watch:
            yield watch

    def _scored(self, advance: Advance) -> Callable[[int], None]:
        """Return what to call after each batch of scoring: a safe point, where no other process waits for this one."""

        def on_rows(count: int) -> None:
            advance(count)
            if self.processes.count == 1:
                self.stop.check()

        return on_rows

    @contextmanager
    def _phase(self, clock: Clock, name: str, rows: int | None = None) -> Iterator[Advance]:
        """Time a phase of an iteration, and show its progress."""
        with clock(name), self.display.bar(name, rows) as advance:
            yield advance

    def _finish_iteration(self, metrics: Metrics) -> None:
        """Log an iteration, count it as done, show it, and save a checkpoint if one is due."""
        ringing = alarms([*self._history, metrics], self.config.alarms)
        metrics |= as_metrics(ringing)
        self._log.write(self.done + 1, metrics)
        self.done += 1
        self._weights_whole = True
        self._pace.iterated()
        self.display.note(*self._lines.of(self.done, metrics))
        for alarm in newly(ringing, self._history[-1] if self._history else {}):
            self.display.alarm(str(alarm))
        self._history.append(metrics)
        seconds = time.monotonic() - self._saved_at
        if self.processes.any(self.stop.asked or checkpoint_due(self.config, self.done, seconds)):
            self._save()

    def _save(self) -> None:
        with self.display.bar("saving"):
            save_checkpoint(self.run, self.parts, self.done, self._ahead.held(self.done))
        self._saved, self._saved_at = self.done, time.monotonic()

    def _evaluate_where_due(self) -> None:
        for split in splits_due(self.config, self.done):
            # An earlier process may already have done the evaluation after its last checkpoint.
            stored = self.run.card(self.done, split).exists() and self._log.holds_evaluation(self.done, split)
            if self.done != self._begun or not self.processes.agree(stored):
                self._evaluate(split)

    def _evaluate(self, split: str) -> None:
        """Play a held-out panel, and store the episodes, the metrics and last the card."""
        config, env = self.config.evaluation, self.parts.held_out[split]
        agent = self.parts.agent.at(config.temperature)
        tasks = min(tasks_due(self.config, self.done) or len(env.panel), len(env.panel))
        seed = derive_seed(self.config.seed, "evaluation")
        with self._episodes_bar(f"evaluation on {split}", tasks, env.max_turns) as watch:
            result = evaluate(
                env,
                agent,
                tasks=tasks,
                slots=self.config.rollout.slots,
                seed=seed,
                on_turn=watch.turn,
                on_episode=watch.episode,
                processes=self.processes,
            )
        self._pace.evaluated(split, tasks, len(env.panel), result.seconds)
        self.display.note(evaluation_line(self.done, split, result))
        self.run.write_episodes(self.run.evaluation_episodes(self.done, split), result.episodes)
        by_type = {kind: outcome for kind, outcome in result.outcomes.items() if kind != "all"}
        self._log.write(
            self.done,
            {
                names.EVAL_SUCCESS.of(split): result.overall.success,
                names.EVAL_TURNS.of(split): result.overall.turns,
                names.EVAL_SECONDS.of(split): result.seconds,
                **{names.EVAL_SUCCESS_OF_TYPE.of(split, kind): outcome.success for kind, outcome in by_type.items()},
            },
        )
        card = result_card(
            result,
            env,
            agent,
            checkpoint=f"{self.run.path.name}, iteration {self.done}",
            weights_sha256=self.parts.learner.weights().sha256(),
            seed=seed,
            command=self.display.command,
        )
        self.run.write_card(self.run.card(self.done, split), card)
