"""Metrics: declared once, written line by line, read without half lines."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import pytest

from hiper.config import load_config
from hiper.episode import write_episodes
from hiper.errors import UserError
from hiper.runs import metrics as names
from hiper.runs.folder import Run
from hiper.runs.metrics import METRICS, Metric, alarms_in, metric_of
from hiper.training.progress import COLUMNS


@pytest.fixture
def run(tiny_recipe: Path, tmp_path: Path) -> Run:
    run = Run.create(tmp_path / "run", load_config(tiny_recipe))
    run.save_settings()
    return run


def test_metrics_of_later_iterations_are_dropped(run: Run):
    log = run.open_log(after=0)
    for iteration in (0, 1, 2, 3):
        log.write(iteration, {"policy/kl": iteration / 2})
    log.close()
    log = run.open_log(after=2)
    log.write(3, {"policy/kl": 9.0})
    log.close()
    written = [(record["iteration"], record["policy/kl"]) for record in run.metrics()]
    assert written == [(0, 0.0), (1, 0.5), (2, 1.0), (3, 9.0)]


def test_a_half_written_line_of_metrics_is_left_out(run: Run):
    (run.path / "metrics.jsonl").write_text('{"iteration": 1, "policy/kl": 1.0}\n{"iteration": 2, "policy/kl"')
    assert run.metrics() == [{"iteration": 1, "policy/kl": 1.0}]
    log = run.open_log(after=5)
    log.write(2, {"policy/kl": 2.0})
    log.close()
    assert [record["iteration"] for record in run.metrics()] == [1, 2]


def test_a_damaged_line_of_metrics_is_named_and_the_rest_is_not_thrown_away(run: Run):
    file = run.path / "metrics.jsonl"
    file.write_text('{"iteration": 1}\n{"iterat\n{"iteration": 3}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl:2 is damaged"):
        run.open_log(after=3)
    assert len(file.read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("7", "it is of type int, not a mapping"),
        ("[1]", "it is of type list, not a mapping"),
        ('"text"', "it is of type str, not a mapping"),
        ("null", "it is of type NoneType, not a mapping"),
        ("{}", "it has no number of an iteration"),
        ('{"iteration": "1"}', "it has no number of an iteration"),
        ('{"iteration": true}', "it has no number of an iteration"),
        ('{"iteration": 1.5}', "it has no number of an iteration"),
        ('{"iteration": -1}', "it has no number of an iteration"),
        ('{"iteration": 1, "policy/kl": "much"}', "'policy/kl' is of type str, not a number"),
        ('{"iteration": 1, "policy/kl": null}', "'policy/kl' is of type NoneType, not a number"),
        ('{"iteration": 1, "policy/kl": [1]}', "'policy/kl' is of type list, not a number"),
        ("", "Expecting value"),
        ("[" * 100_000, "nested too deep"),
        ('{"a": ' + "9" * 10_000 + "}", "Exceeds the limit"),
    ],
)
def test_a_line_that_holds_no_metrics_is_named(run: Run, line: str, message: str):
    (run.path / "metrics.jsonl").write_text(f'{{"iteration": 1}}\n{line}\n{{"iteration": 3}}\n')
    with pytest.raises(UserError, match=rf"metrics\.jsonl:2 is damaged \(.*{message}"):
        run.metrics()


def test_a_changed_digit_is_named_and_lines_without_checksums_are_read(run: Run):
    log = run.open_log(after=0)
    for iteration in (1, 2):
        log.write(iteration, {"policy/kl": iteration / 8})
    log.close()
    text = run.metrics_file.read_text()
    run.metrics_file.write_text(text.replace("0.125", "0.126"))
    with pytest.raises(UserError, match=r"metrics\.jsonl:1 is damaged \(it was changed since it was written"):
        run.metrics()
    first, second = text.splitlines()
    bare = json.dumps({"iteration": 2, "policy/kl": 0.25})
    run.metrics_file.write_text(f"{first}\n{bare}\n")
    with pytest.raises(UserError, match=r"metrics\.jsonl:2 is damaged \(it has no checksum, unlike others"):
        run.metrics()
    run.metrics_file.write_text(f"{bare}\n")
    assert run.metrics() == [{"iteration": 2, "policy/kl": 0.25}]
    run.open_log(after=2).close()  # from now on with checksums
    assert run.metrics_file.read_text() == f"{second}\n"


def test_an_evaluation_that_is_done_again_is_written_once(run: Run):
    for value in (0.25, 0.5):
        log = run.open_log(after=2)
        log.write(2, {"success/all": value})
        log.write(2, {"eval/held_out/success": value, "eval/held_out/success/success": 0.0})
        log.write(2, {"eval/other/success": value})
        log.write(2, {"eval/held_out/success": value + 0.1})
        log.close()
    assert run.metrics() == [
        {"iteration": 2, "success/all": 0.5},
        {"iteration": 2, "eval/other/success": 0.5},
        {"iteration": 2, "eval/held_out/success": 0.6},
    ]


def test_what_stored_results_lack_is_told(run: Run):
    lines = [{"iteration": n, "success/all": 0.5} for n in (1, 3, 3, 4)]
    lines += [{"iteration": n, "eval/held_out/success": 0.5} for n in (2, 4, 4)]
    (run.path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for iteration in (1, 2, 4):
        run.training_episodes(iteration).parent.mkdir(exist_ok=True)
        write_episodes(run.training_episodes(iteration), [])
    damaged = run.training_episodes(4)
    damaged.write_bytes(damaged.read_bytes()[:-1])
    run.evaluations_folder.mkdir()
    run.card(0, "held_out").write_text("{")
    file, episodes = re.escape(str(run.metrics_file)), re.escape(str(run.training_episodes(3)))
    told = run.problems(after=4)
    assert re.fullmatch(rf"{file}: the metrics of iteration 2 are missing", told[0])
    assert re.fullmatch(rf"{file}: metrics after iteration 3, 4 are written twice", told[1])
    assert re.fullmatch(rf"{file}: no line of the evaluation after iteration 0 on held_out", told[2])
    assert re.fullmatch(rf"{episodes} is missing, and 2 other files", told[3])  # card and episodes of iteration 2
    assert told[4].startswith(f"{damaged} is damaged (Compressed file ended before")
    assert "is not a readable result card" in told[5]
    assert len(told) == 6
    run.open_log(after=4).close()
    assert len(run.metrics()) == 5
    assert len(run.problems(after=4)) == 5


def test_metrics_go_to_tensorboard(run: Run):
    log = run.open_log(after=0)
    log.write(1, {"policy/kl": 0.5})
    log.close()
    assert any((run.path / "tensorboard").iterdir())


def test_an_undeclared_name_is_refused_before_anything_is_written(run: Run):
    log = run.open_log(after=0)
    with pytest.raises(ValueError, match="metric 'policy/kll' is not declared"):
        log.write(1, {"policy/kl": 0.5, "policy/kll": 0.5})
    log.close()
    assert run.metrics() == []


def test_no_metric_is_declared_twice():
    declared = [metric.name for metric in METRICS]
    assert len(set(declared)) == len(declared) > 40


def test_each_metric_is_explained_in_a_sentence():
    for metric in METRICS:
        assert metric.meaning[0].isupper() or metric.meaning.startswith(("k3", "1 - ")), metric.name
        assert metric.meaning.endswith("."), metric.name


def test_members_of_families():
    assert names.EVAL_SUCCESS_OF_TYPE.of("held_out", "locked") == "eval/held_out/success/locked"
    assert names.PHASE_SHARE.of("update") == "time/update_share"
    with pytest.raises(ValueError, match="has 1 variable parts, not 2"):
        names.REWARD.of("format", "keep")
    with pytest.raises(ValueError, match="has 1 variable parts, not 0"):
        names.REWARD.of()
    with pytest.raises(ValueError, match="has 0 variable parts, not 1"):
        names.SUCCESS.of("all")


@pytest.mark.parametrize(
    ("name", "metric"),
    [
        ("success/all", names.SUCCESS),
        ("success/pick/two", names.SUCCESS_OF_TYPE),
        ("invalid/form", names.INVALID_FORM),
        ("invalid/cut_off", names.INVALID_OF_KIND),
        ("critic/grad_norm", names.CRITIC_GRAD_NORM),
        ("critic/loss_low", names.VALUE_LOSS),
        ("time/iteration", names.ITERATION_SECONDS),
        ("eval/held_out/success", names.EVAL_SUCCESS),
        ("eval/held_out/success/locked", names.EVAL_SUCCESS_OF_TYPE),
    ],
)
def test_a_name_has_one_declaration(name: str, metric: Metric):
    assert metric_of(name) == metric


@pytest.mark.parametrize("name", ["success", "success/", "successes/all", "policy/kl2", "time/_share", "iteration"])
def test_a_name_that_is_almost_declared_is_not(name: str):
    with pytest.raises(ValueError, match="is not declared"):
        metric_of(name)


def test_all_that_training_writes_is_declared_and_so_are_the_columns(tiny_run: Path):
    written = {name for record in Run.open(tiny_run).metrics() for name in record} - {"iteration"}
    assert {metric_of(name) for name in written} >= {names.SUCCESS, names.EVAL_SUCCESS, names.ALARM, names.POLICY_KL}
    assert all(metric_of(name) for _, name, *_ in COLUMNS)


def test_alarms_that_ring():
    assert alarms_in({"alarm/kl": 1.0, "alarm/entropy": 0.0, "policy/kl": 3.0, "iteration": 2}) == ["kl"]


# --- Trackers -------------------------------------------------------------------------------------------------------


class Remembering:
    """A tracker of a user's own, found as ``module:Class``."""

    logged: ClassVar[list[tuple[str, int, dict[str, float]]]] = []
    closed = 0

    def __init__(self, run: Run, after: int) -> None:
        self.name = f"{run.config.name} after {after}"

    def log(self, iteration: int, metrics: Mapping[str, float]) -> None:
        self.logged.append((self.name, iteration, dict(metrics)))

    def close(self) -> None:
        Remembering.closed += 1


