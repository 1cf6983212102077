"""The checks of a GPU run on a CPU with tiny models, so that the script is known to run where there is a GPU."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def gpu() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu", ROOT / "benchmarks" / "gpu.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpu"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("case", ["full", "LoRA"])
def test_a_case_measures_speed_and_memory(gpu: ModuleType, case: str):
    setting, result = gpu.Setting(torch.device("cpu"), True, 4, 24, 4), gpu.Result()
    gpu.measure("0.5B", case, setting, result)
    measured = [row[1].split(" (")[0] for row in result.rows]
    assert measured == ["scoring", "updating", "sampling", "memory by hiper check"]
    assert not result.failed


def test_devices_are_compared_and_a_difference_is_a_failure(gpu: ModuleType):
    result = gpu.Result()
    gpu.check_correctness(gpu.Setting(torch.device("cpu"), True, 4, 24, 4), result)
    assert len(result.rows) == 8
    assert not result.failed
    result.check("a case", "a number", 0.1)
    assert result.failed == ["a case, a number"]


def test_a_case_that_fails_leaves_the_others(gpu: ModuleType):
    def work() -> None:
        raise RuntimeError("no kernel\nmore")

    result = gpu.Result()
    gpu.guarded(result, "one", work)
    assert result.failed == ["one"]
    assert result.rows[0][-1] == "no kernel"
