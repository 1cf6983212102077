"""The structure of the package holds: an order without rings, a closed learner, one list of estimators, small units."""

from __future__ import annotations

from pathlib import Path

import pytest

import house

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def here() -> house.House:
    return house.House(ROOT)


def test_units_import_each_other_in_no_ring(here: house.House):
    assert here.ring == []


def test_imports_go_down_the_order(here: house.House):
    assert here.against_order == []


def test_comparing_runs_needs_no_torch(here: house.House):
    assert here.loaded_by_command("compare").isdisjoint({"torch", "transformers", "tokenizers", "matplotlib"})


def test_the_learner_is_closed(here: house.House):
    assert here.reach_ins == []


def test_estimators_are_listed_once(here: house.House):
    assert [place.partition(":")[0] for place in here.estimator_lists] == ["hiper.advantages.registry"]
    # The public face exports every estimator.
    assert set(here.files_of_an_estimator) <= {"hiper", "hiper.advantages", "hiper.advantages.registry"}


def test_one_module_plays_episodes_and_one_checks_environments(here: house.House):
    assert here.playing == ["hiper.envs.checks", "hiper.rollout.collector"]


def test_modules_are_small(here: house.House):
    large = {name: module.lines for name, module in here.modules.items() if module.lines > house.MOST_LINES_OF_A_MODULE}
    assert large == {}


def test_functions_are_small_or_have_a_reason(here: house.House):
    long = {function.place for function in here.functions if function.lines > house.MOST_LINES_OF_A_FUNCTION}
    assert long - house.LONG_FUNCTIONS.keys() == set()


def test_no_rule_is_broken(here: house.House):
    assert house.faults(here) == []


def test_every_broken_rule_is_told(tmp_path: Path):
    long = "def f(parts):\n" + "    parts.learner.optimizer()\n" * 400
    made = tree(
        tmp_path, {"__init__.py": "", "files.py": f"import hiper.runs\n{long}", "runs.py": "import hiper.files"}
    )
    told = "\n".join(house.faults(made))
    for part in (
        "files imports itself",
        "hiper.files imports hiper.runs",
        "files:3 touches",
        "402 lines",
        "files:f has 401",
    ):
        assert part in told


def tree(folder: Path, files: dict[str, str]) -> house.House:
    for name, text in files.items():
        path = folder / "src" / "hiper" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return house.House(folder)


def test_a_ring_is_found_over_several_units(tmp_path: Path):
    files = {
        "__init__.py": "",
        "envs/__init__.py": "",
        "envs/base.py": "from hiper.models import build",
        "models/__init__.py": "",
        "models/build.py": "import hiper.training.loop",
        "training/__init__.py": "",
        "training/loop.py": "from hiper.envs.base import thing",
        "files.py": "",
        "runs.py": "from hiper import files",
    }
    made = tree(tmp_path, files)
    assert made.ring == ["envs", "models", "training"]
    assert made.against_order == [
        "hiper.envs.base imports hiper.models.build",
        "hiper.models.build imports hiper.training.loop",
    ]


def test_imports_of_functions_and_of_type_checkers_do_not_count(tmp_path: Path):
    late = "if TYPE_CHECKING:\n    from hiper import training\ndef f():\n    from hiper import training\n"
    made = tree(tmp_path, {"__init__.py": "", "files.py": late, "training.py": ""})
    assert made.against_order == []
    assert made.units == {"files": set(), "training": set()}


def test_a_unit_without_a_place_in_the_order_is_told(tmp_path: Path):
    assert "'attic' is missing in ORDER" in tree(tmp_path, {"__init__.py": "", "attic.py": ""}).against_order[0]


def test_reach_ins_are_found(tmp_path: Path):
    reaching = "def f(parts):\n    parts.learner.update()\n    return parts.learner.model.device\n"
    made = tree(tmp_path, {"__init__.py": "", "console.py": reaching, "learner/__init__.py": reaching})
    assert made.reach_ins == ["hiper.console:3"]


def test_what_a_command_loads_is_followed_through_packages(tmp_path: Path):
    files = {
        "__init__.py": "import json",
        "cli.py": "def compare():\n    from hiper.runs.folder import Run\ndef train():\n    import torch\n",
        "runs/__init__.py": "import numpy",
        "runs/folder.py": "import yaml",
    }
    loaded = tree(tmp_path, files).loaded_by_command("compare")
    assert loaded >= {"hiper", "hiper.runs", "hiper.runs.folder", "json", "numpy", "yaml"}
    assert "torch" not in loaded


def test_lengths_count_every_line(tmp_path: Path):
    body = "class A:\n    def f(self):\n        x = 1\n        return x\n"
    made = tree(tmp_path, {"__init__.py": "", "a.py": body})
    assert made.functions == [house.Function("hiper.a:A.f", 3)]
    assert made.largest_module.lines == len(body.splitlines())
