"""A folder of runs, a server that shows it, and a real browser."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from helpers.missing import skip_without

pytest.importorskip("starlette")
uvicorn = pytest.importorskip("uvicorn")
playwright_api = pytest.importorskip("playwright.sync_api")

if TYPE_CHECKING:
    from hiper.viewer.app import Library
    from hiper.viewer.safety import Door

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def chromium() -> str | None:
    return os.environ.get("HIPER_CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    program = chromium()
    if program is None:
        skip_without("Chromium", Path("/usr/bin/chromium"))
    with playwright_api.sync_playwright() as started:
        running = started.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture(autouse=True, scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Indexes are kept here, not in the user's folder."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


Serve = Callable[..., str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts servers in threads, each with the address that it returns."""
    from hiper.viewer.app import Library, make_app
    from hiper.viewer.playing import play_routes
    from hiper.viewer.safety import Door
    from hiper.viewer.serve import bind

    running: list[tuple[Any, threading.Thread, Library]] = []

    def start(root: Path, door: Door | None = None) -> str:
        listening = bind("127.0.0.1", None)
        library = Library(root)
        app = make_app(library, door or Door.for_host(None), play_routes(library))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        running.append((server, thread, library))
        return f"http://127.0.0.1:{listening.getsockname()[1]}/"

    yield start
    for server, thread, library in running:
        server.should_exit = True
        thread.join(10)
        library.worker.close()


class Visit:
    """A page of the viewer, and everything that went wrong in it."""

    def __init__(self, page: Any, base: str) -> None:
        self.page, self.base = page, base
        self.errors: list[str] = []
        self.requests: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda told: self.errors.append(told.text) if told.type == "error" else None)
        page.on("dialog", self._dialog)
        page.on("request", lambda request: self.requests.append(request.url))

    def _dialog(self, dialog: Any) -> None:
        self.errors.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def open(self, address: str = "") -> Any:
        """Go to an address and wait until the view is there."""
        self.page.goto(f"{self.base}{address}")
        self.settled()
        return self.page

    def settled(self) -> None:
        self.page.wait_for_selector("main:not([aria-busy]) > *")

    @property
    def text(self) -> str:
        return str(self.page.inner_text("main"))

    def elsewhere(self) -> list[str]:
        """Requests that left the server."""
        return [url for url in self.requests if not url.startswith((self.base, "data:", "file:"))]


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Visit]]:
    contexts = []

    def start(base: str, **options: Any) -> Visit:
        context = browser.new_context(**({"viewport": {"width": 1280, "height": 900}} | options))
        contexts.append(context)
        return Visit(context.new_page(), base)

    yield start
    for context in contexts:
        context.close()


@pytest.fixture(scope="session")
def runs(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run, and a second one of another seed and learning rate. Copy it before changing anything."""
    folder = tmp_path_factory.mktemp("viewer") / "runs"
    shutil.copytree(tiny_run, folder / "tiny-seed0")
    other = folder / "study" / "tiny-seed1"
    shutil.copytree(tiny_run, other)
    settings = (other / "config.yaml").read_text()
    (other / "config.yaml").write_text(
        settings.replace("seed: 0\n", "seed: 1\n", 1).replace("  lr: 0.001", "  lr: 0.002", 1)
    )
    return folder
