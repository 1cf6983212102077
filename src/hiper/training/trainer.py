"""The training loop: collect -> score -> assign credit -> update -> log, and evaluate now and then."""

from __future__ import annotations

import copy
import math
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count, islice
from pathlib import Path

from hiper.config import Config
from hiper.display.console import Display
from hiper.envs.panels import Panel, Task
from hiper.episode import Episode, write_episodes
from hiper.errors import DivergedError, UnwritableError, UserError
from hiper.evaluation.evaluate import evaluate, result_card
from hiper.files import alone_at, whole_folder
from hiper.imitation.warm_start import kept_of, unfinished_of, warm_start
from hiper.models.build import load_policy
from hiper.rollout.collector import Assignment, Timing, collect
from hiper.rollout.groups import Collected, collect_groups
from hiper.runs.folder import Run, checkpoint_policy
from hiper.runs.metrics import (
    EVAL_SECONDS,
    EVAL_SUCCESS,
    EVAL_SUCCESS_OF_TYPE,
    EVAL_TURNS,
    POLICY_LOSS,
    MetricsLog,
)
from hiper.seeding import derive_seed
from hiper.training.alarms import alarms, as_metrics, newly
from hiper.training.assign import assign_credit, rows_of
from hiper.training.build import Assembly, assemble, save_policy
from hiper.training.checkpoints import load_checkpoint, save_checkpoint
from hiper.training.metrics import credit_metrics, group_metrics, mismatch_metrics, rollout_metrics, time_metrics
from hiper.training.recovery import Stop

Metrics = dict[str, float]


def train(run: Run, display: Display) -> None:
    """Run to the last iteration, from the beginning or from the newest checkpoint.

    An interrupt ends it at the next safe point, with a checkpoint; continuing gives what an uninterrupted run gives.

    Raises:
        UserError: another process is at it already, or what it is made of is not usable.
    """
    with alone_at(run.path), Stop(display) as stop, _advising(run, display):
        run.set_diverged(None)
        _train(run, display, stop)


@contextmanager
def _advising(run: Run, display: Display) -> Iterator[None]:
    """Whatever ends a run early, say what is kept and how to go on."""
    resume = f"hiper train --resume {run.path}"
    try:
        yield
    except DivergedError as error:
        # Resuming would only do the same again.
        kept = f" and model.path={run.warm_start} warm_start.tasks=0, which saves the warm start"
        anew = "begin a new run with a lower learner.lr" + (kept if run.warm_start.exists() else "")
        told = f"{error}: {anew}"
        if run.begun:
            run.set_diverged(told)
        raise UserError(told) from error
    except UnwritableError as error:
        if not run.begun:
            raise
        raise UserError(f"{error}; {_kept(run)}. Make room, then continue with: {resume}") from error
    except KeyboardInterrupt:
        display.interrupted(_kept(run), resume)
        raise
    except UserError as error:
        if not run.checkpoints:
            raise
        mended = f"once this is mended ({run.settings_file} may be edited)"
        raise UserError(f"{error}\n{_kept(run)}; {mended}: {resume}") from error


def _kept(run: Run) -> str:
    """What is there to go on from, in words."""
    return f"saved up to {run.checkpoints[-1].name}" if run.checkpoints else kept_of(run.warm_start)


def _train(run: Run, display: Display, stop: Stop) -> None:
    config = run.config
    parts, begun = _begin(run, display, stop)
    done, saved, last = begun, begun, config.training.iterations
    log = run.open_log(after=done)
    history = run.iteration_metrics()
    try:
        while True:
            for split in due(config, done):
                # An earlier process may have come as far as the evaluation that follows its last checkpoint.
                if done != begun or not run.card(done, split).exists():
                    _evaluate(run, parts, done, split, display, log, stop)
            if done >= last:
                return
            metrics = _iterate(run, parts, done, display, stop)
            ringing = alarms([*history, metrics], config.alarms)
            metrics |= as_metrics(ringing)
            log.write(done + 1, metrics)
            done += 1
            stop.weights_whole = True
            display.iteration(done, last, metrics)
            for alarm in newly(ringing, history[-1] if history else {}):
                display.alarm(str(alarm))
            history.append(metrics)
            if done == last or stop.asked or done % config.training.checkpoint_every == 0:
                _save(run, parts, done)
                saved = done
            stop.check()
    except DivergedError:
        raise
    except (Exception, KeyboardInterrupt):
        # Whatever it was, what was learned before it is kept; and the disk may be the trouble.
        if saved < done and stop.weights_whole:
            with suppress(UnwritableError):
                _save(run, parts, done)
        raise
    finally:
        log.close()


