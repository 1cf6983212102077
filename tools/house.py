"""Measure the structure of the package from its source: rings, reach-ins, lists of estimators, sizes.

    python tools/house.py                    # this tree
    python tools/house.py OLD_TREE .         # a column for each tree, for example a git worktree of an older commit

Nothing is imported from the trees that are measured. A unit is a top-level package or module of ``hiper``, for
example ``envs``. A module is one file, for example ``hiper.envs.base``.
"""

from __future__ import annotations

import argparse
import ast
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ORDER: tuple[tuple[str, ...], ...] = (
    ("cli", "__main__"),
    ("commands",),
    ("viewer",),
    ("study",),
    ("launch",),
    ("__init__", "api"),
    ("analysis",),
    ("training",),
    ("evaluation",),
    ("imitation",),
    ("learner",),
    ("rollout",),
    ("models",),
    ("runs",),
    ("display",),
    ("rows", "outcomes", "episode"),
    ("plan_execute",),
    ("envs",),
    ("config",),
    ("advantages",),
    ("processes",),
    ("files", "strict_yaml", "seeding", "stopping", "plugins", "validation", "errors"),
)
"""The units of the package, highest first. A unit imports from its own row and from rows below it."""

MOST_LINES_OF_A_MODULE = 400
MOST_LINES_OF_A_FUNCTION = 60

LONG_FUNCTIONS: Mapping[str, str] = {}
"""Functions that may be longer, as ``module:function``, each with the reason."""

LEARNER_PRIVATE = {"model", "policy", "critic", "optimizer", "device", "precision", "autocast", "meter", "reference"}
"""Attributes of a learner that are its own business."""

ESTIMATOR_CLASSES = ("HAE", "TurnGAE", "TokenGAE", "GRPO", "RLOO", "GiGPO", "ReinforcePP")
EXAMPLE_ESTIMATOR = ("RLOO", "rloo")
"""The estimator, by its class and by its type, whose places are counted."""


@dataclass(frozen=True)
class Module:
    """A module of the package."""

    name: str
    """Its dotted name, as in ``hiper.envs.base``."""
    path: Path
    text: str
    tree: ast.Module

    @property
    def unit(self) -> str:
        """The top-level package or module it belongs to, without ``hiper``."""
        parts = self.name.split(".")
        return parts[1] if len(parts) > 1 else "__init__"

    @property
    def lines(self) -> int:
        """The number of lines."""
        return len(self.text.splitlines())


@dataclass(frozen=True)
class Function:
    """A function or method."""

    place: str
    """``module:function``, or ``module:Class.method``."""
    lines: int