def with_trackers(run: Run, *names: str) -> Run:
    training = run.config.training.model_copy(update={"trackers": names})
    return Run(run.path, run.config.model_copy(update={"training": training}))


def test_a_tracker_of_ones_own_gets_all_metrics(run: Run, monkeypatch: pytest.MonkeyPatch):
    module = ModuleType("my_trackers")
    module.Remembering = Remembering  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "my_trackers", module)
    log = with_trackers(run, "my_trackers:Remembering").open_log(after=2)
    log.write(3, {"policy/kl": 0.5})
    log.close()
    assert Remembering.logged == [(f"{run.config.name} after 2", 3, {"policy/kl": 0.5})]
    assert Remembering.closed == 1
    assert not run.tensorboard.exists()
    assert run.metrics() == [{"iteration": 3, "policy/kl": 0.5}]


def test_tensorboard_is_written_unless_told_otherwise(run: Run):
    log = run.open_log(after=0)
    log.write(1, {"policy/kl": 0.5})
    log.close()
    assert list(run.tensorboard.glob("events*"))


def test_an_unknown_tracker_is_refused(run: Run):
    with pytest.raises(UserError, match="there is no tracker 'tensorbord'; did you mean 'tensorboard'"):
        with_trackers(run, "tensorbord").open_log(after=0)
