"""Trackers that send metrics to a service, with the real libraries in their local modes."""

from __future__ import annotations

import logging
import sqlite3
import sys
import time
from pathlib import Path

import pytest

from hiper.config import load_config
from hiper.errors import UserError
from hiper.runs.folder import Run
from hiper.runs.services import MLflow, WandB, tracking_id
from hiper.runs.trackers import find_trackers


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Make a run with a tracker, all of whose services write below a folder of the test."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))

    def make(tracker: str) -> Run:
        return Run.create(tmp_path / "run", load_config("quickstart", [f"training.trackers=[{tracker}]"]))

    return make


def write(run: Run, after: int, *lines: tuple[int, dict[str, float]]) -> None:
    log = run.open_log(after=after)
    for iteration, metrics in lines:
        log.write(iteration, metrics)
    log.close()


def twice(run: Run) -> None:
    """Two iterations, the second of which is evaluated by a later process."""
    write(run, 0, (1, {"success/all": 0.25, "policy/kl": 0.5}), (2, {"success/all": 0.5}))
    write(run, 2, (2, {"eval/test/success": 0.75}), (3, {"success/all": 1.0}))


def test_mlflow_holds_every_metric_under_one_run(run, tmp_path: Path):
    pytest.importorskip("mlflow")
    from mlflow import MlflowClient

    twice(made := run("mlflow"))
    client = MlflowClient()
    experiment = client.get_experiment_by_name("hiper")
    assert experiment is not None
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.run_name == "run"
    assert found.info.status == "FINISHED"
    assert found.data.params["learner.lr"] == str(made.config.learner.lr)
    history = client.get_metric_history(found.info.run_id, "success/all")
    assert [(metric.step, metric.value) for metric in history] == [(1, 0.25), (2, 0.5), (3, 1.0)]
    assert [metric.step for metric in client.get_metric_history(found.info.run_id, "eval/test/success")] == [2]


def test_trackio_holds_every_metric_under_one_run(run, tmp_path: Path):
    pytest.importorskip("trackio")
    twice(run("trackio"))
    with sqlite3.connect(tmp_path / "trackio" / "hiper.db") as tables:
        rows = tables.execute("select run_name, step, metrics from metrics order by step, id").fetchall()
    assert len({name for name, *_ in rows}) == 1
    assert [step for _, step, _ in rows] == [1, 2, 2, 3]
    assert "0.75" in str(rows[2][2])


def test_wandb_writes_offline_under_one_identity(run):
    pytest.importorskip("wandb")
    twice(made := run("wandb"))
    deadline = time.monotonic() + 30  # the library writes in a process of its own
    while sum(b"success" in file.read_bytes() for file in made.path.glob("wandb/offline-run-*/*.wandb")) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    files = list(made.path.glob("wandb/offline-run-*/*.wandb"))
    assert [file.stem for file in files] == [f"run-{tracking_id(made)}"] * 2
    assert sum(b"eval/test/success" in file.read_bytes() for file in files) == 1


def test_an_identity_is_kept(run):
    made = run("tensorboard")
    assert tracking_id(made) == tracking_id(made)
    assert len(tracking_id(made)) == 16


def test_a_service_that_fails_does_not_end_the_run(
    run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    pytest.importorskip("mlflow")

    def refuse(self: MLflow, iteration: int, metrics: dict[str, float]) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr(MLflow, "_send", refuse)
    with caplog.at_level(logging.WARNING):
        write(made := run("mlflow"), 0, (1, {"success/all": 0.25}), (2, {"success/all": 0.5}))
    assert [record.getMessage() for record in caplog.records if record.name.startswith("hiper")] == [
        "mlflow did not take the metrics of iteration 1: no route",
        "mlflow did not take 2 lines of metrics; metrics.jsonl has them",
    ]
    assert len(made.metrics()) == 2


def test_a_service_that_cannot_begin_is_named(run, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nonsense://host")
    with pytest.raises(UserError, match=r"training\.trackers: mlflow cannot begin a run: .*nonsense"):
        run("mlflow").open_log(after=0)


def test_a_missing_library_is_told_before_training(run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"the package wandb cannot be imported .*: pip install 'hiper\[wandb\]'"):
        find_trackers(run("wandb").config)
    with pytest.raises(UserError, match="wandb"):
        WandB.check()