def due(config: Config, done: int) -> tuple[str, ...]:
    """The splits to be evaluated after ``done`` iterations."""
    evaluation = config.evaluation
    always = done in (0, config.training.iterations)
    return evaluation.splits if always or (evaluation.every and done % evaluation.every == 0) else ()


def _iterate(run: Run, parts: Assembly, done: int, display: Display, stop: Stop) -> Metrics:
    """One iteration, ``done`` having been completed before it."""
    config, learner = run.config, parts.learner
    seed = derive_seed(config.seed, "iteration", done)
    collected = _collect(parts, done, display, stop)
    episodes, timing = collected.episodes, collected.timing
    rows = rows_of(episodes)
    clock = Clock({"environment": timing.environment, "generation": timing.generation, "prompts": timing.prompts})
    with clock("scoring"):
        scores = learner.score(rows)
    with clock("credit"):
        assigned = assign_credit(episodes, scores, config.shaping, config.advantages)
    with clock("writing"):  # before the update, as a disk may be full, and what was learned so far can be saved now
        write_episodes(run.training_episodes(done + 1), [*assigned.episodes, *collected.replaced])
    with clock("update"):
        stop.weights_whole = False
        update = learner.update(assigned.rows, seed=derive_seed(seed, "update"), lr_scales=lr_scales(config, done))
    if not math.isfinite(update[POLICY_LOSS.name]):
        raise DivergedError(f"training diverged in iteration {done + 1}, its loss is no number")
    trained = sum(map(len, rows)) * config.learner.epochs
    generated = sum(len(turn.response_ids) for episode in collected.played for turn in episode.turns)
    return {
        **rollout_metrics(collected.played, unknown_id=parts.tokenizer.unk_token_id),
        **group_metrics(collected, config.rollout.group_size),
        **credit_metrics(assigned),
        **mismatch_metrics(episodes, scores),
        **update,
        **time_metrics(clock.seconds, trained, generated),
    }


def _collect(parts: Assembly, done: int, display: Display, stop: Stop) -> Collected:
    """Play the episodes of an iteration."""
    config, panel, agent = parts.config, parts.env.panel, parts.agent()

    def play(assignments: Sequence[Assignment]) -> tuple[list[Episode], Timing]:
        with _episodes_bar(display, stop, "episodes", len(assignments)) as on_episode:
            return collect(
                parts.env,
                assignments,
                agent,
                slots=config.rollout.slots,
                on_episode=on_episode,
            )

    return collect_groups(
        play,
        assignments_of(config, panel, done),
        lambda round_number, played: replacements_for(config, panel, done, round_number, played),
        size=config.rollout.group_size,
        rounds=config.rollout.dynamic_sampling,
    )


@contextmanager
def _episodes_bar(display: Display, stop: Stop, what: str, total: int) -> Iterator[Callable[[Episode], None]]:
    """A bar that is told of each episode; a wish to stop is heeded there."""
    with display.bar(what, total) as advance:

        def on_episode(_: Episode) -> None:
            advance()
            stop.check()

        yield on_episode


def assignments_of(config: Config, panel: Panel, iteration: int) -> list[Assignment]:
    """The episodes of an iteration: tasks in shuffled passes over the panel.

    Each task is played ``group_size`` times from the same beginning: a group has the environment's seed in common.
    """
    tasks = panel.tasks
    size = config.rollout.group_size
    groups = config.rollout.episodes // size
    passed, at = divmod(iteration * groups, len(tasks))
    chosen = islice(_passes(config.seed, tasks, passed), at, at + groups)
    return _groups(chosen, size, config.seed, iteration)


def replacements_for(
    config: Config, panel: Panel, iteration: int, round_number: int, played: Sequence[Assignment]
) -> list[Assignment]:
    """Groups of the tasks that this iteration has not played yet, in an order of their own."""
    known = {assignment.task_id for assignment in played}
    tasks = [task for task in panel if task.id not in known]
    random.Random(derive_seed(config.seed, "replacements", iteration, round_number)).shuffle(tasks)
    return _groups(tasks, config.rollout.group_size, config.seed, iteration, round_number)


def _groups(tasks: Iterable[Task], size: int, seed: int, *of: int) -> list[Assignment]:
    """``size`` episodes of each task, the environment's seed in common, each with a sampling seed of its own."""
    return [
        Assignment(task.id, derive_seed(seed, "episode", *of, group), derive_seed(seed, "sampling", *of, group, member))
        for group, task in enumerate(tasks)
        for member in range(size)
    ]


def _passes(seed: int, tasks: Sequence[Task], first: int) -> Iterator[Task]:
    """Passes over ``tasks`` for ever, each in an order of its own, from pass ``first`` on."""
    for number in count(first):
        yield from random.Random(derive_seed(seed, "tasks", number)).sample(tasks, len(tasks))


