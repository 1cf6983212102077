"""`python -m hiper.viewer.indexing`: reads files of episodes for an index, and ends with the viewer that started it.

Each line of standard input names a file. A line of standard output answers it with the rows of its episodes.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hiper.config import Config
from hiper.episode import Episode, parse_episode, read_lines
from hiper.errors import UserError, first_line, unreadable
from hiper.runs.folder import read_settings
from hiper.viewer.credit import disputes, lay_out
from hiper.viewer.episodes import DAMAGE
from hiper.viewer.reading import EpisodeFile
from hiper.viewer.tokens import in_json

COLUMNS = (
    "n", "task_id", "task_type", "goal", "seed", "won", "end", "turns", "invalid", "switches", "return", "score",
    "tokens", "apart", "apart_turn",
)  # fmt: skip
"""The columns of a row. ``apart`` says how far estimators differ at turn ``apart_turn``."""
MOST_NOTES = 3
"""The most damaged episodes of a file that are named one by one."""
LONGEST_TEXT = 120
"""The most characters of a text in a row."""


def index_file(config: Config | None, file: EpisodeFile, compare: bool = True) -> dict[str, Any]:
    """Return the rows of a file's episodes, and a note on what cannot be read.

    Args:
        config: The settings of the run. None: they cannot be read.
        file: The file.
        compare: Whether estimators are compared.
    """
    episodes, notes = _read(file)
    apart: dict[int, tuple[float, int]] = {}
    if compare and config is not None and file.split is None and any(episodes):
        try:
            apart, raised = disputes(lay_out(episodes, config, file), config)
            notes += raised
        except Exception as error:  # whatever damaged episodes hold, they are listed
            notes.append(f"estimators cannot be compared: {first_line(error)}")
    rows = [_row(n, episode, apart.get(n, (None, None))) for n, episode in enumerate(episodes) if episode is not None]
    return {"rows": rows, "note": "; ".join(notes) or None}


def _read(file: EpisodeFile) -> tuple[list[Episode | None], list[str]]:
    """Return the episodes of a file, None for a damaged one, and notes on what cannot be read."""
    episodes: list[Episode | None] = []
    damaged: list[str] = []
    notes = []
    try:
        for line in read_lines(file.path):
            try:
                episodes.append(parse_episode(line))
            except DAMAGE as error:
                damaged.append(f"episode {len(episodes)} cannot be read: {unreadable(error)}")
                episodes.append(None)
    except Exception as error:  # readers of damaged archives have errors of many kinds
        notes.append(f"it cannot be read beyond episode {len(episodes)}: {unreadable(error)}")
    more = [f"and {len(damaged) - MOST_NOTES:,} more"] if len(damaged) > MOST_NOTES else []
    return episodes, [*damaged[:MOST_NOTES], *more, *notes]


def _row(number: int, episode: Episode, apart: tuple[float | None, int | None]) -> Sequence[Any]:
    turns = episode.turns
    row = (
        number, episode.task_id[:LONGEST_TEXT], episode.task_type[:LONGEST_TEXT], episode.goal[:LONGEST_TEXT],
        str(episode.seed), int(episode.won), episode.end, len(turns), sum(turn.invalid is not None for turn in turns),
        sum(turn.boundary for turn in turns[1:]), round(episode.total_reward, 4), round(episode.score, 4),
        sum(len(turn.response_ids) for turn in turns), *apart,
    )  # fmt: skip
    assert len(row) == len(COLUMNS)
    return row


def main() -> None:
    """Answer requests until standard input ends."""
    os.nice(10)
    configs: dict[str, Config | None] = {}
    for line in sys.stdin:
        run, path, name, iteration, split, compare = json.loads(line)
        if run not in configs:
            try:
                configs[run] = read_settings(Path(run) / "config.yaml")
            except UserError:
                configs[run] = None
        try:
            answer = index_file(configs[run], EpisodeFile(name, Path(path), iteration, split, (0, 0)), compare)
        except Exception as error:  # whatever a damaged file holds, the next one is read
            answer = {"rows": [], "note": first_line(error)}
        sys.stdout.write(in_json(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
