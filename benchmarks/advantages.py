"""How much faster the vectorised estimators are than their definition, computed one episode at a time.

    python benchmarks/advantages.py

Both sides get their input in the form they work on, do the same 128 episodes x 50 turns in one thread, and are
compared before they are timed. The best of many repetitions counts, for both.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from hiper.advantages import HAE, Turns

# The definition lives with the tests, which compare against it.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "advantages"))

from slow_hae import random_turns, slow_credit, slow_episodes

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
    """Print one line per estimator; 1 if one is too slow."""
    # The C library gives memory back to the system after every call, and pays for it again in the next one, until a
    # large block has once been freed: which any process that trains a model has done long before.
    del_me = np.ones(2_000_000)
    del del_me
    full = random_turns(np.random.default_rng(0), EPISODES, TURNS, full_length=True)
    ragged = random_turns(np.random.default_rng(1), EPISODES, TURNS, full_length=False)
    print(f"{EPISODES} episodes x {TURNS} turns, best of many, one thread")
    print(f"{'estimator':<34}{'slow ms':>10}{'ours ms':>10}{'ratio':>9}")
    worst = min(
        compare(f"{form}, {length}", HAE(gamma=0.99, lambda_turn=0.9, switch_form=form), turns)
        for form in ("termination-value", "value-gap")
        for length, turns in (("full length", full), ("ragged", ragged))
    )
    print(f"required: {REQUIRED_RATIO:.0f}x; lowest: {worst:.0f}x")
    return 0 if worst >= REQUIRED_RATIO else 1


def compare(name: str, estimator: HAE, turns: Turns) -> float:
    """Check that both agree, time both, print, and return the ratio."""
    episodes = slow_episodes(turns)
    ours, slow = estimator(turns), slow_credit(episodes, estimator, turns.mask_BT.shape)
    for field in ("low_BT", "high_BT", "switch_BT"):
        np.testing.assert_allclose(getattr(ours, field), getattr(slow, field), rtol=1e-9, atol=1e-9)
    slow_ms = best_ms(lambda: slow_credit(episodes, estimator, turns.mask_BT.shape), 30)
    our_ms = best_ms(lambda: estimator(turns), 1000)
    print(f"{name:<34}{slow_ms:>10.2f}{our_ms:>10.3f}{slow_ms / our_ms:>8.0f}x")
    return slow_ms / our_ms


if __name__ == "__main__":
    raise SystemExit(main())
