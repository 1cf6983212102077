"""Warm starts: their stages, and what an interrupted one is worth."""

from __future__ import annotations

import errno
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from hiper.config import Config, apply_overrides, load_config
from hiper.display.console import Advance, Display
from hiper.errors import UserError
from hiper.imitation import warm_start as module
from hiper.imitation.fine_tuning import FineTuning, demonstration_rows
from hiper.rows import Row
from hiper.runs.policies import unfinished_file
from hiper.training.begin import clone
from hiper.training.build import build

STAGES = [
    "warm_start.tasks=6",
    "warm_start.epochs=1.5",
    "warm_start.perturb=0.3",
    "warm_start.batch_turns=4",
    "warm_start.lapses=[stray,slip]",
    "warm_start.imperfect.epochs=0.5",
    "warm_start.imperfect.perturb=0.9",
    "warm_start.imperfect.lr=0.002",
    "warm_start.imperfect.lapses=[stray]",
]


class Watch(Display):
    """Counts what bars are told, and acts at a moment: (name of a bar, so many units, of all bars of the name)."""

    def __init__(self, at: tuple[str, int] | None = None, act: Callable[[], None] = lambda: None) -> None:
        super().__init__("hiper sft tiny", Console(file=StringIO(), width=200))
        self._at, self._act = at, act
        self.units: Counter[str] = Counter()

    @contextmanager
    def bar(self, label: str, total: int | None = None, done: int = 0) -> Iterator[Advance]:
        def advance(units: int = 1, words: str | None = None) -> None:
            self.units[label] += units
            if self._at == (label, self.units[label]):
                self._act()

        yield advance
        assert total is None or self.units[label] <= total or label == "demonstrations"

    @property
    def said(self) -> str:
        assert isinstance(self.console.file, StringIO)
        return self.console.file.getvalue()


def press_ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def assert_same(one: Path, other: Path) -> None:
    """Bit for bit."""
    ours, theirs = weights(one), weights(other)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.fixture
def config(tiny_recipe: Path) -> Config:
    return Config.model_validate(apply_overrides(load_config(tiny_recipe).model_dump(), STAGES))


@pytest.fixture
def whole(config: Config, tmp_path: Path) -> tuple[Path, Counter[str]]:
    """What was never interrupted, and the steps it took."""
    display = Watch()
    clone(config, tmp_path / "whole", display)
    return tmp_path / "whole", display.units


@pytest.fixture
def demonstrated(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[Row], bool, Sequence[str]]]:
    """Of each pass its rows, whether lapses are among them, and their kinds."""
    passes: list[tuple[list[Row], bool, Sequence[str]]] = []

    def remember_rows(*args: Any, **kwargs: Any) -> list[Row]:
        passes.append((demonstration_rows(*args, **kwargs), kwargs["lapses_too"], kwargs["lapses"]))
        return passes[-1][0]

    monkeypatch.setattr(module, "demonstration_rows", remember_rows)
    return passes


