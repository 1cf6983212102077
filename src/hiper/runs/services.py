"""Trackers that send metrics to a service: Weights & Biases, MLflow, trackio. Each works offline too.

A service is set up by its own environment variables (``WANDB_MODE``, ``MLFLOW_TRACKING_URI``, ``TRACKIO_DIR``). A
service that fails does not end the run, because the run's own file has all metrics. What was not sent is counted.
"""

from __future__ import annotations

import logging
import os
import secrets
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import redirect_stdout
from importlib import import_module
from io import StringIO
from time import time
from typing import TYPE_CHECKING, Any, ClassVar

from hiper.config.load import flatten
from hiper.errors import UserError, first_line
from hiper.files import write_text

if TYPE_CHECKING:
    from hiper.runs.folder import Run

log = logging.getLogger(__name__)

PROJECT = "hiper"
"""The project, or experiment, of all runs, unless a variable of the service names another."""

_SETTINGS_OF_MLFLOW = 6000
"""The longest value of a parameter that MLflow takes."""


class Service(ABC):
    """A tracker that sends metrics to a service.

    A run has one entry there. A resumed run goes on in it; what an interrupted process had sent of later iterations, it
    sends again.

    Args:
        run: the run.
        after: the number of iterations done so far.

    Raises:
        UserError: the library is not installed, or the service refuses a new run.
    """

    package: ClassVar[str]
    """The library."""
    extra: ClassVar[str]
    """The extra of hiper that installs it."""

    def __init__(self, run: Run, after: int) -> None:
        self.check()
        self._lost = 0
        try:
            self._open(run, tracking_id(run))
        except Exception as error:  # each library has errors of its own
            raise UserError(f"training.trackers: {self.package} cannot begin a run: {first_line(error)}") from error

    @classmethod
    def check(cls) -> None:
        """Check that the library is there.

        Raises:
            UserError: It is missing.
        """
        try:
            import_module(cls.package)
        except ImportError as error:
            raise UserError(
                f"training.trackers: the package {cls.package} cannot be imported ({first_line(error)}): "
                f"pip install 'hiper[{cls.extra}]'"
            ) from error

    def log(self, iteration: int, metrics: Mapping[str, float]) -> None:
        """Send metrics."""
        try:
            self._send(iteration, metrics)
        except Exception as error:
            self._lost += 1
            if self._lost == 1:
                log.warning("%s did not take the metrics of iteration %d: %s", self.package, iteration, error)

    def close(self) -> None:
        """End the entry, and tell what was not sent."""
        try:
            self._close()
        except Exception as error:
            log.warning("%s did not end well: %s", self.package, error)
        if self._lost:
            log.warning("%s did not take %d lines of metrics; metrics.jsonl has them", self.package, self._lost)

    @abstractmethod
    def _open(self, run: Run, identity: str) -> None:
        """Begin or continue the entry of a run."""

    @abstractmethod
    def _send(self, iteration: int, metrics: Mapping[str, float]) -> None:
        """Send the metrics of an iteration."""

    @abstractmethod
    def _close(self) -> None:
        """Send what is left."""


class WandB(Service):
    """Weights & Biases. ``WANDB_MODE=offline`` writes into the run's folder, for ``wandb sync`` later."""

    package = extra = "wandb"

    def _open(self, run: Run, identity: str) -> None:
        import wandb

        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=run.path.name,
            id=identity,
            dir=run.path,
            config=run.config.model_dump(mode="json"),
            resume="allow",
            settings=wandb.Settings(console="off", silent=True),
        )
        # The service's own steps only grow, and an evaluation has the iteration of the metrics before it.
        self._run.define_metric("iteration")
        self._run.define_metric("*", step_metric="iteration")

    def _send(self, iteration: int, metrics: Mapping[str, float]) -> None:
        self._run.log({"iteration": iteration, **metrics})

    def _close(self) -> None:
        self._run.finish()


class MLflow(Service):
    """MLflow. ``MLFLOW_TRACKING_URI`` names a server or a database, such as ``sqlite:///mlflow.db``."""

    package = extra = "mlflow"

    def _open(self, run: Run, identity: str) -> None:
        from mlflow import MlflowClient
        from mlflow.entities import Param

        self._client: Any = MlflowClient()
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        experiment = self._client.get_experiment_by_name(name)
        number = experiment.experiment_id if experiment else self._client.create_experiment(name)
        known = self._client.search_runs([number], f"tags.`hiper.run` = '{identity}'")
        if known:
            self._run = known[0].info.run_id
            self._client.update_run(self._run, status="RUNNING")
            return
        self._run = self._client.create_run(number, run_name=run.path.name, tags={"hiper.run": identity}).info.run_id
        settings = flatten(run.config.model_dump(mode="json"))
        params = [Param(key, str(value)[:_SETTINGS_OF_MLFLOW]) for key, value in settings]
        for start in range(0, len(params), 100):  # it takes a hundred at a time
            self._client.log_batch(self._run, params=params[start : start + 100])

    def _send(self, iteration: int, metrics: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(time() * 1000)
        self._client.log_batch(self._run, [Metric(name, value, now, iteration) for name, value in metrics.items()])

    def _close(self) -> None:
        self._client.set_terminated(self._run)


class Trackio(Service):
    """trackio. It keeps its tables in ``TRACKIO_DIR``; ``trackio show`` draws them."""

    package = extra = "trackio"

    def _open(self, run: Run, identity: str) -> None:
        import trackio

        with redirect_stdout(StringIO()):  # the terminal shows the run's own progress
            self._run: Any = trackio.init(
                project=os.environ.get("TRACKIO_PROJECT", PROJECT),
                name=f"{run.path.name}-{identity[:6]}",
                config=dict(flatten(run.config.model_dump(mode="json"))),
                resume="allow",
                embed=False,
                auto_log_cpu=False,
                auto_log_gpu=False,
            )

    def _send(self, iteration: int, metrics: Mapping[str, float]) -> None:
        self._run.log(dict(metrics), step=iteration)

    def _close(self) -> None:
        with redirect_stdout(StringIO()):
            self._run.finish()


def tracking_id(run: Run) -> str:
    """Return the identity of a run at services. It is drawn once, and lies in the run's folder."""
    file = run.path / "tracking-id"
    if not file.exists():
        write_text(file, secrets.token_hex(8))
    return file.read_text(encoding="utf-8").strip()
