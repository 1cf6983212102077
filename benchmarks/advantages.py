"""How much faster the vectorised estimators are than their definition, computed one episode at a time.

    python benchmarks/advantages.py

Both sides get their input in the form they work on, do the same 128 episodes x 50 turns in one thread, and are
compared before they are timed.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from hiper.advantages import HAE, Turns

# The definition lives with the tests, which compare against it.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "advantages"))

from slow_hae import random_turns, slow_credit, slow_episode, slow_episodes

EPISODES, TURNS = 128, 50
REQUIRED_RATIO = 50.0


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> int:
    """Print one line per estimator and kind of batch; 1 if an estimator is too slow on full episodes."""
    warm_up_allocator()
    batches = {
        "full episodes": random_turns(np.random.default_rng(0), EPISODES, TURNS, full_length=True),
        # Half of the turns are padding, which costs the vectorised side as much as any other turn.
        "ragged episodes": random_turns(np.random.default_rng(1), EPISODES, TURNS, full_length=False),
    }
    estimators = {
        "HAE, termination-value": HAE(gamma=0.99, lambda_turn=0.9),
        "HAE, value-gap": HAE(gamma=0.99, lambda_turn=0.9, switch_form="value-gap"),
    }
    print(f"{EPISODES} episodes x {TURNS} turns, one thread")
    print(f"{'estimator':<26}{'batch':<18}{'slow ms':>9}{'ours ms':>9}{'ratio':>8}")
    lowest = dict.fromkeys(batches, np.inf)
    for (name, estimator), (batch, turns) in itertools.product(estimators.items(), batches.items()):
        slow_ms, our_ms = compare(estimator, turns)
        lowest[batch] = min(lowest[batch], slow_ms / our_ms)
        print(f"{name:<26}{batch:<18}{slow_ms:>9.2f}{our_ms:>9.3f}{slow_ms / our_ms:>7.0f}x")
    print(f"lowest on full episodes: {lowest['full episodes']:.0f}x (required: {REQUIRED_RATIO:.0f}x)")
    return 0 if lowest["full episodes"] >= REQUIRED_RATIO else 1


def warm_up_allocator() -> None:
    """Put the C library's allocator into the state it has in any process that trains a model.

    Until a large block has once been freed, it hands memory back to the system after every call and pays for it again,
    page by page, in the next one.
    """
    np.ones(2_000_000)


def compare(estimator: HAE, turns: Turns) -> tuple[float, float]:
    """Check that the definition and the estimator agree, and time both in milliseconds.

    The machine may be busy, and more so at one time than at another. So both take turns, episode by episode, and for
    either, the best of each step counts.
    """
    ours, slow = estimator(turns), slow_credit(turns, estimator)
    for field in ("low_BT", "high_BT", "switch_BT"):
        np.testing.assert_allclose(getattr(ours, field), getattr(slow, field), rtol=1e-9, atol=1e-9)
    slow_s, our_s = 0.0, []
    for episode in slow_episodes(turns):
        slow_s += min(seconds(lambda: slow_episode(episode, estimator)) for _ in range(20))  # noqa: B023
        our_s.append(min(seconds(lambda: estimator(turns)) for _ in range(10)))
    return 1e3 * slow_s, 1e3 * float(np.mean(our_s))


if __name__ == "__main__":
    raise SystemExit(main())