class House:
    """The package of a source tree.

    Args:
        root: folder of the tree, which holds ``src/hiper``.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.modules: dict[str, Module] = {}
        for path in sorted((root / "src" / "hiper").rglob("*.py")):
            parts = path.relative_to(root / "src").with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            text = path.read_text(encoding="utf-8")
            self.modules[name] = Module(name, path, text, ast.parse(text))

    # Imports

    @cached_property
    def imports(self) -> dict[str, set[str]]:
        """The modules and foreign packages that each module imports when it is imported."""
        return {name: set(self._imported(module, at_import_time(module.tree))) for name, module in self.modules.items()}

    def _imported(self, module: Module, nodes: Iterator[ast.AST]) -> Iterator[str]:
        for node in nodes:
            if isinstance(node, ast.Import):
                yield from (self._module_of(alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                for alias in node.names:
                    whole = f"{node.module}.{alias.name}"
                    yield whole if whole in self.modules else self._module_of(node.module)

    def _module_of(self, name: str) -> str:
        """The module itself if it belongs to the package, otherwise the foreign package."""
        return name if name in self.modules else name.partition(".")[0]

    @cached_property
    def units(self) -> dict[str, set[str]]:
        """The units that each unit imports."""
        graph: dict[str, set[str]] = {m.unit: set() for m in self.modules.values() if m.name != "hiper"}
        for name, imported in self.imports.items():
            if (own := self.modules[name].unit) != "__init__":
                graph[own] |= {self.modules[other].unit for other in imported if other in self.modules}
        for unit, imported in graph.items():
            # Every import of a module imports the package itself.
            imported -= {unit, "__init__"}
        return graph

    @property
    def ring(self) -> list[str]:
        """The units that import each other, directly or through others."""
        reach = {unit: reachable(self.units, unit) for unit in self.units}
        return sorted(unit for unit in reach if any(unit in reach[other] for other in reach[unit]))

    @property
    def against_order(self) -> list[str]:
        """The imports that go from a lower unit to a higher one, or whose unit is missing in :data:`ORDER`."""
        level = {unit: number for number, row in enumerate(ORDER) for unit in row}
        found = []
        for name, imported in sorted(self.imports.items()):
            own = self.modules[name].unit
            if own not in level:
                found.append(f"{name}: '{own}' is missing in ORDER of tools/house.py")
                continue
            for other in sorted(imported & self.modules.keys()):
                unit = self.modules[other].unit
                # Every module may ask the package for its version.
                if unit != "__init__" and level.get(unit, level[own]) < level[own]:
                    found.append(f"{name} imports {other}")
        return found

    def loaded_by_command(self, command: str) -> set[str]:
        """The modules and foreign packages that a command of ``hiper.cli`` imports before it does anything."""
        cli, body = next(
            (module, node)
            for name, module in self.modules.items()
            if name == "hiper.cli" or name.startswith("hiper.cli.")
            for node in module.tree.body
            if isinstance(node, ast.FunctionDef) and node.name == command
        )
        loaded, waiting = set(), {"hiper.cli", *self._imported(cli, ast.walk(body))}
        while waiting:
            name = waiting.pop()
            if name in loaded:
                continue
            loaded.add(name)
            if name in self.modules:
                parent = name.rpartition(".")[0]
                waiting |= self.imports[name] | ({parent} if parent else set())
        return loaded

    # Habits

    @property
    def reach_ins(self) -> list[str]:
        """The lines outside the learner that touch what belongs to it."""
        found = set()
        for module in self.modules.values():
            if module.unit == "learner" or module.name == "hiper.training.learner":
                continue
            for node in ast.walk(module.tree):
                if isinstance(node, ast.Attribute) and node.attr in LEARNER_PRIVATE and _last(node.value) == "learner":
                    found.add(f"{module.name}:{node.lineno}")
        return sorted(found)

    @property
    def estimator_lists(self) -> list[str]:
        """The statements at the top of a module that name every estimator. Imports and exports are left out."""
        found = []
        for module in self.modules.values():
            if module.name == "hiper":
                continue  # the public face exports them
            for node in module.tree.body:
                if isinstance(node, ast.Assign | ast.AnnAssign | ast.FunctionDef | ast.ClassDef):
                    source = ast.unparse(node)
                    named = all(re.search(rf"\b{name}\b", source) for name in ESTIMATOR_CLASSES)
                    if named and not source.startswith("__all__"):
                        found.append(f"{module.name}:{node.lineno}")
        return sorted(found)

    @property
    def files_of_an_estimator(self) -> list[str]:
        """The modules that name one estimator, apart from its own."""
        return self.naming(*EXAMPLE_ESTIMATOR, own=f"hiper.advantages.{EXAMPLE_ESTIMATOR[1]}")

    def naming(self, *words: str, own: str) -> list[str]:
        """Return the modules whose code has one of the words, apart from those whose name begins with ``own``."""
        pattern = re.compile(rf"\b({'|'.join(words)})\b")
        return sorted(
            module.name
            for module in self.modules.values()
            if not module.name.startswith(own) and pattern.search(without_docstrings(module.tree))
        )

    @property
    def playing(self) -> list[str]:
        """The modules that step an environment."""
        return sorted(
            module.name
            for module in self.modules.values()
            if any(
                isinstance(node, ast.Attribute) and node.attr == "step" and _last(node.value).endswith("env")
                for node in ast.walk(module.tree)
            )
        )

    # Sizes

    @property
    def largest_module(self) -> Module:
        """The module with most lines."""
        return max(self.modules.values(), key=lambda module: module.lines)

    @cached_property
    def functions(self) -> list[Function]:
        """Every function and method, longest first."""
        found = (Function(f.place, f.lines) for module in self.modules.values() for f in functions(module))
        return sorted(found, key=lambda function: -function.lines)

    @property
    def tracked_files(self) -> int:
        """The number of files in git."""
        if not (self.root / ".git").exists():  # an unpacked source distribution
            return sum(path.is_file() for path in self.root.rglob("*"))
        return len(subprocess.check_output(["git", "ls-files"], cwd=self.root).splitlines())


@dataclass(frozen=True)
class _Placed:
    """A function of a module, with its syntax tree."""

    place: str
    node: ast.FunctionDef | ast.AsyncFunctionDef

    @property
    def lines(self) -> int:
        return (self.node.end_lineno or self.node.lineno) - self.node.lineno + 1


def functions(module: Module) -> Iterator[_Placed]:
    """Yield the functions and methods of a module. One inside a function belongs to it."""
    for node in module.tree.body:
        inside = node.body if isinstance(node, ast.ClassDef) else [node]
        prefix = f"{node.name}." if isinstance(node, ast.ClassDef) else ""
        for found in inside:
            if isinstance(found, ast.FunctionDef | ast.AsyncFunctionDef):
                yield _Placed(f"{module.name}:{prefix}{found.name}", found)


def at_import_time(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes that run when a module is imported: nothing inside functions or below ``TYPE_CHECKING``."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from at_import_time(node)


def reachable(graph: Mapping[str, set[str]], start: str) -> set[str]:
    """Return what can be reached from ``start`` in one step or more."""
    found: set[str] = set()
    waiting = set(graph[start])
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting |= graph.get(node, set())
    return found


def without_docstrings(tree: ast.Module) -> str:
    """Return the code of a module without docstrings and comments."""
    stripped = ast.parse(ast.unparse(tree))
    for node in ast.walk(stripped):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [line for line in node.body if not _is_text(line)] or [ast.Pass()]
    return ast.unparse(stripped)


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _last(node: ast.expr) -> str:
    """The last name of ``a.b.c`` or ``a``."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def measures(house: House) -> dict[str, str]:
    """Return every measure of a tree, in words, by its name."""
    loaded = house.loaded_by_command("compare")
    own = [name for name in loaded if name in house.modules]
    largest, longest = house.largest_module, house.functions[0]
    return {
        "top-level units in a ring of imports": f"{len(house.ring)} of {len(house.units)}",
        "lines outside the learner that touch its model, optimizer or device": str(len(house.reach_ins)),
        "modules imported by `hiper compare`": f"{len(own)}, {'with' if 'torch' in loaded else 'without'} torch",
        "lists of all estimators": str(len(house.estimator_lists)),
        "modules that name an estimator (RLOO), beside its own": str(len(house.files_of_an_estimator)),
        "modules that step an environment": str(len(house.playing)),
        "largest module": f"{largest.lines} lines ({largest.name})",
        f"modules over {MOST_LINES_OF_A_MODULE} lines": str(
            sum(module.lines > MOST_LINES_OF_A_MODULE for module in house.modules.values())
        ),
        "longest function": f"{longest.lines} lines ({longest.place})",
        f"functions over {MOST_LINES_OF_A_FUNCTION} lines": str(
            sum(function.lines > MOST_LINES_OF_A_FUNCTION for function in house.functions)
        ),
        "modules": str(len(house.modules)),
        "tracked files": f"{house.tracked_files:,}",
    }


