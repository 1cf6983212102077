"""What `hiper check` says of the recipes of large models: comments in the recipes, and a table in docs/large-models.md.

`python tools/reference.py` writes both, and `--check` compares them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from hiper.config import Config, load_config, recipe_names
from hiper.display.tables import Table
from hiper.display.text import duration
from hiper.training.estimate.devices import Device, gigabytes, named_device
from hiper.training.estimate.fit import Change, changes, estimate_for, fits
from hiper.training.estimate.models import KNOWN, shape_of_run
from hiper.training.estimate.time import disk_of, stated_pace

ROOT = Path(__file__).parents[1]
RECIPES = ROOT / "src" / "hiper" / "recipes"
PAGE = ROOT / "docs" / "large-models.md"
GPUS = (24, 48, 80, 141)
"""The sizes of GPUs in gigabytes."""
BEGIN = "# Memory, by `hiper check`:"
COMMENT = re.compile(rf"^{re.escape(BEGIN)}\n(?:#.*\n)*", re.MULTILINE)
BLOCK = re.compile(r"(<!-- recipes -->\n).*?(<!-- end of recipes -->)", re.DOTALL)


def large() -> list[str]:
    """Return the recipes of models that ship with their sizes."""
    return [name for name in recipe_names() if load_config(name).model.path in KNOWN]


@cache
def comment(name: str) -> str:
    """Return the comment of a recipe: a line for each size of GPU."""
    config = load_config(name)
    lines = [BEGIN]
    for size in GPUS:
        device = named_device(f"1x{size}GB")
        found = estimate_for(config, device)
        peak = f"{gigabytes(found.peak)} in {found.peak_phase}"
        if fits(found, device):
            lines.append(f"#   {size:>3} GB: fits, {peak}")
        else:
            way = first_way(config, device)
            lines.append(f"#   {size:>3} GB: too small for {peak}" + ("" if way is None else ". Fits with"))
            lines += [] if way is None else [f"#           {in_words(way, device)}"]
    return "\n".join(lines) + "\n"


def first_way(config: Config, device: Device) -> Change | None:
    """Return the first change of settings that fits and is the same method: on this GPU, else on more of them."""
    ways = [change for change in changes(config, device) if change.fits and not change.method]
    plain = [change for change in ways if change.processes == device.count]
    return next(iter([*plain, *ways]), None)


def in_words(change: Change, device: Device) -> str:
    """Return a change of settings and its peak in one line."""
    settings = " ".join(f"'{setting}'" if " " in setting else setting for setting in change.settings)
    more = f" --processes {change.processes}" if change.processes != device.count else ""
    return f"{settings}{more}: {gigabytes(change.estimate.peak)}"


def recipe_files() -> Iterator[tuple[Path, str]]:
    """Yield the file of each large recipe, and its text with the comment of today."""
    for name in large():
        file = RECIPES / f"{name}.yaml"
        text = file.read_text(encoding="utf-8")
        if COMMENT.search(text) is None:
            raise ValueError(f"{file} has no line '{BEGIN}'")
        yield file, COMMENT.sub(comment(name).replace("\\", r"\\"), text)


def page() -> str:
    """Return the page about large models, with the table of today."""
    text = PAGE.read_text(encoding="utf-8")
    return BLOCK.sub(lambda found: f"{found[1]}{table().markdown()}\n{found[2]}", text)


def table() -> Table:
    """Return the table of recipes: the peak of one process, the least GPU, the time on it, and the disk."""
    rows = []
    for name in large():
        config = load_config(name)
        peak = estimate_for(config, named_device("1x141GB")).peak
        gpus, settings = least_gpus(config)
        config = load_config(name, settings)
        shape, _ = shape_of_run(config)
        pace, disk = stated_pace(config, shape, named_device(gpus)), disk_of(config, shape)
        rows.append(
            [
                f"`{name}`",
                gigabytes(peak),
                f"{gpus}, sharded" if settings else gpus,
                duration(pace.iteration),
                duration(pace.run),
                gigabytes(disk.checkpoint),
                gigabytes(disk.run),
            ]
        )
    headings = (
        "recipe",
        "peak on one GPU",
        "least GPUs",
        "an iteration there",
        "the run",
        "checkpoint",
        "disk of the run",
    )
    return Table("recipes", headings, rows)


def least_gpus(config: Config) -> tuple[str, tuple[str, ...]]:
    """Return the smallest single GPU that a recipe fits as it is; else GPUs of 80 GB, and settings that shard it.

    Raises:
        ValueError: It fits on none that are asked about.
    """
    for size in GPUS:
        device = named_device(f"1x{size}GB")
        if fits(estimate_for(config, device), device):
            return f"1x{size}GB", ()
    device = named_device("1x80GB")
    for change in changes(config, device):
        if change.fits and change.processes > 1 and not change.method:
            return f"{change.processes}x80GB", change.settings
    raise ValueError(f"{config.name} fits on no number of GPUs of 80 GB that `hiper check` knows")


def files() -> dict[Path, str]:
    """Return every file that this module writes, with its text."""
    return {**dict(recipe_files()), PAGE: page()}
