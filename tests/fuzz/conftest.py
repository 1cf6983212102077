"""The table of what was fuzzed, gathered from all workers; and the quick profile wherever none is asked for."""

from __future__ import annotations

from typing import Any

from hypothesis import settings

from helpers.fuzzing import COUNTS, FULL, table


def pytest_configure(config: Any) -> None:
    """Take the quick profile unless `--hypothesis-profile=full` asks for the other."""
    if settings.get_current_profile_name() != FULL:
        settings.load_profile("quick")


def pytest_sessionfinish(session: Any) -> None:
    """Send a worker's counts to the main process."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["fuzzed"] = [[*key, count] for key, count in COUNTS.items()]


def pytest_testnodedown(node: Any) -> None:
    """Take a worker's counts."""
    for kind, end, count in getattr(node, "workeroutput", {}).get("fuzzed", ()):
        COUNTS[kind, end] += count


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the table."""
    if COUNTS:
        for line in ("", *table()):
            terminalreporter.write_line(line)