def faults(house: House) -> list[str]:
    """Return what must not be: rings, imports against the order, reach-ins, modules and functions that are too long."""
    found = [f"{unit} imports itself through other units" for unit in house.ring]
    found += house.against_order
    found += [f"{place} touches what belongs to the learner" for place in house.reach_ins]
    found += [
        f"{name} has {module.lines} lines, more than {MOST_LINES_OF_A_MODULE}"
        for name, module in house.modules.items()
        if module.lines > MOST_LINES_OF_A_MODULE
    ]
    found += [
        f"{function.place} has {function.lines} lines, more than {MOST_LINES_OF_A_FUNCTION}, and no reason is given"
        for function in house.functions
        if function.lines > MOST_LINES_OF_A_FUNCTION and function.place not in LONG_FUNCTIONS
    ]
    return found


def table(trees: Sequence[Path]) -> str:
    """Return the measures as a table in Markdown, one column per tree."""
    columns = [measures(House(tree)) for tree in trees]
    lines = [f"| measure | {' | '.join(map(str, trees))} |", "|---" * (len(trees) + 1) + "|"]
    lines += [f"| {name} | {' | '.join(column[name] for column in columns)} |" for name in columns[0]]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the table, and what stands behind its counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trees", nargs="*", type=Path, default=[Path(__file__).parents[1]], metavar="TREE")
    parser.add_argument("--places", action="store_true", help="list the places behind the counts of the last tree")
    parser.add_argument("--check", action="store_true", help="print no table; fail if the last tree breaks a rule")
    given = parser.parse_args()
    if given.check:
        if found := faults(House(given.trees[-1])):
            sys.exit("\n".join(["the structure of the package is broken (tools/house.py):", *found]))
        return
    sys.stdout.write(table(given.trees))
    if given.places:
        house = House(given.trees[-1])
        long = [f"{f.place} {f.lines}" for f in house.functions if f.lines > MOST_LINES_OF_A_FUNCTION]
        large = [f"{m.name} {m.lines}" for m in house.modules.values() if m.lines > MOST_LINES_OF_A_MODULE]
        for name, places in {
            "ring": house.ring,
            "against the order": house.against_order,
            "reach-ins": house.reach_ins,
            "lists of estimators": house.estimator_lists,
            "modules that name RLOO": house.files_of_an_estimator,
            "modules that step an environment": house.playing,
            "long functions": long,
            "large modules": large,
        }.items():
            sys.stdout.write(f"\n{name}:\n" + "".join(f"  {place}\n" for place in places))


if __name__ == "__main__":
    main()
