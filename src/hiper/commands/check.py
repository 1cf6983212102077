"""`hiper check`: memory by part and phase, time and disk of a run, and whether it fits. No weights are loaded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hiper.config import Config, apply_overrides, load_config, validate_config
from hiper.display.console import Display
from hiper.display.tables import Table
from hiper.display.text import duration
from hiper.files import user_path
from hiper.runs.folder import Run

if TYPE_CHECKING:  # they need torch
    from hiper.training.estimate.devices import Device
    from hiper.training.estimate.fit import Change
    from hiper.training.estimate.memory import Estimate
    from hiper.training.estimate.time import Disk, Pace


def check(source: str, settings: Sequence[str], gpus: str | None, processes: int | None, display: Display) -> bool:
    """Show what a run would take, and return whether it fits.

    Args:
        source: A recipe, a YAML file, or the folder of a run.
        settings: Overrides of its settings.
        gpus: The devices, as in ``4x24GB``. None: those of this machine.
        processes: The number of processes. None: one for each device.
        display: Where to show it.

    Raises:
        UserError: The settings, the devices or the model's config cannot be used.
    """
    run, config = _opened(source, settings)
    with display.bar("loading torch"):
        from hiper.training.estimate import devices, fit, models, time

    device = (
        devices.replace_count(devices.this_machine(config.training.device), processes)
        if gpus is None
        else devices.named_device(gpus, processes)
    )
    shape, note = models.shape_of_run(config)
    found = fit.estimate_for(config, device)
    iterations = [] if run is None else run.iteration_metrics()
    pace = time.measured_pace(config, iterations) or time.stated_pace(config, shape, device)
    good = fit.fits(found, device)
    display.note(f"model      {config.model.path or 'a new nano model'}, {shape.parameters:,} parameters")
    display.note(*([f"           {note}"] if note else []))
    each = f" of {device.count} processes" if device.count > 1 else ""
    display.table(memory_table(found, f"memory of each{each or ' process'}"))
    if found.host:
        rows = [[part, devices.gigabytes(size)] for part, size in found.host.items()]
        total = ["sum", devices.gigabytes(sum(found.host.values()))]
        display.table(Table("the machine's memory for each process", ("part", "bytes"), [*rows, total], total="sum"))
    display.table(time_table(pace))
    display.note(*disk_lines(time.disk_of(config, shape)))
    display.note("", verdict(found, device, good))
    if not good:
        changed = fit.changes(config, device)
        display.table(changes_table(changed, device.count))
        if any(change.method for change in changed):
            display.note("* another method: its results differ from the published ones")
    return good


def _opened(source: str, settings: Sequence[str]) -> tuple[Run | None, Config]:
    """Return the run, if the source is one, and the settings."""
    path = user_path(source)
    if path.is_dir():
        run = Run.open(path)
        tree = apply_overrides(run.config.model_dump(mode="json"), settings)
        return run, validate_config(tree, str(path)) if settings else run.config
    return None, load_config(source, settings)


def memory_table(found: Estimate, title: str) -> Table:
    """Return the table of memory: a column for each phase, and a row for each part."""
    from hiper.training.estimate.devices import gigabytes

    phases = list(found.phases)
    rows = [
        [part, *(gigabytes(found.phases[phase][part]) if part in found.phases[phase] else "" for phase in phases)]
        for part in found.parts
    ]
    total = ["sum", *(gigabytes(sum(found.phases[phase].values())) for phase in phases)]
    return Table(title, ("part", *phases), [*rows, total], total="sum")


def time_table(pace: Pace) -> Table:
    """Return the table of time: an iteration by phase, and all iterations."""
    rows = [[phase, duration(seconds), f"{seconds / pace.iteration:.0%}"] for phase, seconds in pace.phases.items()]
    rows.append(["iteration", duration(pace.iteration), ""])
    rows.append([f"{pace.iterations} iterations", duration(pace.run), ""])
    return Table(f"time, {pace.source}", ("phase", "time", "share"), rows, total=rows[-1][0])


def disk_lines(disk: Disk) -> list[str]:
    """Return the lines about the disk."""
    from hiper.training.estimate.devices import gigabytes

    return [
        "",
        f"disk       {gigabytes(disk.run)}: a checkpoint is {gigabytes(disk.checkpoint)}, those kept and the one being "
        f"written {gigabytes(disk.checkpoints)}, episodes up to {gigabytes(disk.episodes)}",
    ]


def verdict(found: Estimate, device: Device, good: bool) -> str:
    """Return the sentence that says whether it fits."""
    from hiper.training.estimate.devices import gigabytes

    needed = f"{gigabytes(found.peak)} in {found.peak_phase}"
    if device.for_each is None:
        return f"it needs {needed}; the memory of {device.name} is not known"
    there = f"{gigabytes(device.for_each)} of {device.name}"
    return f"it {'fits' if good else 'does NOT fit'}: {needed}, and each process has {there}"


def changes_table(found: Sequence[Change], count: int) -> Table:
    """Return the table of settings that would need less memory, beside ``count`` processes or others."""
    from hiper.training.estimate.devices import gigabytes

    rows = []
    for change in found:
        more = f" --processes {change.processes}" if change.processes != count else ""
        mark = " *" if change.method else ""
        settings = " ".join(f"'{s}'" if " " in s else s for s in change.settings)
        rows.append([f"{settings}{more}{mark}", gigabytes(change.estimate.peak), "yes" if change.fits else "no"])
    return Table("settings that need less", ("settings", "peak", "fits"), rows)