def lr_scales(config: Config, iteration: int) -> tuple[float, float]:
    """The schedule of policy and critic: the critic alone first, a linear rise of the policy's rate, a linear fall."""
    learner, total = config.learner, config.training.iterations
    fall = 1.0 - (1.0 - learner.final_lr_fraction) * iteration / max(1, total - 1)
    begun = iteration + 1 - learner.critic_warmup_iterations
    rise = min(1.0, max(0, begun) / (learner.warmup_iterations + 1))
    return rise * fall, fall


class Clock:
    """Seconds by phase."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self.seconds = seconds

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Time a phase."""
        began = time.perf_counter()
        yield
        self.seconds[phase] = self.seconds.get(phase, 0.0) + time.perf_counter() - began


def _begin(run: Run, display: Display, stop: Stop) -> tuple[Assembly, int]:
    """Build the parts; warm-start them, or restore the newest checkpoint. Returns them and the iterations done."""
    config, warm = run.config, run.warm_start
    if run.checkpoints:
        newest = run.checkpoints[-1]
        display.note(f"continuing from {newest}")
        parts = assemble(config, checkpoint_policy(newest))
        _hold_reference(parts, run)
        return parts, load_checkpoint(run, newest, parts.learner)
    parts = assemble(config)
    run.save_settings()  # now that they are known to be usable
    display.header(run.path, parts)
    if 0 < config.training.iterations <= (alone := config.learner.critic_warmup_iterations):
        display.note(f"the policy will not learn: learner.critic_warmup_iterations ({alone}) takes every iteration")
    if config.warm_start.tasks:
        warm_start(parts, warm, display, stop.check)
    elif config.model.path is None:
        with whole_folder(warm) as folder:
            save_policy(folder, parts)
    _hold_reference(parts, None)
    _save(run, parts, 0)
    unfinished_of(warm).unlink(missing_ok=True)
    return parts, 0


def _reference(run: Run) -> Path | str:
    """Where the policy lies that a run under way began from.

    Raises:
        UserError: it is gone.
    """
    config, warm = run.config, run.warm_start
    if warm.exists():
        return warm
    if config.model.path is None or config.warm_start.tasks:
        raise UserError(f"{warm} is gone, the policy that learner.kl_coef holds on to; bring it back")
    if (path := Path(config.model.path)).is_absolute() and not path.exists():
        raise UserError(
            f"{path} is gone, the policy that learner.kl_coef holds on to; bring it back, or say where it lies now in "
            f"{run.settings_file}, model.path"
        )
    return config.model.path


def _hold_reference(parts: Assembly, begun: Run | None) -> None:
    """Freeze the policy that the KL term holds on to: the one that a run under way began from, or the current one;
    without a KL term, none."""
    if parts.config.learner.kl_coef == 0:
        return
    policy = parts.learner.model.policy
    frozen = copy.deepcopy(policy) if begun is None else load_policy(_reference(begun), parts.config.model)
    parts.learner.hold_on_to(frozen.to(parts.learner.device))  # type: ignore[arg-type]


def _save(run: Run, parts: Assembly, done: int) -> None:
    save_checkpoint(run, done, parts, run.config.training.keep_checkpoints)


def _evaluate(run: Run, parts: Assembly, done: int, split: str, display: Display, log: MetricsLog, stop: Stop) -> None:
    """Play a held-out panel; store the episodes and, last of all, the card."""
    config, env = run.config, parts.held_out[split]
    agent = parts.agent(config.evaluation.temperature)
    ends = (0, config.training.iterations)
    tasks = config.evaluation.final_tasks if done in ends else config.evaluation.tasks
    seed = derive_seed(config.seed, "evaluation")
    total = min(tasks or len(env.panel), len(env.panel))
    with _episodes_bar(display, stop, f"evaluation on {split}", total) as on_episode:
        result = evaluate(env, agent, tasks=tasks, slots=config.rollout.slots, seed=seed, on_episode=on_episode)
    display.evaluation(done, split, result)
    write_episodes(run.evaluation_episodes(done, split), result.episodes)
    log.write(
        done,
        {
            EVAL_SUCCESS.of(split): result.overall.success,
            EVAL_TURNS.of(split): result.overall.turns,
            EVAL_SECONDS.of(split): result.seconds,
            **{
                EVAL_SUCCESS_OF_TYPE.of(split, kind): outcome.success
                for kind, outcome in result.outcomes.items()
                if kind != "all"
            },
        },
    )
    checkpoint = f"{run.path.name}, iteration {done}"
    card = result_card(result, env, agent, checkpoint=checkpoint, seed=seed, command=display.command)
    card.write(run.card(done, split))
