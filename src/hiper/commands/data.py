"""`hiper data`: show which official data of an environment are installed, and install them."""

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
    """Show what is installed; return whether nothing installed is wrong. Missing data are not wrong.

    Args:
        env: name of the environment.
        folder: folder of the data; None: the place where the environment looks.
        display: where to show it.
        only: name of the only data set to look at; None: all.

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
            display.note(f"    a WRONG file is damaged or not official: move it away, then {get}")
        elif any(found.state is State.MISSING for found in findings):
            display.note(f"    download what is missing: {get}")
    display.note(f"  {home.checksums}.")
    return State.WRONG not in states


def get_data(env: str, name: str, folder: Path | None, display: Display) -> None:
    """Install what is missing of a data set, and say where it came from.

    Args:
        env: name of the environment.
        name: name of the data set.
        folder: folder of the data; None: the place where the environment looks.
        display: where to show progress.

    Raises:
        UserError: there is no such data set, other files are in its place, or no source provides it. The message
            says how to get it by hand.
        KeyboardInterrupt: the user stopped. The same call continues.
    """
    home = official_data(env)
    place = _folder(home, folder)
    data_set = home.set_named(name)
    try:
        arrivals = data_set.install(place, display.bytes_bar)
    except NoSourceError as error:
        raise UserError(f"{error}\nBy hand: {home.by_hand}.") from error
    except KeyboardInterrupt:
        display.interrupted("what has come is kept", display.command)
        raise
    for arrival in arrivals:
        display.note(
            f"{arrival.path.name}: {arrival.size:,} bytes from {arrival.source.name} ({arrival.source.url}), "
            f"sha256 {arrival.sha256}"
        )
    if not arrivals:
        display.note(f"{name}: nothing is missing")


def _folder(home: DataHome, folder: Path | None) -> Path:
    return home.folder() if folder is None else folder
