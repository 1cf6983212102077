"""Alarms ring when a metric stays beyond its limit, and only then."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from hiper.config import AlarmConfig, load_config
from hiper.display.console import Display
from hiper.runs.folder import Run
from hiper.training.alarms import WATCHES, Alarm, alarms, as_metrics, newly
from hiper.training.trainer import train

HEALTHY = {
    "policy/entropy": 0.3,
    "policy/kl_reference": 0.02,
    "policy/kl": 0.001,
    "mismatch/kl": 1e-3,
    "plan/never_switched": 0.2,
    "plan/switch_rate": 0.4,
    "plan/repeated_actions": 0.1,
    "invalid/form": 0.05,
    "invalid/all": 0.9,
    "group/without_spread": 0.3,
    "critic/explained_variance_low": 0.5,
    "critic/explained_variance_high": 0.4,
    "critic/explained_variance_switch": 0.4,
    "critic/explained_variance_turn": 0.4,
    "critic/explained_variance_token": 0.4,
}
SICK = {
    "entropy": ("policy/entropy", 0.001),
    "kl": ("policy/kl_reference", 3.0),
    "update_kl": ("policy/kl", 0.5),
    "mismatch": ("mismatch/kl", 0.8),
    "never_switched": ("plan/never_switched", 1.0),
    "switch_rate": ("plan/switch_rate", 0.99),
    "repeated_actions": ("plan/repeated_actions", 0.8),
    "invalid": ("invalid/form", 0.9),
    "without_spread": ("group/without_spread", 1.0),
    "value_low": ("critic/explained_variance_low", -2.0),
    "value_high": ("critic/explained_variance_high", -2.0),
    "value_switch": ("critic/explained_variance_switch", -2.0),
    "value_turn": ("critic/explained_variance_turn", -2.0),
    "value_token": ("critic/explained_variance_token", -2.0),
}
LIMITS = AlarmConfig()


def names(history: list[Mapping[str, float]], limits: AlarmConfig = LIMITS) -> list[str]:
    return [alarm.name for alarm in alarms(history, limits)]


def test_a_healthy_run_is_silent():
    assert names([HEALTHY] * 10) == []
    assert names([]) == []


@pytest.mark.parametrize("name", SICK)
def test_each_collapse_rings_its_own_alarm(name: str):
    metric, value = SICK[name]
    assert names([HEALTHY, *[HEALTHY | {metric: value}] * 3]) == [name]


def test_every_watch_is_tried_and_has_a_limit():
    assert set(SICK) == {watch.limit for watch in WATCHES}
    assert set(AlarmConfig.model_fields) == {"patience", *SICK}


def test_it_takes_several_iterations_in_a_row():
    sick = HEALTHY | {"invalid/form": 0.9}
    assert names([HEALTHY, sick, sick]) == []
    assert names([sick, sick, HEALTHY, sick, sick]) == []
    assert names([sick, sick]) == []
    assert names([sick], AlarmConfig(patience=1)) == ["invalid"]


def test_the_limit_itself_is_allowed():
    assert names([HEALTHY | {"invalid/form": 0.5, "policy/entropy": 0.005}] * 3) == []


def test_what_is_not_a_number_rings():
    assert names([HEALTHY | {"policy/entropy": float("nan")}] * 3) == ["entropy"]
    assert names([HEALTHY | {"policy/kl": float("nan")}] * 3) == ["update_kl"]


def test_an_alarm_can_be_switched_off_and_is_silent_without_its_metric():
    sick = HEALTHY | {"invalid/form": 0.9}
    assert names([sick] * 3, AlarmConfig(invalid=None)) == []
    without = {name: value for name, value in HEALTHY.items() if not name.startswith("critic/")}
    assert names([without] * 3) == []


def test_what_is_stored_and_what_is_new():
    ringing = alarms([HEALTHY | {"invalid/form": 0.9}] * 3, LIMITS)
    stored = as_metrics(ringing)
    assert {name for name, value in stored.items() if value} == {"alarm/invalid"}
    assert len(stored) == len(WATCHES)
    assert newly(ringing, {}) == newly(ringing, as_metrics([])) == ringing
    assert newly(ringing, stored) == []
    assert str(ringing[0]).startswith("invalid/form is 0.9, above 0.5 for 3 iterations; responses lose their form")
    assert isinstance(ringing[0], Alarm)


def test_a_run_shows_each_alarm_once_and_stores_it(tiny_recipe: Path, tiny_run: Path, tmp_path: Path):
    """Stopped after the second iteration: what rang before goes on ringing without being said again."""
    screen = StringIO()
    overrides = [f"model.path={tiny_run / 'warm-start'}", "warm_start.tasks=0", "training.iterations=4"]
    config = load_config(tiny_recipe, [*overrides, "evaluation.every=0", "alarms.patience=2", "alarms.entropy=100"])

    class Stopping(Display):
        def note(self, *lines: str) -> None:
            super().note(*lines)
            if lines[-1].lstrip().startswith("3/4  "):
                raise KeyboardInterrupt

    run = Run.create(tmp_path / "run", config)
    make: Callable[[type[Display]], Display] = lambda kind: kind(console=Console(file=screen, width=400))  # noqa: E731
    with pytest.raises(KeyboardInterrupt):
        train(run, make(Stopping))
    train(Run.open(run.path), make(Display))
    rang = {r["iteration"]: r["alarm/entropy"] for r in run.metrics() if "alarm/entropy" in r}
    assert rang == {1: 0.0, 2: 1.0, 3: 1.0, 4: 1.0}
    assert screen.getvalue().count("ALARM  policy/entropy is") == 1
