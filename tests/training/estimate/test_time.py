"""The time and the disk of a run."""

from __future__ import annotations

import pytest

from hiper.config import load_config
from hiper.training.estimate.devices import named_device
from hiper.training.estimate.models import shape_of_run
from hiper.training.estimate.time import disk_of, measured_pace, stated_pace


def test_a_run_s_own_pace():
    """Iterations of 10 and 30 seconds, of which sampling takes half and a quarter: 5 and 7.5 seconds."""
    config = load_config("quickstart", ["training.iterations=3"])
    rows = [
        {"time/iteration": 10.0, "time/generation_share": 0.5, "time/update_share": 0.5},
        {"time/iteration": 30.0, "time/generation_share": 0.25, "time/update_share": 0.75},
    ]
    pace = measured_pace(config, rows)
    assert pace is not None
    assert pace.phases == {"generation": 6.25, "update": 13.75}
    assert (pace.iteration, pace.run) == (20.0, 60.0)
    assert "2 iterations of this run" in pace.source
    assert measured_pace(config, []) is None


def test_stated_rates():
    """1.5B on an H100: 6,400 turns of 0.23 * 2048 + 0.1 * 512 = 522.24 tokens.

    A forward pass is 2 * 1.5437e9 * 3,342,336 = 1.0319e16 operations, at 0.22 * 989e12 a second 47.43 s. Scoring makes
    three of them; updating makes two forward and two backward passes with recomputation, 4 each.
    """
    config, device = load_config("alfworld-qwen2.5-1.5b"), named_device("1x80GB")
    shape, _ = shape_of_run(config)
    pace = stated_pace(config, shape, device)
    assert pace.phases["scoring"] == pytest.approx(3 * 47.43, rel=1e-3)
    assert pace.phases["update"] == pytest.approx(8 * 47.43, rel=1e-3)
    # 50 turns of 102.4 steps of 28 layers in a millisecond each, and the prompts.
    assert pace.phases["generation"] == pytest.approx(50 * 102.4 * 0.028 + 47.43 * 471.04 / 522.24, rel=1e-2)
    assert stated_pace(config, shape, named_device("4x80GB")).phases["update"] == pace.phases["update"] / 4


def test_the_disk_of_checkpoints():
    """1.5B: 6.17 GB and 6.18 GB of weights, 24.72 GB of moments: 37.1 GB, of which two and a new one are kept."""
    config = load_config("alfworld-qwen2.5-1.5b")
    disk = disk_of(config, shape_of_run(config)[0])
    assert disk.checkpoint == pytest.approx(37.07e9, rel=1e-3)
    assert disk.checkpoints == 3 * disk.checkpoint
    lora = load_config("alfworld-qwen2.5-1.5b-lora")
    assert disk_of(lora, shape_of_run(lora)[0]).checkpoint < 0.02 * disk.checkpoint
