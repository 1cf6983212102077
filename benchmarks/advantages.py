"""How much faster the vectorised estimators are than their definition, computed one episode at a time.

    python benchmarks/advantages.py

Both sides get their input in the form they work on, do the same 128 episodes x 50 turns in one thread, and are
compared before they are timed. The best of many repetitions counts, for both.
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


def best_ms(work: Callable[[], object], repetitions: int) -> float:
    """Lowest wall time of ``work`` in milliseconds: what it costs when nothing else runs."""
    times = []
    for _ in range(repetitions):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return 1e3 * min(times)


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
    print(f"{EPISODES} episodes x {TURNS} turns, best of many, one thread")
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
    """Check that the definition and the estimator agree, and time both in milliseconds."""
    ours, slow = estimator(turns), slow_credit(turns, estimator)
    for field in ("low_BT", "high_BT", "switch_BT"):
        np.testing.assert_allclose(getattr(ours, field), getattr(slow, field), rtol=1e-9, atol=1e-9)
    # The best of each episode, in sum: 20 ms at a stretch are never undisturbed on a busy machine, and 0.2 ms are.
    slow_ms = sum(best_ms(lambda: slow_episode(episode, estimator), 20) for episode in slow_episodes(turns))  # noqa: B023
    return slow_ms, best_ms(lambda: estimator(turns), 1000)


if __name__ == "__main__":
    raise SystemExit(main())
