"""What a run in training shows."""

from __future__ import annotations

from pathlib import Path

from hiper.display.console import Display
from hiper.training.build import Parts


def header(path: Path, parts: Parts, display: Display) -> None:
    """Show what is about to be trained, on what, where to."""
    env = parts.env
    display.note(f"run        {path}")
    display.note(f"policy     {parts.learner.describe()}")
    display.note(f"credit     {parts.config.advantages.type}")
    display.note(f"train      {env.panel.name}: {len(env.panel)} tasks, sha256 {env.panel.hash[:12]}")
    for split, held_out in parts.held_out.items():
        panel = held_out.panel
        display.note(f"held out   {split}: {len(panel)} tasks, sha256 {panel.hash[:12]}")
