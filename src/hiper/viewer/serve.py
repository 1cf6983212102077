"""The server process: its port, its end, and a viewer beside a training run."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import IO, TYPE_CHECKING

from hiper.errors import UserError

if TYPE_CHECKING:
    from starlette.applications import Starlette

FIRST_PORT = 8765
"""The port that is tried first when none is asked for."""
TRIED_PORTS = 50
END_SECONDS = 3.0
"""How long requests may go on after Ctrl-C."""
START_SECONDS = 15.0
"""How long a training run waits for the address of its viewer."""


def needs_extra() -> None:
    """Check that the packages of the viewer are there.

    Raises:
        UserError: One is missing.
    """
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise UserError(f"the viewer needs {error.name}: pip install 'hiper[viewer]'") from None


def bind(host: str, port: int | None) -> socket.socket:
    """Return a socket that listens on a port.

    Args:
        host: The address to listen on.
        port: The port. None: the first free one from :data:`FIRST_PORT` on.

    Raises:
        UserError: The port is taken, or there is no such address on this machine.
    """
    tried = [port] if port is not None else [*range(FIRST_PORT, FIRST_PORT + TRIED_PORTS), 0]
    refused: OSError | None = None
    for candidate in tried:
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(host, candidate, type=socket.SOCK_STREAM)[0]
        except OSError as error:
            raise UserError(
                f"'{host}' is no address of this machine; leave out --host for this machine alone"
            ) from error
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(address)
            listening.listen(128)
        except OSError as error:
            listening.close()
            refused = error
            continue
        return listening
    reason = refused.strerror if refused is not None else "none is free"
    raise UserError(f"cannot listen on port {port} of {host} ({reason}): choose another with --port, or leave it out")


def address(listening: socket.socket, host: str, token: str | None) -> str:
    """Return the address of a server for a browser."""
    port = listening.getsockname()[1]
    name = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(host, host)
    shown = f"[{name}]" if ":" in name else name
    return f"http://{shown}:{port}/" + (f"?token={token}" if token else "")


def serve(app: Starlette, listening: socket.socket, close: Callable[[], object]) -> None:
    """Answer requests until the process is stopped.

    Args:
        app: The application.
        listening: The socket.
        close: A function that gives back what the process holds. It is called if the process must be ended because an
            answer takes too long: an environment that is being made, or a policy that is being loaded.
    """
    import uvicorn

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            super().handle_exit(sig, frame)
            end = threading.Timer(END_SECONDS, _end, [close])
            end.daemon = True
            end.start()

    config = uvicorn.Config(app, log_level="error", access_log=False, lifespan="off", timeout_graceful_shutdown=1)
    Server(config).run(sockets=[listening])


def _end(close: Callable[[], object]) -> None:
    with suppress(Exception):
        close()
    os._exit(0)


def end_with(stream: IO[str], end: Callable[[int], object] = os._exit) -> None:
    """End this process when a stream ends, as when the process at its other end is gone."""

    def wait() -> None:
        with suppress(OSError, ValueError):
            stream.read()
        end(0)

    threading.Thread(target=wait, daemon=True).start()


@contextmanager
def viewer_beside(run: Path, tell: Callable[[str], object]) -> Iterator[None]:
    """Show a run in a process of its own while the block runs. What happens to it does not disturb the block.

    Args:
        run: The folder of the run, which may not exist yet.
        tell: A function that is told the address, or why there is no viewer.
    """
    command = [sys.executable, "-m", "hiper", "view", str(run), "--no-browser", "--beside"]
    child = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,  # it ends with this process, however that ends
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # Ctrl-C is for training
    )
    try:
        tell(_first_line(child))
        yield
    finally:
        child.kill()
        child.wait()
        for stream in (child.stdin, child.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()


def _first_line(child: subprocess.Popen[str]) -> str:
    """Return the first line that the viewer writes, and go on reading so that it never waits for a reader."""
    said: list[str] = []
    came = threading.Event()

    def read() -> None:
        assert child.stdout is not None
        with suppress(OSError, ValueError):
            for line in child.stdout:
                said.append(line.strip())
                came.set()
        came.set()

    threading.Thread(target=read, daemon=True).start()
    came.wait(START_SECONDS)
    return said[0] if said else "the viewer did not start; `hiper view RUN` in another terminal says why"
