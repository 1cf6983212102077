"""Trackers: where metrics go beside the run's own file of JSON lines, by the names in ``training.trackers``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from hiper.config import Config
from hiper.files import writing
from hiper.plugins import resolve
from hiper.runs.services import Service

if TYPE_CHECKING:
    from hiper.runs.folder import Run

TRACKERS = {
    "tensorboard": "hiper.runs.trackers:TensorBoard",
    "wandb": "hiper.runs.services:WandB",
    "mlflow": "hiper.runs.services:MLflow",
    "trackio": "hiper.runs.services:Trackio",
}
"""Trackers by name, as the place to import them from. One of the user's own is named ``module:Class``."""


class Tracker(Protocol):
    """Whatever takes metrics. It is called with the run and with the number of iterations done."""

    def log(self, iteration: int, metrics: Mapping[str, float]) -> None:
        """Take the metrics of an iteration, or of the evaluation after it."""

    def close(self) -> None:
        """Write what is left."""


class TensorBoard:
    """Writes event files into the run's folder.

    Args:
        run: the run.
        after: events of later iterations than this are hidden; an interrupted process left them.
    """

    def __init__(self, run: Run, after: int) -> None:
        # It takes a second to import, and readers of runs do without.
        from torch.utils.tensorboard import SummaryWriter

        with writing(run.tensorboard):
            self._writer = SummaryWriter(str(run.tensorboard), purge_step=after + 1)

    def log(self, iteration: int, metrics: Mapping[str, float]) -> None:
        """Add one scalar per metric."""
        with writing(Path(self._writer.log_dir)):
            for name, value in metrics.items():
                self._writer.add_scalar(name, value, iteration)
            self._writer.flush()

    def close(self) -> None:
        """Flush and close the event file."""
        self._writer.close()


def find_trackers(config: Config) -> list[Callable[[Run, int], Tracker]]:
    """Find the trackers that the settings name.

    Raises:
        UserError: there is no such tracker, or its library is missing.
    """
    found = [resolve("tracker", name, TRACKERS) for name in config.training.trackers]
    for made in found:
        if isinstance(made, type) and issubclass(made, Service):
            made.check()
    return found
