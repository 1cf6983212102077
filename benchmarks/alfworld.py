"""Compare our ALFWorld engine with TextWorld in CPU time, in one process on one core.

    python benchmarks/alfworld.py [--data PATH] [--games 6] [--steps 50] [--concurrent 2000]

Both engines play the same games with the same commands. Without ``--data`` the games are generated, with the size of
official ones. Without TextWorld (``pip install 'hiper[textworld]'``) only our engine is measured.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import random
import resource
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from hiper.envs.alfworld import AlfworldEnv, Engine, Library, open_split, parse_game
from hiper.envs.alfworld.sources import GENERATED
from hiper.envs.panels import Task

# This script's folder would make the name "alfworld" mean this very file.
sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != Path(__file__).resolve().parent]

TARGETS = {"step with admissible list": 3_000, "load + first reset": 300, "later reset": 10_000}
"""The speed-up over TextWorld that each operation should reach."""


@dataclass(frozen=True)
class Sample:
    """A game, and the commands that both engines play."""

    id: str
    """The id of the task."""
    text: bytes
    """The content of the game's file."""
    commands: tuple[str, ...]
    """The commands, in order."""


def have_textworld() -> bool:
    """Return whether TextWorld and alfworld are installed."""
    return all(importlib.util.find_spec(module) for module in ("textworld", "alfworld"))


def main() -> None:
    """Measure both engines, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="official games: a folder or a tar archive (default: generated games)")
    parser.add_argument("--split", default="valid_seen")
    parser.add_argument("--games", type=int, default=6)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--concurrent", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    library = open_split(options.split, options.data or GENERATED, None if options.data else 60, "official")
    rng = random.Random(options.seed)
    samples = [draw(library, task.id, options.steps, rng) for task in rng.sample(list(library.panel), options.games)]
    ours = measure_ours(samples)
    theirs = measure_textworld(samples) if have_textworld() else None
    print(
        f"{options.games} games of {library.panel.name}, {options.steps} commands each; median CPU time on one core\n"
    )
    print(f"{'':28}{'TextWorld':>14}{'ours':>14}{'ratio':>10}{'target':>10}")
    for what, target in TARGETS.items():
        their = theirs[what] if theirs else None
        ratio = f"{their / ours[what]:,.0f}x" if their else "-"
        print(f"{what:28}{show(their):>14}{show(ours[what]):>14}{ratio:>10}{target:>9,}x")
    if theirs is None:
        print("(TextWorld was not measured: it takes pip install 'hiper[textworld]')")
    print()
    measure_many(library, options.concurrent, options.steps, rng)


def draw(library: Library, task_id: str, steps: int, rng: random.Random) -> Sample:
    """Draw commands for one game. All verbs are about equally frequent, and a tenth of the commands is invalid."""
    text = library.source.read(task_id)
    engine = Engine(parse_game(text, task_id))
    commands = []
    for _ in range(steps):
        verb = rng.choice(sorted({command.split()[0] for command in engine.admissible} - {"help"}))
        command = rng.choice([command for command in engine.admissible if command.startswith(verb)])
        commands.append("dance" if rng.random() < 0.1 else command)
        engine.step(commands[-1])
        if engine.won:  # TextWorld, as the benchmark wires it, stops here
            commands.pop()
            engine.reset()
            for earlier in commands:
                engine.step(earlier)
            commands.append("look")
    return Sample(task_id, text.encode() if isinstance(text, str) else text, tuple(commands))


def seconds(call: Callable[[], Any], repeat: int = 1) -> float:
    """Return the CPU time of one call in seconds, as a mean over ``repeat`` calls."""
    begin = time.process_time()
    for _ in range(repeat):
        call()
    return (time.process_time() - begin) / repeat


class OneGame:
    """A source of a single game."""

    name = "benchmark"

    def __init__(self, sample: Sample) -> None:
        self._sample = sample
        self._task = Task(sample.id, "game")

    def tasks(self) -> list[Task]:
        """Return the one task."""
        return [self._task]

    def dialects(self) -> dict[str, str]:
        """Return an empty text, which nobody reads."""
        return {self._task.id: ""}

    def read(self, task_id: str) -> bytes:
        """Return the content of the game's file."""
        return self._sample.text

    def where(self, task_id: str) -> str:
        """Return the id of the task."""
        return task_id


