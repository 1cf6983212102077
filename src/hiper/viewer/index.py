"""The index of a run's episodes: one short row each, made in the background by a process of low priority.

Every file is read twice: first for its rows, then to compare what estimators make of it, which takes longer. So the
list of episodes is complete early.

The index is kept in the cache folder of the user (``~/.cache/hiper/viewer``), never in the run. A file of episodes is
read again when it changes.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hiper.files import atomic_file
from hiper.viewer.indexing import COLUMNS, index_file
from hiper.viewer.reading import EpisodeFile, RunReader
from hiper.viewer.tokens import in_json

INDEX_VERSION = 3
SAVE_EVERY = 50
"""The number of files between two writes of the cache."""


def cache_folder() -> Path:
    """The folder in which indexes are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "hiper" / "viewer"


@dataclass
class Entry:
    """The rows of one file, as JSON."""

    name: str
    stamp: tuple[int, int]
    answer: str
    """A JSON object with ``rows`` and ``note``."""
    compared: bool
    """Whether estimators were compared."""
    sequence: int = 0


class Index:
    """The index of one run.

    Args:
        run: The run.
        worker: The process that reads files.
    """

    def __init__(self, run: RunReader, worker: Worker) -> None:
        self._run, self._worker = run, worker
        self._entries: dict[str, Entry] = {}
        self._sequence = 0
        self._unsaved = 0
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._cache = cache_folder() / f"{hashlib.sha256(str(run.path.resolve()).encode()).hexdigest()[:32]}.jsonl"
        self._load()

    def answer(self, after: int) -> str:
        """Return the rows of files indexed since the answer with this sequence number, as JSON, and what is left to do.

        Files that are not indexed yet are begun, the newest first.
        """
        files = self._run.episode_files()
        stale, plain = self._left(files)
        if files and len(stale) == len(files):
            # The newest episodes are wanted at once, and the process of low priority may have to wait.
            newest = next((f for f in reversed(files) if f.split is None), files[-1])
            with self._lock:
                self._add(Entry(newest.name, newest.stamp, in_json(index_file(None, newest, compare=False)), False))
            stale, plain = self._left(files)
        if stale or plain:
            self._begin()
        with self._lock:
            known = {file.name: file for file in files}
            entries = [e for e in self._entries.values() if e.name in known and e.sequence > after]
            parts = ",".join(
                f'{{"name":{json.dumps(e.name)},"iteration":{known[e.name].iteration},'
                f'"split":{json.dumps(known[e.name].split)},{e.answer[1:]}'
                for e in entries
            )
            head = {"columns": COLUMNS, "sequence": self._sequence, "done": len(files) - len(stale), "of": len(files)}
            head["compared"] = len(files) - len(stale) - len(plain)
        return f'{json.dumps(head)[:-1]},"files":[{parts}]}}'

    def _begin(self) -> None:
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._work, daemon=True)
                self._thread.start()

    def _work(self) -> None:
        while True:
            stale, plain = self._left(self._run.episode_files())
            if not (stale or plain):
                break
            file = (stale or plain)[-1]
            answer = self._worker.read(self._run.path, file, compare=not stale)
            with self._lock:
                self._add(Entry(file.name, file.stamp, answer, not stale))
            self._unsaved += 1
            if self._unsaved >= SAVE_EVERY:
                self._save()
        if self._unsaved:
            self._save()

    def _left(self, files: Sequence[EpisodeFile]) -> tuple[list[EpisodeFile], list[EpisodeFile]]:
        """Return the files without rows, and those whose estimators are not compared yet."""
        stale, plain = [], []
        for file in files:
            entry = self._entries.get(file.name)
            if entry is None or entry.stamp != file.stamp:
                stale.append(file)
            elif not entry.compared and file.split is None:
                plain.append(file)
        return stale, plain

    def _add(self, entry: Entry) -> None:
        self._sequence += 1
        entry.sequence = self._sequence
        self._entries[entry.name] = entry

    def _load(self) -> None:
        """Read the cache, as far as it can be read."""
        with suppress(OSError, ValueError, KeyError, TypeError), self._cache.open(encoding="utf-8") as file:
            if json.loads(next(file, "null")) != [INDEX_VERSION, *COLUMNS]:
                return
            for line in file:
                head, _, answer = line.rstrip("\n").partition("\t")
                name, changed, size, compared = json.loads(head)
                if answer.startswith("{") and answer.endswith("}"):
                    self._add(Entry(name, (changed, size), answer, bool(compared)))

    def _save(self) -> None:
        """Write the cache. Where that is not possible, the next viewer indexes anew."""
        self._unsaved = 0
        with self._lock:
            entries = list(self._entries.values())
        with suppress(Exception):
            self._cache.parent.mkdir(parents=True, exist_ok=True)
            with atomic_file(self._cache) as partial, partial.open("w", encoding="utf-8") as file:
                file.write(json.dumps([INDEX_VERSION, *COLUMNS]) + "\n")
                for e in entries:
                    file.write(f"{json.dumps([e.name, *e.stamp, e.compared])}\t{e.answer}\n")


class Worker:
    """A process that reads files of episodes (:mod:`hiper.viewer.indexing`). It ends with this one."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()

    def start(self) -> None:
        """Start the process, so that it has imported what it needs when it is asked."""
        with self._lock, suppress(OSError):
            self._started()

    def read(self, run: Path, file: EpisodeFile, compare: bool) -> str:
        """Return the rows of a file as JSON.

        Args:
            run: The folder of the run.
            file: The file.
            compare: Whether estimators are compared.
        """
        with self._lock:
            for _ in range(2):  # a process that a damaged file ended is started once more
                try:
                    process = self._started()
                    assert process.stdin is not None
                    assert process.stdout is not None
                    asked: Sequence[Any] = (str(run), str(file.path), file.name, file.iteration, file.split, compare)
                    process.stdin.write(json.dumps(asked) + "\n")
                    process.stdin.flush()
                    if answer := process.stdout.readline().rstrip("\n"):
                        return answer
                except (OSError, ValueError):
                    pass
                self.close()
            return '{"rows":[],"note":"it cannot be read: the process that read it ended"}'

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "hiper.viewer.indexing"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                encoding="utf-8",
                start_new_session=True,
            )
        return self._process

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
