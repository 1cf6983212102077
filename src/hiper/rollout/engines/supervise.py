"""Run a command until it ends or nobody needs it any more. This file is a program of its own, and imports no hiper.

    python supervise.py FOLDER COMMAND ...

The trainer holds the other end of this program's standard input. When the trainer ends, however it ends, the pipe
closes, and this program ends the command with all processes that it started. If the pipe was inherited by others, the
change of this program's parent tells the same. If the trainer was killed, FOLDER is deleted too.
"""

from __future__ import annotations

import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import time

POLL_SECONDS = 0.5
GRACE_SECONDS = 10.0
"""How long the command may take to end by itself."""
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


def main(folder: str, command: list[str]) -> int:
    """Run the command, and return its exit code. Delete the folder if the trainer does not live to do it."""
    parent = os.getppid()
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1)  # processes whose parents died become this one's, and are ended with it
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # a terminal's signals are for the trainer
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL),
    )
    signal.signal(signal.SIGTERM, lambda number, frame: end(child))
    while child.poll() is None:
        ready, _, _ = select.select([0], [], [], POLL_SECONDS)
        if (ready and not os.read(0, 1)) or os.getppid() != parent:
            end(child)
    end(child)  # what it left behind
    if os.getppid() != parent:
        shutil.rmtree(folder, ignore_errors=True)
    return child.returncode


def end(child: subprocess.Popen[bytes]) -> None:
    """End the command and its processes: politely, then not."""
    for number, seconds in ((signal.SIGTERM, GRACE_SECONDS), (signal.SIGKILL, 1.0)):
        try:
            os.killpg(child.pid, number)
        except ProcessLookupError:
            return
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            child.poll()
            try:
                os.killpg(child.pid, 0)
            except ProcessLookupError:
                return
            reap()
            time.sleep(0.05)


def reap() -> None:
    """Take note of the end of processes whose parents died."""
    try:
        while os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            pid, _ = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
    except ChildProcessError:
        pass


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