def measure_ours(samples: Sequence[Sample]) -> dict[str, float]:
    """Return the median seconds over games of each operation of our environment, averaged over many repetitions."""
    first, later, steps = [], [], []
    for sample in samples:

        def load(sample: Sample = sample) -> None:
            AlfworldEnv(Library(OneGame(sample))).reset(sample.id)

        first.append(seconds(load, 20))
        env = AlfworldEnv(Library(OneGame(sample)), max_turns=len(sample.commands))
        env.reset(sample.id)
        later.append(seconds(partial(env.reset, sample.id), 500))

        def episode(env: AlfworldEnv = env, sample: Sample = sample) -> None:
            env.reset(sample.id)
            for command in sample.commands:
                env.step(command)

        steps.append((seconds(episode, 40) - later[-1]) / len(sample.commands))
    return {
        "step with admissible list": median(steps),
        "load + first reset": median(first),
        "later reset": median(later),
    }


def measure_textworld(samples: Sequence[Sample]) -> dict[str, float]:
    """Measure TextWorld in the same way, wired as ALFWorld wires it. A later reset keeps the game loaded."""
    import textworld
    from alfworld.agents.environment.alfred_tw_env import AlfredDemangler, AlfredInfos
    from textworld.envs.wrappers import Filter, GenericEnvironment, Limit

    first, later, steps = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        for number, sample in enumerate(samples):
            file = Path(folder) / f"{number}.tw-pddl"
            file.write_bytes(sample.text)
            infos = textworld.EnvInfos(won=True, admissible_commands=True, extras=["gamefile"])
            env: Any = Limit(GenericEnvironment(infos), max_episode_steps=10**6)
            for wrapper in (AlfredDemangler, AlfredInfos, Filter):
                env = wrapper(env)

            def load(env: Any = env, file: Path = file) -> None:
                env.load(str(file))
                env.reset()

            first.append(seconds(load))
            later.append(seconds(env.reset))
            steps.append(median(seconds(partial(env.step, command)) for command in sample.commands))
            env.close()
    return {
        "step with admissible list": median(steps),
        "load + first reset": median(first),
        "later reset": median(later),
    }


def measure_many(library: Library, concurrent: int, steps: int, rng: random.Random) -> None:
    """Print the memory of a running game, and the speed of many games at once."""
    tasks = [task.id for task in library.panel]
    gc.collect()
    tracemalloc.start()
    for task_id in tasks:
        library.game(task_id)
    loaded, _ = tracemalloc.get_traced_memory()
    env = AlfworldEnv(library, max_turns=steps)
    running = [env.spawn() for _ in range(concurrent)]
    seen = [one.reset(rng.choice(tasks)).observation for one in running]
    for _ in range(steps // 2):
        seen = [play(one, observation, rng) for one, observation in zip(running, seen, strict=True)]
    total, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    for one in running:
        one.reset(rng.choice(tasks))
    pace = seconds(lambda: [one.step("look") for one in running], max(1, steps - 1))
    print(f"memory of a loaded game       {loaded / len(tasks) / 1024:8.1f} KiB ({len(tasks)} games)")
    print(f"memory of a running game      {(total - loaded) / concurrent / 1024:8.1f} KiB ({concurrent} side by side)")
    print(f"peak memory of this process   {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:8.1f} MiB")
    print(f"steps per second, all of them {concurrent / pace:8,.0f}")


def play(env: AlfworldEnv, observation: Any, rng: random.Random) -> Any:
    """Play one random admissible command. A finished game is reset to a random task."""
    step = env.step(rng.choice(observation.admissible))
    if step.info.end:
        return env.reset(rng.choice(env.panel.tasks).id).observation
    return step.observation


def show(value: float | None) -> str:
    """Return a duration in seconds as text with a readable unit."""
    if value is None:
        return "-"
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value * 1e6:.3g} us"


if __name__ == "__main__":
    main()
