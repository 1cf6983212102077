"""The command `hiper view`: the viewer in a browser, or one page in a file."""

from __future__ import annotations

import os
import sys
import webbrowser
from contextlib import ExitStack
from pathlib import Path

from hiper.display.console import Display
from hiper.errors import UserError
from hiper.runs.records import unpack
from hiper.viewer.serve import address, bind, end_with, needs_extra, serve


def view(
    path: Path, display: Display, *, port: int | None, host: str | None, browser: bool, beside: bool = False
) -> None:
    """Show a run, or all runs below a folder, until the process is stopped.

    Args:
        path: The folder, or a packed file of runs.
        display: Where the address is shown.
        port: The port. None: a free one.
        host: The address to listen on. None: this machine alone can reach the viewer.
        browser: Whether a browser is opened where there is a display.
        beside: Whether the process ends with its standard input, and ``path`` may be made later.

    Raises:
        UserError: There is no such folder, or the port is taken.
    """
    needs_extra()
    if not path.exists() and not beside:
        raise UserError(f"there is no folder {path}: give a run, or a folder with runs")
    if beside:
        os.nice(5)
        end_with(sys.stdin)
    from hiper.viewer.app import Library, make_app
    from hiper.viewer.playing import play_routes
    from hiper.viewer.safety import Door

    with ExitStack() as stack:
        root = stack.enter_context(unpack(path)).folder if path.is_file() else path
        door = Door.for_host(host)
        listening = bind(host or "127.0.0.1", port)
        library = Library(root)
        library.worker.start()
        stack.callback(library.worker.close)
        url = address(listening, host or "127.0.0.1", door.token)
        display.whole_line(f"view       {url}")
        if not beside:
            display.note("Ctrl-C ends the viewer.")
        sys.stdout.flush()
        if browser and _has_display():
            webbrowser.open(url)
        serve(make_app(library, door, play_routes(library)), listening, stack.close)


def export(path: Path, file: Path, display: Display, episodes: str | None) -> None:
    """Write one page about a run that needs no server.

    Args:
        path: The folder of the run.
        file: The page.
        display: Where the result is shown.
        episodes: The episodes, separated by commas. None: some of the last.

    Raises:
        UserError: There is no such run or episode.
    """
    needs_extra()
    if not path.is_dir():
        raise UserError(f"there is no folder {path}: give a run")
    from hiper.viewer.export import export_page

    asked = None if episodes is None else [episode for episode in episodes.split(",") if episode.strip()]
    if asked == []:
        raise UserError("--episodes names no episode: name some, such as iter-00003/17, or leave it out")
    with display.bar("writing the page"):
        chosen = export_page(path, file, asked)
    size = file.stat().st_size / 1e6
    display.note(f"{file}: {size:.1f} MB, with {len(chosen)} episodes: {', '.join(chosen) or 'none are stored'}")


def _has_display() -> bool:
    """Whether a browser could show a window."""
    return sys.platform == "darwin" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
