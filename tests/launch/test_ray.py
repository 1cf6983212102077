"""The same workers, placed by Ray Train on a cluster of two nodes of this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hiper import api
from hiper.config import load_config
from hiper.runs.folder import Run
from launch.test_together import FRAGILE, check_same, quiet, started

pytest.importorskip("ray")

SHORT = ("training.iterations=1", "model.compute_dtype=float32")


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a cluster of two nodes with one core each."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    made.add_node(num_cpus=1)
    yield made.address
    made.shutdown()


@pytest.mark.slow
def test_two_nodes_give_what_one_process_gives(tiny_recipe: Path, tmp_path: Path, cluster: str):
    alone = api.train(load_config(tiny_recipe, SHORT), out=tmp_path / "1", display=quiet())
    command = ("hiper", "train", str(tiny_recipe), *SHORT, "--out", "2", "--processes", "2", "--launcher", "ray")
    with started(tmp_path, *command, RAY_ADDRESS=cluster) as process:
        out, err = process.communicate(timeout=400)
    assert process.returncode == 0, err
    assert "held out" in out  # what process 0 shows, wherever it runs
    check_same(alone, Run.open(tmp_path / "2"))


@pytest.mark.slow
def test_a_process_that_fails_on_a_node_is_named(tiny_recipe: Path, tmp_path: Path, cluster: str):
    (tmp_path / "fragile.py").write_text(FRAGILE.format(fault="raise OSError('the world is broken')"))
    settings = ("env={name: fragile:corridor, cells: 3, max_turns: 4}", "warm_start.tasks=0", *SHORT)
    command = ("hiper", "train", str(tiny_recipe), *settings, "--out", "run", "--processes", "2", "--launcher", "ray")
    with started(tmp_path, *command, RAY_ADDRESS=cluster) as process:
        _, err = process.communicate(timeout=400)
    assert process.returncode == 2
    assert "process 1 failed:" in err, err
    assert "the world is broken" in err


def test_more_processes_than_the_cluster_has_room_for_are_refused(tiny_recipe: Path, tmp_path: Path, cluster: str):
    command = ("hiper", "train", str(tiny_recipe), "--processes", "3", "--launcher", "ray")
    with started(tmp_path, *command, RAY_ADDRESS=cluster) as process:
        _, err = process.communicate(timeout=200)
    assert process.returncode == 2
    assert "--processes 3 needs 3 CPUs, and Ray's cluster has 2" in " ".join(err.split())


def test_a_cluster_that_is_not_there_is_told(tiny_recipe: Path, tmp_path: Path):
    command = ("hiper", "train", str(tiny_recipe), "--launcher", "ray")
    with started(tmp_path, *command, RAY_ADDRESS="nowhere") as process:
        _, err = process.communicate(timeout=200)
    assert process.returncode == 2
    assert "Ray's cluster cannot be used" in err
    assert "check RAY_ADDRESS" in " ".join(err.split())
