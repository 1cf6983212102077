"""Credit assignment needs numpy and the standard library, nothing else."""

from __future__ import annotations

import subprocess
import sys

BLOCKED = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in {*sys.stdlib_module_names, "numpy", "hiper"}:
            raise ImportError(f"{name} is imported")

sys.meta_path.insert(0, Block())
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", BLOCKED + code], capture_output=True, text=True, check=False)


def test_advantages_need_numpy_alone() -> None:
    code = """
import hiper.advantages as a
for kind in a.ESTIMATORS.values():
    a.check_estimator(kind())
above = {name for name in sys.modules if name.startswith("hiper.") and not name.startswith("hiper.advantages")}
assert above == {"hiper.errors", "hiper.plugins"}, above
"""
    done = run(code)
    assert done.returncode == 0, done.stderr


def test_the_block_blocks() -> None:
    done = run("import pydantic")
    assert done.returncode == 1
    assert "pydantic is imported" in done.stderr
