"""`check_estimator` passes what ships, and names each fault of an estimator that breaks the contract."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import pytest

from hiper.advantages import (
    ESTIMATORS,
    GRPO,
    HAE,
    Credit,
    Critic,
    Estimator,
    GiGPO,
    TokenGAE,
    TurnGAE,
    Turns,
    check_estimator,
    find_estimator,
    register_estimator,
)
from hiper.advantages.registry import _registered
from hiper.errors import UserError

SHIPPED = [
    *(kind() for kind in ESTIMATORS.values()),
    HAE(normalize=True, switch_form="value-gap"),
    HAE(switch_form="none", lambda_boundary=0.5),
    HAE(time_scales="one"),
    TurnGAE(bootstrap_truncated=True),
    TokenGAE(0.9, 0.5, bootstrap_truncated=True),
    GRPO(statistics="episodes"),
    GiGPO(similarity=0.5),
]


@pytest.mark.parametrize("estimator", SHIPPED, ids=repr)
def test_what_ships_passes(estimator: Estimator) -> None:
    check_estimator(estimator)


@dataclass(frozen=True)
class ReturnToGo(Estimator):
    """The plainest estimator: what its base class says of it is enough."""

    def __call__(self, turns: Turns) -> Credit:
        togo_BT = np.flip(np.cumsum(np.flip(turns.reward_BT, 1), 1), 1)
        return Credit.of_responses(turns, np.where(turns.mask_BT, togo_BT, 0.0))


def test_an_estimator_says_as_little_as_it_may() -> None:
    check_estimator(ReturnToGo())
    assert (ReturnToGo.type, ReturnToGo.title) == (f"{__name__}:ReturnToGo", "ReturnToGo")
    assert (ReturnToGo.critic, ReturnToGo.grouped, ReturnToGo().heads) == ("none", False, ())
    assert ReturnToGo().unscaled() == ReturnToGo()
    assert ReturnToGo().forms() == {"ReturnToGo": ReturnToGo()}


def test_a_subclass_is_another_estimator() -> None:
    @dataclass(frozen=True)
    class Mine(HAE):
        pass

    assert Mine.type != "hae"
    assert Mine.type.endswith("Mine")


def of_turns(turns: Turns, **changes: Any) -> Credit:
    zeros = np.zeros(turns.mask_BT.shape)
    return replace(Credit.of_responses(turns, zeros), **changes)


class Faults:
    """Estimators with one fault each."""

    @dataclass(frozen=True)
    class ReadsMoreValues(Estimator):
        def __call__(self, turns: Turns) -> Credit:
            return TurnGAE()(turns)

    @dataclass(frozen=True)
    class ReadsGroups(Estimator):
        def __call__(self, turns: Turns) -> Credit:
            return GRPO()(turns)

    @dataclass(frozen=True)
    class Careless(Estimator):
        critic: ClassVar[Critic] = "token"

        def __call__(self, turns: Turns) -> Credit:
            return TurnGAE()(replace(turns, value_BT=turns.v_low_BT))

    @dataclass(frozen=True)
    class NoCredit(Estimator):
        def __call__(self, turns: Turns) -> Credit:
            return turns.reward_BT  # type: ignore[return-value]

    @dataclass(frozen=True)
    class Transposed(Estimator):
        def __call__(self, turns: Turns) -> Credit:
            return of_turns(turns, switch_BT=turns.reward_BT.T)

    @dataclass(frozen=True)
    class NotFinite(Estimator):
        def __call__(self, turns: Turns) -> Credit:
            with np.errstate(divide="ignore", invalid="ignore"):
                return of_turns(turns, low_BT=turns.reward_BT / np.zeros_like(turns.reward_BT))

    @dataclass(frozen=True)
    class BeyondTheEnd(Estimator):
        def __call__(self, turns: Turns) -> Credit:
            return of_turns(turns, low_BT=turns.reward_BT + 1.0)

    @dataclass(frozen=True)
    class BeyondBoundaries(Estimator):
        def __call__(self, turns: Turns) -> Credit:
            return of_turns(turns, high_BT=turns.reward_BT)

    @dataclass(frozen=True)
    class Integers(Estimator):
        def __call__(self, turns: Turns) -> Credit:
            return of_turns(turns, low_BT=turns.mask_BT.astype(np.int64))

    @dataclass(frozen=True)
    class Random(Estimator):
        def __call__(self, turns: Turns) -> Credit:
            return of_turns(turns, low_BT=np.where(turns.mask_BT, np.random.default_rng().random(), 0.0))

    @dataclass(frozen=True)
    class InPlace(Estimator):
        def __call__(self, turns: Turns) -> Credit:
            turns.reward_BT[:] *= 2.0
            return of_turns(turns)

    @dataclass(frozen=True)
    class WithoutTarget(Estimator):
        critic: ClassVar[Critic] = "turn"

        def __call__(self, turns: Turns) -> Credit:
            return of_turns(turns)

    @dataclass(frozen=True)
    class TargetOfNone(Estimator):
        def __call__(self, turns: Turns) -> Credit:
            return of_turns(turns, return_BT=turns.reward_BT)

    @dataclass(frozen=True)
    class TokensAndDecisions(Estimator):
        def __call__(self, turns: Turns) -> Credit:
            return of_turns(turns, undivided=False, token_BK=np.zeros(turns.token_mask_BK.shape))

    @dataclass(frozen=True)
    class OtherForm(Estimator):
        def __call__(self, turns: Turns) -> Credit:
            return of_turns(turns)

        def forms(self) -> Mapping[str, Self]:
            return {"GAE": TurnGAE()}  # type: ignore[dict-item]

    @dataclass(frozen=True)
    class EverSmaller(Estimator):
        scale: float = 1.0

        def __call__(self, turns: Turns) -> Credit:
            return of_turns(turns)

        def unscaled(self) -> Self:
            return replace(self, scale=self.scale / 2)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ReadsMoreValues", r"fails on turns .*\(values: none; groups: no\): .* needs Turns\.value_BT"),
        ("ReadsGroups", r"fails on turns .*\(values: none; groups: no\): GRPO needs Turns\.group_B"),
        ("Careless", r"fails on turns .*\(values: token; groups: no\): .* needs Turns\.value_BT"),
        ("NoCredit", "it must return Credit, it returned ndarray"),
        ("Transposed", r"Credit\.switch_BT has shape \(6, 12\), the turns have \(12, 6\)"),
        ("NotFinite", r"Credit\.low_BT holds NaN or infinity"),
        ("BeyondTheEnd", r"Credit\.low_BT must be zero outside its mask"),
        ("BeyondBoundaries", r"Credit\.high_BT must be zero outside its mask"),
        ("Integers", r"Credit\.low_BT must hold float64, it holds int64"),
        ("Random", r"the same turns must give the same credit, but Credit\.low_BT differed"),
        ("InPlace", r"it must leave its input alone, but changed Turns\.reward_BT"),
        ("WithoutTarget", r"its head 'turn' needs a target, Credit\.return_BT"),
        ("TargetOfNone", r"it gives Credit\.return_BT, but does not ask for 'turn'"),
        ("TokensAndDecisions", r"token_BK replaces the decisions' advantages: set undivided=True"),
        ("OtherForm", r"unscaled\(\) and forms\(\) must give estimators of its class"),
        ("EverSmaller", r"unscaled\(\) of an unscaled estimator must be the same"),
    ],
)
def test_each_fault_is_named(name: str, message: str) -> None:
    with pytest.raises(UserError, match=f"^estimator '{name}'.*{message}"):
        check_estimator(getattr(Faults, name)())


def test_every_fault_is_tried() -> None:
    tried = {mark.args[1][n][0] for mark in test_each_fault_is_named.pytestmark for n in range(len(mark.args[1]))}  # type: ignore[attr-defined]
    assert tried == {name for name in vars(Faults) if not name.startswith("_")}


class Classes:
    """Classes that are no estimators, or not yet."""

    class Unrelated:
        pass

    class NoDataclass(ReturnToGo):
        pass

    @dataclass(frozen=True)
    class NoFormula(Estimator):
        pass

    @dataclass(frozen=True)
    class UnknownCritic(ReturnToGo):
        critic: ClassVar[Critic] = "state"  # type: ignore[assignment]

    @dataclass(frozen=True)
    class NoDefault(ReturnToGo):
        gamma: float

    @dataclass(frozen=True)
    class TakesType(ReturnToGo):
        type: str = "mine"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "Unrelated",
            "'.*:Classes.Unrelated' is a class of another kind; a class derived from hiper.advantages.Estima",
        ),
        ("NoDataclass", r"'NoDataclass' must be a frozen dataclass: put @dataclass\(frozen=True\)"),
        ("NoFormula", "'NoFormula' does not define __call__"),
        ("UnknownCritic", "'UnknownCritic' has critic 'state'; it must be one of decisions, turn, token, none"),
        ("NoDefault", "'NoDefault': the parameter 'gamma' needs a default"),
        ("TakesType", "'TakesType' has a parameter 'type', which settings use"),
    ],
)
def test_a_class_that_is_no_estimator_is_refused(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        find_estimator(f"{__name__}:Classes.{name}")
    with pytest.raises(UserError, match=f"'{name}'"):
        register_estimator(getattr(Classes, name))


def test_a_function_is_no_estimator() -> None:
    with pytest.raises(UserError, match=r"'os\.path:join' is a function; a class derived from"):
        find_estimator("os.path:join")


@pytest.fixture
def registry() -> Iterator[None]:
    """Leave the registry as it was."""
    before = dict(_registered)
    yield
    _registered.clear()
    _registered.update(before)


@pytest.mark.usefixtures("registry")
def test_registering() -> None:
    assert register_estimator(ReturnToGo) is ReturnToGo
    assert ESTIMATORS[ReturnToGo.type] is find_estimator(ReturnToGo.type) is ReturnToGo
    register_estimator(ReturnToGo)  # the same again is no conflict

    @dataclass(frozen=True)
    class Other(ReturnToGo):
        type: ClassVar[str] = "hae"

    with pytest.raises(UserError, match="already registered as 'hae'; choose another name"):
        register_estimator(Other)
