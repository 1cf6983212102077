"""Compare the speed of the vectorised estimators with their definitions, computed one episode at a time.

    python benchmarks/advantages.py

Both sides process the same 128 episodes x 50 turns in one thread. Each gets its input in the form it works on. Their
results are compared before they are timed. The definitions lie with the tests, which use them too.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from hiper.advantages import GRPO, HAE, RLOO, Credit, Estimator, GiGPO, ReinforcePP, TokenGAE, TurnGAE, Turns

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from helpers.slow_estimators import (
    episodes_of,
    random_turns,
    slow_credit,
    slow_episode,
    slow_episodes,
    slow_gae,
    slow_gigpo,
    slow_grpo,
    slow_reinforce_pp,
    slow_rloo,
    slow_token_gae,
)

EPISODES, TURNS, GROUP, TOKENS, ROOMS = 128, 50, 8, 15, 12
REQUIRED_RATIO = 50.0
"""The least speed-up of both forms of HAE, on full episodes."""


def seconds(work: Callable[[], object]) -> float:
    """Return the wall time of one call in seconds."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> int:
    """Print one line per estimator and kind of batch. Return 1 if HAE is too slow on full episodes."""
    warm_up_allocator()
    batches = {
        "full episodes": batch(np.random.default_rng(0), full_length=True),
        # Half of the turns are padding. The vectorised side computes padding like any other turn.
        "ragged episodes": batch(np.random.default_rng(1), full_length=False),
    }
    print(f"{EPISODES} episodes x {TURNS} turns of {TOKENS} tokens, groups of {GROUP}, one thread")
    print(f"{'estimator':<26}{'batch':<18}{'slow ms':>9}{'ours ms':>9}{'ratio':>8}")
    forms = {
        "HAE, termination-value": HAE(gamma=0.99, lambda_turn=0.9),
        "HAE, value-gap": HAE(gamma=0.99, lambda_turn=0.9, switch_form="value-gap"),
    }
    lowest = np.inf
    for (name, hae), (kind, turns) in itertools.product(forms.items(), batches.items()):
        ratio = line(name, kind, *compare_hae(hae, turns))
        lowest = min(lowest, ratio) if kind == "full episodes" else lowest
    for (name, (estimator, slow)), (kind, turns) in itertools.product(baselines().items(), batches.items()):
        line(name, kind, *compare(estimator, slow, turns))
    print(f"HAE, lowest on full episodes: {lowest:.0f}x (required: {REQUIRED_RATIO:.0f}x)")
    return 0 if lowest >= REQUIRED_RATIO else 1


def line(name: str, kind: str, slow_ms: float, our_ms: float) -> float:
    """Print one line, and return the ratio of the times."""
    print(f"{name:<26}{kind:<18}{slow_ms:>9.2f}{our_ms:>9.3f}{slow_ms / our_ms:>7.0f}x")
    return slow_ms / our_ms


def baselines() -> dict[str, tuple[Estimator, Callable[..., list[list[float]]]]]:
    """Return each estimator without a hierarchy, with its definition as a function of all episodes."""
    return {
        "turn-level GAE": (TurnGAE(0.99, 0.9, normalize=False), lambda es: [slow_gae(e, 0.99, 0.9, False) for e in es]),
        "token-level GAE": (
            TokenGAE(0.99, 0.9, normalize=False),
            lambda es: [slow_token_gae(e, 0.99, 0.9, False) for e in es],
        ),
        "GRPO": (GRPO(), lambda es: slow_grpo(es, True, True)),
        "RLOO": (RLOO(), lambda es: slow_rloo(es, True)),
        "GiGPO": (GiGPO(), lambda es: slow_gigpo(es, 0.95, 1.0, True, None)),
        "GiGPO, similar anchors": (GiGPO(similarity=0.9), lambda es: slow_gigpo(es, 0.95, 1.0, True, 0.9)),
        "REINFORCE++": (ReinforcePP(), lambda es: slow_reinforce_pp(es, 1.0)),
    }


def batch(rng: np.random.Generator, full_length: bool) -> Turns:
    """Make random turns with every input that an estimator may need."""
    turns = random_turns(rng, EPISODES, TURNS, full_length=full_length)
    rooms = np.array([f"You arrive at cabinet {n}. The cabinet {n} is closed." for n in range(ROOMS)], dtype=object)
    return replace(
        turns,
        group_B=np.repeat(np.arange(EPISODES // GROUP), GROUP),
        observation_BT=rooms[rng.integers(0, ROOMS, (EPISODES, TURNS))],
        tokens_BT=np.full((EPISODES, TURNS), TOKENS),
        value_BT=rng.uniform(-3.0, 3.0, (EPISODES, TURNS)),
        v_token_BK=rng.uniform(-3.0, 3.0, (EPISODES, TOKENS * int(turns.length_B.max()))),
    )


def warm_up_allocator() -> None:
    """Put the C library's allocator into the state of a process that trains a model.

    Before a large block has been freed once, the allocator returns memory to the system after every call. The next call
    then pays for the memory again, page by page.
    """
    np.ones(2_000_000)


def compare_hae(estimator: HAE, turns: Turns) -> tuple[float, float]:
    """Check that the definition and the estimator agree, and return the times of both in milliseconds.

    The load of the machine may change during the comparison. So both sides take turns, episode by episode, and the
    best time of each step counts.
    """
    ours, slow = estimator(turns), slow_credit(turns, estimator)
    for field in ("low_BT", "high_BT", "switch_BT"):
        np.testing.assert_allclose(getattr(ours, field), getattr(slow, field), rtol=1e-9, atol=1e-9)
    slow_s, our_s = 0.0, []
    for episode in slow_episodes(turns):
        slow_s += min(seconds(lambda: slow_episode(episode, estimator)) for _ in range(20))  # noqa: B023
        our_s.append(min(seconds(lambda: estimator(turns)) for _ in range(10)))
    return 1e3 * slow_s, 1e3 * float(np.mean(our_s))


def compare(estimator: Estimator, slow: Callable[..., list[list[float]]], turns: Turns) -> tuple[float, float]:
    """Do the same for an estimator that compares episodes. Its definition takes all episodes at once and is slow."""
    episodes, results = episodes_of(turns), list[list[list[float]]]()
    slow_s = seconds(lambda: results.append(slow(episodes)))
    credit: Credit = estimator(turns)
    ours = credit.low_BT[turns.mask_BT]
    if credit.token_BK is not None:
        ours = credit.token_BK[turns.token_mask_BK]
    np.testing.assert_allclose(ours, [x for row in results[0] for x in row], rtol=1e-9, atol=1e-9)
    return 1e3 * slow_s, 1e3 * min(seconds(lambda: estimator(turns)) for _ in range(20))


if __name__ == "__main__":
    raise SystemExit(main())