def test_lapses_are_imitated_in_a_last_stage_of_its_own(
    config: Config,
    demonstrated: list[tuple[list[Row], bool, Sequence[str]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    tuned: list[tuple[int, float, list[Row]]] = []

    class Remembered(FineTuning):
        def __init__(self, imitation: Any, steps: int, lr: float, prompt_loss: float, losses: list[float]) -> None:
            super().__init__(imitation, steps, lr, prompt_loss, losses)
            tuned.append((steps, lr, []))

        def step(self, rows: Sequence[Row]) -> None:
            super().step(rows)
            tuned[-1][2].extend(rows)

    monkeypatch.setattr(module, "FineTuning", Remembered)
    clone(config, tmp_path / "policy", Watch())
    (a, *first), (b, *second), (c, *third) = demonstrated
    assert first == second == [False, ("stray", "slip")]
    assert third == [True, ("stray",)]
    steps = [max(1, round(turns / 4)) for turns in (len([*a, *b]) * 1.5 / 2, len(c) * 0.5)]
    assert [(n, lr, len(rows)) for n, lr, rows in tuned] == [
        (steps[0], config.warm_start.lr, 4 * steps[0]),
        (steps[1], 0.002, 4 * steps[1]),
    ]
    assert set(tuned[0][2]) <= {*a, *b}
    assert set(tuned[1][2]) <= {*c}


def test_turns_say_how_much_is_imitated_whatever_passes_it_takes(
    config: Config, demonstrated: list[tuple[list[Row], bool, Sequence[str]]], tmp_path: Path
):
    turns = Config.model_validate(
        apply_overrides(config.model_dump(), ["warm_start.turns=100", "warm_start.imperfect={turns: 10}"])
    )
    display = Watch()
    clone(turns, tmp_path / "policy", display)
    assert (display.units["warm start"], display.units["warm start with lapses"]) == (100 // 4, round(10 / 4))
    *first, last = [rows for rows, *_ in demonstrated]
    assert sum(map(len, first)) >= 100 > sum(map(len, first[:-1]))
    assert len(first) > config.warm_start.epochs
    assert len(last) >= 10
    assert first[0] != first[1]  # each pass is played anew


MOMENTS = {
    "in the first stage": ("warm start", 3),
    "at its end": ("warm start", None),
    "before the second": ("demonstrations", 18),
    "in the second": ("warm start with lapses", 1),
    "at the very end": ("warm start with lapses", None),
}


@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)
def test_an_interrupted_one_is_gone_on_with(
    config: Config, whole: tuple[Path, Counter[str]], moment: tuple[str, int | None], tmp_path: Path
):
    uninterrupted, steps = whole
    what, units = moment[0], moment[1] or steps[moment[0]]
    folder = tmp_path / "policy"
    stopped, on = Watch((what, units), press_ctrl_c), Watch()
    with pytest.raises(KeyboardInterrupt):
        clone(config, folder, stopped)
    assert "the warm start's progress is saved. Continue with:\n  hiper sft tiny\n" in stopped.said
    assert unfinished_file(folder).exists()
    assert not folder.exists()

    clone(config, folder, on)
    for stage in ("warm start", "warm start with lapses"):
        assert stopped.units[stage] + on.units[stage] == steps[stage]
    assert "resuming after" in on.said
    assert_same(folder, uninterrupted)
    assert sorted(path.name for path in tmp_path.iterdir() if "recipe" not in path.name) == ["policy", "whole"]


ROUNDS = [
    "warm_start.tasks=6",
    "warm_start.epochs=1",
    "warm_start.batch_turns=4",
    "warm_start.dagger.rounds=2",
    "warm_start.imperfect.epochs=0.5",
]
ROUND_TITLES = ["DAgger, round 1 of 2", "DAgger, round 2 of 2"]


def test_rounds_of_dagger_come_between_and_are_done_whole_or_again(tiny_recipe: Path, tmp_path: Path):
    config = load_config(tiny_recipe, ROUNDS)
    display = Watch()
    clone(config, tmp_path / "whole", display)
    turns = build(config).env.max_turns
    assert list(display.units) == [
        "demonstrations",
        "warm start",
        f"{ROUND_TITLES[0]}: episodes",
        ROUND_TITLES[0],
        f"{ROUND_TITLES[1]}: episodes",
        ROUND_TITLES[1],
        "warm start with lapses",
    ]
    for title in ROUND_TITLES:
        assert display.units[f"{title}: episodes"] == 6 * turns
        assert f"{title}: {4 * display.units[title]:,} turns imitated" in display.said

    interrupted = [
        (f"{ROUND_TITLES[0]}: episodes", 3),
        (ROUND_TITLES[0], 1),
        (f"{ROUND_TITLES[1]}: episodes", 1),
        (ROUND_TITLES[1], display.units[ROUND_TITLES[1]]),
    ]
    for moment in interrupted:
        with pytest.raises(KeyboardInterrupt):
            clone(config, tmp_path / "policy", stopped := Watch(moment, press_ctrl_c))
        assert "the warm start's progress is saved" in stopped.said
        assert ("warm start" in stopped.units) == (moment is interrupted[0])
    clone(config, tmp_path / "policy", on := Watch())
    assert ROUND_TITLES[0] not in on.units
    assert on.units[ROUND_TITLES[1]] == display.units[ROUND_TITLES[1]]
    assert_same(tmp_path / "policy", tmp_path / "whole")


def test_changed_progress_is_noticed_or_of_no_concern(config: Config, tmp_path: Path):
    """One bit is changed at places all over the file, weights and optimizer among them."""
    with pytest.raises(KeyboardInterrupt):
        clone(config, tmp_path / "policy", Watch(("warm start", 3), press_ctrl_c))
    file, learner = unfinished_file(tmp_path / "policy"), build(config).learner
    before, noticed = learner.imitate(), 0
    whole, content = before.load(file), file.read_bytes()
    weights = {name: tensor.clone() for name, tensor in learner.weights().model.state_dict().items()}
    for at in range(7, len(content), len(content) // 100):
        file.write_bytes(content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :])
        try:
            assert learner.imitate().load(file) == whole
        except ValueError:
            noticed += 1
        else:
            assert all(torch.equal(t, weights[name]) for name, t in learner.weights().model.state_dict().items())
    assert noticed > 80


def test_a_killed_one_goes_on_from_where_it_was_last_saved(
    config: Config, whole: tuple[Path, Counter[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    class PowerCut(BaseException):
        pass

    def cut() -> None:
        raise PowerCut

    monkeypatch.setattr(module, "SECONDS_BETWEEN_SAVES", 0.0)
    with pytest.raises(PowerCut):
        clone(config, tmp_path / "policy", Watch(("warm start", 4), cut))
    on = Watch()
    later = apply_overrides(config.model_dump(), ["training.iterations=5", "learner.clip=0.3", "name=other"])
    clone(Config.model_validate(later), tmp_path / "policy", on)  # what comes after has no part in it
    assert on.units["warm start"] == whole[1]["warm start"] - 3
    assert_same(tmp_path / "policy", whole[0])


def test_before_the_first_step_nothing_is_kept(config: Config, tmp_path: Path):
    stopped = Watch(("demonstrations", 1), press_ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        clone(config, tmp_path / "policy", stopped)
    assert "nothing was done yet. Continue with" in stopped.said
    assert not unfinished_file(tmp_path / "policy").exists()


def test_what_was_done_under_other_settings_or_is_damaged_is_refused(config: Config, tmp_path: Path):
    folder = tmp_path / "policy"
    with pytest.raises(KeyboardInterrupt):
        clone(config, folder, Watch(("warm start", 2), press_ctrl_c))
    other = Config.model_validate(apply_overrides(config.model_dump(), ["seed=5", "warm_start.lr=0.5"]))
    begun = (
        rf"policy\.unfinished.* with seed=0 and not 5, warm_start\.lr={config.warm_start.lr} and not 0\.5; use these"
    )
    with pytest.raises(UserError, match=begun):
        clone(other, folder, Watch())
    unfinished_file(folder).write_bytes(unfinished_file(folder).read_bytes()[:5000])
    with pytest.raises(UserError, match=r"policy\.unfinished.*is damaged; delete the file"):
        clone(config, folder, Watch())


def test_a_full_disk_is_said(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(
        UserError, match=r"cannot write .*policy\.unfinished: No space.*Free some space, then give the same"
    ):
        clone(config, tmp_path / "policy", Watch())
