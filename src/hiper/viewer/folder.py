"""The folder that a viewer shows: which runs lie in it, and which files may be read.

Nothing outside the folder is ever opened. A path is followed through all its links before it is compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hiper.errors import UserError, shortened

DEEPEST = 6
"""The most folders between the folder shown and a run."""
MOST_FOLDERS = 20_000
"""The most folders that are searched for runs."""
PARTS_OF_A_RUN = ("config.yaml", "metrics.jsonl", "episodes")
"""A folder that holds one of them is a run, even if the others are lost."""


class NotFoundError(UserError):
    """There is no such run, file or episode."""


@dataclass(frozen=True)
class Folder:
    """A folder with runs, or a run itself."""

    root: Path

    def inside(self, path: Path) -> Path:
        """Return a path if it leads to a place inside the folder, also after all links are followed.

        Raises:
            NotFoundError: It leads out of the folder.
        """
        if not self.holds(path):
            raise NotFoundError(f"'{path.name}' lies outside the folder that is shown")
        return path

    def holds(self, path: Path) -> bool:
        """Whether a path leads to a place inside the folder."""
        try:
            return path.resolve().is_relative_to(self.root.resolve())
        except (OSError, RuntimeError):  # links that lead in a ring, a name that is too long
            return False

    def run_path(self, run: str) -> Path:
        """Return the folder of a run by its id.

        The id is the path relative to the folder shown. Where this folder is a run itself, the id is its name.

        Raises:
            NotFoundError: There is no such run.
        """
        path = self.root if self.is_run and run == self.name else self.root / run
        # A run has one id alone: another way to write its path is no id.
        odd = "\0" in run or Path(run).is_absolute() or ".." in Path(run).parts or Path(run).as_posix() != run
        if odd or not self.holds(path) or not is_run(path):
            raise NotFoundError(f"there is no run '{shortened(run)}' in the folder that is shown")
        return path

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.root.absolute().name or str(self.root)

    @property
    def is_run(self) -> bool:
        """Whether the folder is a run itself."""
        return is_run(self.root)

    def runs(self) -> list[str]:
        """Return the ids of all runs, in order."""
        if self.is_run:
            return [self.name]
        return sorted(self._search(self.root, DEEPEST, [0]))

    def _search(self, folder: Path, deeper: int, searched: list[int]) -> Iterator[str]:
        searched[0] += 1
        if is_run(folder):
            yield folder.relative_to(self.root).as_posix()
            return
        if deeper == 0 or searched[0] > MOST_FOLDERS:
            return
        try:
            below = sorted(path for path in folder.iterdir() if path.name[0] != ".")
        except OSError:
            return
        for path in below:
            if _yes(path.is_dir) and self.holds(path):
                yield from self._search(path, deeper - 1, searched)


def is_run(path: Path) -> bool:
    """Whether a folder is a run, or what is left of one. A policy's folder is none."""
    return not _yes((path / "hiper.yaml").exists) and any(_yes((path / name).exists) for name in PARTS_OF_A_RUN)


def _yes(question: Callable[[], bool]) -> bool:
    """Ask about a path. What may not be read, or is a link in a ring, is not there."""
    try:
        return question()
    except OSError:
        return False
