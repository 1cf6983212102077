"""The command: ``python tools/parity PATHS``. Its exit code is 1 if anything differs."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)  # so that this folder is the package "parity"

from hiper.errors import UserError  # noqa: E402
from parity.check import MAX_TURNS, check_parity  # noqa: E402
from parity.games import read_chores, read_games  # noqa: E402


def main() -> int:
    """Play the games that the arguments name and print a summary."""
    parser = argparse.ArgumentParser(prog="python tools/parity", description="Play games beside TextWorld and compare.")
    parser.add_argument("paths", nargs="+", type=Path, help="game files, folders of games, tar archives")
    parser.add_argument("--games", type=int, help="how many, drawn with the seed (default: all)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--chores", type=int, default=1, help="join so many games of --split into one (one path)")
    parser.add_argument("--split", default="train", help="with --chores: the split (default: train)")
    parser.add_argument("--turns", type=int, help=f"turns of a game (default: {MAX_TURNS} for each chore)")
    parser.add_argument("--workers", type=int, default=1, help="games played at a time")
    parser.add_argument("--record", type=Path, help="JSONL file of finished games, to stop and resume")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    try:
        report = check_parity(
            read_games(options.paths, options.games, options.seed)
            if options.chores == 1
            else read_chores(options.paths[0], options.split, options.chores, options.games, options.seed),
            seed=options.seed,
            max_turns=options.turns or MAX_TURNS * options.chores,
            record=options.record,
            workers=options.workers,
        )
    except UserError as error:
        parser.exit(2, f"{error}\n")
    sys.stdout.write(report.summary() + "\n")
    return 1 if report.differences else 0


if __name__ == "__main__":
    sys.exit(main())
