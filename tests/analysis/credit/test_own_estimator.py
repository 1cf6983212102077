"""An estimator of one's own, in a file beside the project or registered at run time, is used like those that ship."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from hiper.advantages import ESTIMATORS, GRPO, Credit, Estimator, Turns, register_estimator
from hiper.advantages.registry import _registered
from hiper.analysis.credit.report import estimators_for
from hiper.analysis.stored import read_stored
from hiper.config import Config, RolloutConfig, load_config
from hiper.errors import UserError
from hiper.runs.folder import Run

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "estimators.md").read_text(encoding="utf-8")
Hiper = Callable[..., Any]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder with the page's example in it, as the current one and on Python's path."""
    (tmp_path / "my_credit.py").write_text(PAGE.partition("```python\n")[2].partition("```")[0])
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("my_credit", None)


def test_the_example_on_the_page(hiper: Hiper, module: Path, tiny_recipe: Path, tiny_run: Path):
    """Its commands work; the training is made short. Its runs are read like any other."""
    section = PAGE.partition("## Check it, and train with it")[2].partition("\n## ")[0]
    commands = [shlex.split(line)[1:] for line in section.splitlines() if line.startswith("PYTHONPATH=. ")]
    (_, _, check), (_, _, recipe, *settings), (_, *report) = commands
    exec(check)
    assert recipe == "quickstart"
    start = (f"model.path={tiny_run / 'warm-start'}", "warm_start.tasks=0", "evaluation.every=0")
    trained = hiper("train", tiny_recipe, *settings, *start)
    assert trained.code == 0, trained.err
    assert re.search(r"^credit +my_credit:MonteCarlo$", trained.out, re.MULTILINE)

    run = Run.open(module / "runs" / "mine")
    saved = (run.path / "config.yaml").read_text()
    assert "advantages:\n  type: my_credit:MonteCarlo\n  gamma: 0.9\n  whiten: true\n" in saved
    stored = read_stored(run)
    assert stored.turns.value_BT is not None
    assert stored.turns.v_low_BT is None
    assert all("value/turn" in e.credit.series for e in stored.episodes if e.credit is not None)

    shown = hiper(*report)
    assert shown.code == 0, shown.err
    for title in ("MonteCarlo", "turn GAE", "REINFORCE++"):
        assert f" {title} " in shown.out
    assert "HAE is left out: the run's critic has no values for it" in shown.out
    compared = hiper("compare", tiny_run, run.path, "--out", module / "compared")
    assert compared.code == 0, compared.err
    assert "my_credit:MonteCarlo" in compared.out + (module / "compared" / "comparison.md").read_text()


@pytest.mark.usefixtures("module")
def test_its_settings_are_checked_like_any_others(tiny_recipe: Path):
    config = load_config(tiny_recipe, ["advantages={type: my_credit:MonteCarlo, whiten: false}"])
    assert config.advantages.gamma == 0.95  # type: ignore[attr-defined]
    assert Config.model_validate(config.model_dump(mode="json")) == config
    for setting, message in (
        ("gama: 1", "unknown key 'advantages.gama'; did you mean 'advantages.gamma'?"),
        ("gamma: high", r"advantages.gamma: .*number.*'high'"),
        ("lambda_seg: 1", "'my_credit:MonteCarlo' has no 'lambda_seg'"),
    ):
        with pytest.raises(UserError, match=message):
            load_config(tiny_recipe, [f"advantages={{type: my_credit:MonteCarlo, {setting}}}"])


@pytest.mark.usefixtures("module")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my_credit:MonteCarl", r"'my_credit' has no 'MonteCarl'; did you mean 'MonteCarlo'\?"),
        ("my_credit:np", "'my_credit:np' is of type module; a class derived from hiper.advantages.Estimator is needed"),
        ("my_credit:replace", "'my_credit:replace' is a function; a class derived from"),
        ("my_credits:MonteCarlo", r"no module 'my_credits'\. .* set PYTHONPATH=\. before"),
        ("MonteCarlo", "no advantage estimator 'MonteCarlo'; known are hae, turn-gae"),
    ],
)
def test_what_is_no_estimator_is_refused_by_name(tiny_recipe: Path, name: str, message: str):
    with pytest.raises(UserError, match=message):
        load_config(tiny_recipe, [f"advantages.type={name}"])


def test_an_estimator_that_could_not_be_loaded_again_is_refused():
    @dataclass(frozen=True)
    class Local(GRPO):
        pass

    with pytest.raises(ValueError, match="Local"):
        Config(advantages=Local(), rollout=RolloutConfig(group_size=2))


@pytest.fixture
def registered() -> Iterator[type[Estimator]]:
    """An estimator registered at run time, in the registry while a test lasts."""
    before = dict(_registered)

    @register_estimator
    @dataclass(frozen=True)
    class FirstTurn(Estimator):
        """All credit to the first turn."""

        type: ClassVar[str] = "first-turn"
        title: ClassVar[str] = "first turn"
        gamma: float = 1.0

        def __call__(self, turns: Turns) -> Credit:
            return Credit.of_responses(turns, turns.reward_BT.sum(axis=1)[:, None] * np.eye(1, turns.mask_BT.shape[1]))

    yield FirstTurn
    _registered.clear()
    _registered.update(before)


def test_one_that_is_registered_is_everywhere(registered: type[Estimator], tiny_recipe: Path, tiny_run: Path):
    """Its class and its place in the registry are enough. The page has no row for it, which a test would notice."""
    assert ESTIMATORS["first-turn"] is registered
    config = load_config(tiny_recipe, ["advantages={type: first-turn, gamma: 0.5}"])
    assert config.advantages == registered(gamma=0.5)  # type: ignore[call-arg]
    assert config.model_dump()["advantages"] == {"type": "first-turn", "gamma": 0.5}
    with pytest.raises(UserError, match="did you mean 'first-turn'"):
        load_config(tiny_recipe, ["advantages={type: first-trun}"])
    asked = estimators_for(Run.open(tiny_run).config)
    assert asked["first turn"] == registered()
    stored = read_stored(Run.open(tiny_run))
    assert stored.why_not(asked["first turn"]) is None
    asked["first turn"](stored.turns)
    assert documented() != list(ESTIMATORS)


def documented() -> list[str]:
    """The estimators in the table of the page."""
    page = (ROOT / "docs" / "credit.md").read_text(encoding="utf-8")
    table = page.partition("## The estimators")[2].partition("```")[0]
    return re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)[1:]


def test_every_estimator_has_its_row():
    assert documented() == list(ESTIMATORS)


def test_no_other_module_lists_the_estimators():
    """A new estimator needs its module and one line of the registry; what is exported besides is for convenience."""
    source = ROOT / "src" / "hiper"
    allowed = {"advantages/__init__.py", "advantages/registry.py", "advantages/gigpo.py"}
    for name in ("TokenGAE", "GRPO", "RLOO", "GiGPO", "ReinforcePP"):
        own = ESTIMATORS[{"TokenGAE": "token-gae", "ReinforcePP": "reinforce++"}.get(name, name.lower())].__module__
        files = {
            file.relative_to(source).as_posix()
            for file in source.rglob("*.py")
            if re.search(rf"\b{name}[(,|:)\]]|import.*\b{name}\b", file.read_text(encoding="utf-8"))
        }
        assert files <= allowed | {own.removeprefix("hiper.").replace(".", "/") + ".py"}, name
    registry = (source / "advantages" / "registry.py").read_text(encoding="utf-8")
    assert [registry.count(f':{kind.__name__}"') for kind in ESTIMATORS.values()] == [1] * len(ESTIMATORS)
