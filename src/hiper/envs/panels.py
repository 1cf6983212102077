"""Panels: frozen, ordered lists of tasks with a content hash. Results with equal hashes are comparable."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property

from hiper.errors import UserError


@dataclass(frozen=True, slots=True)
class Task:
    """One task of a panel."""

    id: str
    """A stable and unique id. It is the same on every machine and for every data folder."""
    type: str
    """The type of the task. Results are reported per type."""
    digest: str = ""
    """The hash of the task's content, if it is read from data. Changed data then change the panel's hash."""


@dataclass(frozen=True)
class Panel:
    """An ordered list of tasks. Build it with :meth:`of`, which sorts by id and refuses duplicates."""

    name: str
    tasks: tuple[Task, ...]

    @classmethod
    def of(cls, name: str, tasks: Iterable[Task]) -> Panel:
        """Make a panel of ``tasks`` in the order of their ids.

        Raises:
            UserError: there are no tasks, or two share an id.
        """
        ordered = tuple(sorted(tasks, key=lambda task: task.id))
        if not ordered:
            raise UserError(f"panel '{name}' has no tasks")
        twice = [task_id for task_id, n in Counter(task.id for task in ordered).items() if n > 1]
        if twice:
            raise UserError(f"panel '{name}' has two tasks with the id '{twice[0]}'")
        return cls(name, ordered)

    @cached_property
    def hash(self) -> str:
        """SHA-256 over ids, types and content digests, in order."""
        lines = "".join(f"{task.id}\t{task.type}\t{task.digest}\n" for task in self.tasks)
        return hashlib.sha256(lines.encode()).hexdigest()

    @cached_property
    def _by_id(self) -> dict[str, Task]:
        return {task.id: task for task in self.tasks}

    def __len__(self) -> int:
        return len(self.tasks)

    def __iter__(self) -> Iterator[Task]:
        return iter(self.tasks)

    def __getitem__(self, task_id: str) -> Task:
        """Return the task with this id.

        Raises:
            UserError: there is no such task. The message names the nearest id.
        """
        try:
            return self._by_id[task_id]
        except KeyError:
            near = get_close_matches(task_id, self._by_id, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else f"; the first is '{self.tasks[0].id}'"
            raise UserError(f"no task '{task_id}' in panel '{self.name}' ({len(self)} tasks){hint}") from None

    def subset(self, count: int, name: str | None = None) -> Panel:
        """Return ``count`` tasks in panel order, chosen by the hash of their ids, without regard to type or place.

        The choice depends on the ids alone. Every subset contains all smaller ones.
        """
        if not 0 < count <= len(self):
            raise UserError(f"panel '{self.name}' has {len(self)} tasks; {count} were asked for")
        ranked = sorted(self.tasks, key=lambda task: hashlib.sha256(task.id.encode()).digest())
        return Panel.of(name or f"{self.name}[{count}]", ranked[:count])

    def types(self) -> Sequence[str]:
        """Return the task types of the panel, sorted."""
        return sorted({task.type for task in self.tasks})
