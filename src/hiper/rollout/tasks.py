"""The assignments of an iteration: shuffled passes over a panel, in groups, and replacement groups."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from itertools import count, islice

from hiper.config import Config
from hiper.envs.panels import Panel, Task
from hiper.rollout.players import Assignment
from hiper.seeding import derive_seed


def assignments_of(config: Config, panel: Panel, iteration: int) -> list[Assignment]:
    """Assign the episodes of an iteration, from shuffled passes over the panel.

    Each task is played ``group_size`` times from the same start, because a group shares the environment's seed.
    """
    tasks = panel.tasks
    groups = config.rollout.episodes // config.rollout.group_size
    passed, at = divmod(iteration * groups, len(tasks))
    chosen = islice(_passes(config.seed, tasks, passed), at, at + groups)
    return _grouped(chosen, config, iteration)


def replacements_for(
    config: Config, panel: Panel, iteration: int, round_number: int, played: Sequence[Assignment]
) -> list[Assignment]:
    """Assign groups of the tasks that an iteration has not played yet, in a new random order.

    Args:
        config: The settings.
        panel: The tasks.
        iteration: The iteration, counted from 0.
        round_number: The round of replacement, counted from 1.
        played: The assignments of the iteration so far.
    """
    known = {assignment.task_id for assignment in played}
    tasks = [task for task in panel if task.id not in known]
    random.Random(derive_seed(config.seed, "replacements", iteration, round_number)).shuffle(tasks)
    return _grouped(tasks, config, iteration, round_number)


def _grouped(tasks: Iterable[Task], config: Config, *of: int) -> list[Assignment]:
    """Assign ``group_size`` episodes to each task. Each episode has its own sampling seed."""
    seed, size = config.seed, config.rollout.group_size
    return [
        Assignment(task.id, derive_seed(seed, "episode", *of, group), derive_seed(seed, "sampling", *of, group, member))
        for group, task in enumerate(tasks)
        for member in range(size)
    ]


def _passes(seed: int, tasks: Sequence[Task], first: int) -> Iterator[Task]:
    """Yield endless passes over ``tasks`` from pass ``first`` on, each in its own order."""
    for number in count(first):
        yield from random.Random(derive_seed(seed, "tasks", number)).sample(tasks, len(tasks))
