"""The commands that use a policy: `eval`, `play`, `export`."""

from __future__ import annotations

import random
import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from hiper.cli import parameters as given
from hiper.cli.program import command, make_display
from hiper.files import user_path
from hiper.launch.together import joined


@command(
    "hiper eval runs/quickstart-seed0",
    "hiper eval runs/alfworld-nano-seed0 --split valid_unseen --episodes 50",
    "hiper eval runs/quickstart-seed0/checkpoints/iter-00010 --temperature 0",
    "hiper eval Qwen/Qwen2.5-0.5B-Instruct --env alfworld env.data=generated --episodes 20",
    name="eval",
)
def evaluate(
    policy: given.AnyPolicy,
    settings: given.Settings = None,
    env: given.OtherEnv = None,
    split: given.Split = None,
    episodes: given.Episodes = None,
    temperature: given.Temperature = None,
    seed: given.EvaluationSeed = None,
    out: given.Out = None,
    processes: given.Processes = 1,
    launcher: given.Launcher = "local",
) -> None:
    """Play held-out tasks, show the outcome, and write a result card and the episodes."""
    from hiper.runs.policies import find_policy

    find_policy(policy, env)  # a wrong path is refused before torch is imported
    with joined(processes, sys.argv[1:], launcher) as group:
        display = make_display()
        display.whole_line(f"policy     {policy}")
        with display.bar("loading torch"):
            from hiper.commands.evaluate import evaluate_policy
            from hiper.evaluation.saved import SavedPolicy

        saved = SavedPolicy.open(policy, env, settings or [])
        splits = saved.config.evaluation.splits if split is None else (split,)
        folder = out or Path("runs") / f"eval-{user_path(policy).resolve().name}-{datetime.now():%Y%m%d-%H%M%S}"
        evaluate_policy(
            saved, splits, folder, display, episodes=episodes, temperature=temperature, seed=seed, processes=group
        )


@command(
    "hiper play corridor",
    "hiper play alfworld data=generated size=tiny --agent expert",
    "hiper play corridor --agent runs/tiny-seed0 --auto",
)
def play(
    env: given.Env,
    options: given.PlayOptions = None,
    agent: given.Agent = "human",
    split: given.Split = None,
    task: given.TaskId = None,
    seed: given.PlaySeed = 0,
    temperature: given.Temperature = None,
    auto: Annotated[bool, typer.Option("--auto", help="Do not wait for Enter between an agent's turns.")] = False,
) -> None:
    """Step through one episode in the terminal, with subgoals."""
    from hiper.commands import play as table

    if agent not in (table.HUMAN, table.EXPERT):
        from hiper.runs.policies import find_policy

        find_policy(agent, env)  # a wrong path is refused before torch is imported
    display = make_display()
    world, player = table.seat(env, options or [], agent, split=split, temperature=temperature, display=display)
    chosen = task or random.Random(seed).choice(world.panel.tasks).id
    table.play(world, player, chosen, seed, display.console, wait=not (auto or agent == table.HUMAN))


@command(
    "hiper export runs/alfworld-qwen2.5-1.5b-seed0 --out my-agent",
    "hiper export runs/alfworld-qwen2.5-1.5b-seed0 --out my-agent --dtype bfloat16",
)
def export(policy: given.TrainedPolicy, out: given.ExportOut, dtype: given.NumberFormat = None) -> None:
    """Write a policy as a whole Hugging Face model, for other programs. An adapter is added into its base."""
    from hiper.commands.export import export_policy

    export_policy(policy, out, make_display(), dtype)
