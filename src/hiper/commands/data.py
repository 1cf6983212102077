"""`hiper data`: what is installed of an environment's official data, and installing it."""

from __future__ import annotations

from pathlib import Path

from hiper.display.console import Display
from hiper.envs.downloads.sets import DataHome, State
from hiper.envs.downloads.transfer import NoSourceError
from hiper.envs.registry import official_data
from hiper.errors import UserError

WORDS = {
    State.RIGHT: "checksum right",
    State.MISSING: "missing",
    State.WRONG: "WRONG",
    State.UNVERIFIED: "there, no checksum is known",
}


def show_data(env: str, folder: Path | None, display: Display, only: str | None = None) -> bool:
    """Say what is installed; whether nothing is wrong with it. What is missing is not wrong.

    Args:
        env: name of the environment.
        folder: where to look; None: where the environment does.
        display: where it is said.
        only: name of the one data set to look at; None: all.

    Raises:
        UserError: the environment has no official data.
    """
    home = official_data(env)
    place = _folder(home, folder)
    display.note(f"{env}: {place}" + ("" if folder else f" ({home.variable} names another place)"))
    states = []
    for data_set in home.sets if only is None else (home.set_named(only),):
        findings = data_set.inspect(place, display.bytes_bar)
        states += [found.state for found in findings]
        display.note(f"  {data_set.name}: {data_set.summary}")
        for found in findings:
            detail = f": {found.detail}" if found.detail else ""
            display.note(f"    {found.what:{max(len(f.what) for f in findings)}}  {WORDS[found.state]}{detail}")
        get = f"hiper data {env} --get {data_set.name}" + (f" --folder {folder}" if folder else "")
        if any(found.state is State.WRONG for found in findings):
            display.note(f"    what is wrong is not the official data, or damaged: move it away, then {get}")
        elif any(found.state is State.MISSING for found in findings):
            display.note(f"    get what is missing: {get}")
    display.note(f"  {home.checksums}.")
    return State.WRONG not in states


def get_data(env: str, name: str, folder: Path | None, display: Display) -> None:
    """Install what is missing of a data set, and say where it came from.

    Args:
        env: name of the environment.
        name: of the data set.
        folder: where to; None: where the environment looks.
        display: where progress is shown.

    Raises:
        UserError: there is no such set, something else is in its place, or no place gives it; the message says how
            to get it by hand.
    """
    home = official_data(env)
    place = _folder(home, folder)
    data_set = home.set_named(name)
    try:
        arrivals = data_set.install(place, display.bytes_bar)
    except NoSourceError as error:
        raise UserError(f"{error}\nBy hand: {home.by_hand}.") from error
    for arrival in arrivals:
        display.note(
            f"{arrival.path.name}: {arrival.size:,} bytes from {arrival.source.name} ({arrival.source.url}), "
            f"sha256 {arrival.sha256}"
        )
    if not arrivals:
        display.note(f"{name}: nothing is missing")


def _folder(home: DataHome, folder: Path | None) -> Path:
    return home.folder() if folder is None else folder.expanduser()
