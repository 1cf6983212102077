"""`hiper view`, `hiper train --view`, and the files that ship."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hiper.viewer import serve as serving
from hiper.viewer.app import STATIC

Hiper = Callable[..., Any]


def view(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "hiper", "view", *map(str, arguments), "--no-browser"]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | {"COLUMNS": "200"}
    )


def address_of(line: str) -> str:
    match = re.search(r"http://\S+", line)
    assert match is not None, line
    return match[0]


def asked(address: str, path: str = "api/runs") -> dict[str, Any]:
    with urllib.request.urlopen(address + path, timeout=20) as answer:
        read: dict[str, Any] = json.load(answer)
        return read


def shows(address: str, folder: Path) -> bool:
    """Whether the viewer of a folder answers. A viewer of another test may have taken its port since."""
    try:
        return bool(asked(address)["folder"] == folder.name)
    except OSError:
        return False


def test_it_tells_the_address_and_ends_with_ctrl_c(runs: Path):
    process = view(runs)
    assert process.stdout is not None
    address = address_of(process.stdout.readline())
    assert [run["id"] for run in asked(address)["runs"]] == ["study/tiny-seed1", "tiny-seed0"]
    assert shows(address, runs)
    process.send_signal(signal.SIGINT)
    told = process.stdout.read()
    assert process.wait(20) in (0, 130)
    assert "Traceback" not in told


def test_ctrl_c_does_not_wait_for_a_slow_answer():
    script = """
import time
from starlette.applications import Starlette
from starlette.routing import Route
from hiper.viewer.serve import bind, serve
def slow(request):
    print("asked", flush=True)
    time.sleep(300)
listening = bind("127.0.0.1", None)
print(listening.getsockname()[1], flush=True)
serve(Starlette(routes=[Route("/", slow)]), listening, lambda: print("closed", flush=True))
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with socket.create_connection(("127.0.0.1", int(process.stdout.readline())), 20) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert process.stdout.readline() == "asked\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    assert process.stdout.read() == "closed\n"


def test_packed_runs_are_shown(tiny_run: Path, tmp_path: Path):
    from hiper.runs.folder import Run
    from hiper.runs.records import pack

    file = tmp_path / "records.tar.xz"
    pack([Run.open(tiny_run)], tiny_run.parent, file)
    process = view(file)
    assert process.stdout is not None
    try:
        found = asked(address_of(process.stdout.readline()))
        assert [(run["id"], run["iteration"]) for run in found["runs"]] == [("tiny", 2)]
    finally:
        process.terminate()
        process.wait(20)


def test_another_address_needs_the_token(runs: Path):
    process = view(runs, "--host", "0.0.0.0")
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        port, token = re.search(r":(\d+)/\?token=(\S+)", line).groups()  # type: ignore[union-attr]
        with pytest.raises(urllib.error.HTTPError, match="401"):
            asked(f"http://127.0.0.1:{port}/")
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        assert b"<main" in opener.open(f"http://127.0.0.1:{port}/?token={token}").read()
        assert json.load(opener.open(f"http://127.0.0.1:{port}/api/runs"))["runs"]
    finally:
        process.terminate()
        process.wait(20)


def test_a_taken_port_is_told_or_passed_over(hiper: Hiper, runs: Path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        told = hiper("view", runs, "--no-browser", "--port", port)
        assert told.code == 2
        assert f"cannot listen on port {port}" in told.err
        assert "--port" in told.err


def test_the_first_free_port_is_taken(monkeypatch: pytest.MonkeyPatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setattr(serving, "FIRST_PORT", taken.getsockname()[1])
        with serving.bind("127.0.0.1", None) as found:
            assert found.getsockname()[1] != taken.getsockname()[1]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("nowhere",), "there is no folder nowhere"),
        (("nowhere", "--export", "page.html"), "there is no folder nowhere"),
        (("{run}", "--episodes", "iter-00002/1"), "name the page with --export"),
        (("{run}", "--export", "page.html", "--episodes", "17"), "is no episode"),
        (("{run}", "--host", "no.such.host.invalid"), "no address of this machine"),
    ],
)
def test_mistakes_are_told(
    hiper: Hiper, tiny_run: Path, arguments: tuple[str, ...], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    done = hiper("view", *(argument.format(run=tiny_run) for argument in arguments))
    assert done.code == 2
    assert told in done.err


def test_a_missing_extra_is_named(hiper: Hiper, tiny_run: Path, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    for arguments in (("view", tiny_run), ("view", tiny_run, "--export", "x.html"), ("train", tiny_recipe, "--view")):
        done = hiper(*arguments)
        assert done.code == 2
        assert "pip install 'hiper[viewer]'" in done.err


def test_export_writes_a_page(hiper: Hiper, tiny_run: Path, tmp_path: Path):
    done = hiper(
        "view", tiny_run, "--export", tmp_path / "page.html", "--episodes", "iter-00001/2, eval-00002-held_out/1"
    )
    assert done.code == 0, done.err
    assert "2 episodes: iter-00001/2, eval-00002-held_out/1" in " ".join(done.out.split())
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")


def test_a_page_without_episodes_is_not_written_by_mistake(hiper: Hiper, tiny_run: Path, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    for arguments, told in (
        ((tiny_run, "--episodes", " ,,"), "--episodes names no episode"),
        ((tmp_path / "empty",), "holds no runs"),
    ):
        done = hiper("view", *arguments, "--export", tmp_path / "page.html")
        assert done.code == 2
        assert told in " ".join(done.err.split())
    assert not (tmp_path / "page.html").exists()


def test_training_is_shown_while_it_goes_on(tiny_recipe: Path, tmp_path: Path):
    run = tmp_path / "watched-run"
    command = [sys.executable, "-m", "hiper", "train", str(tiny_recipe), "--view", "--out", str(run)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | {"COLUMNS": "200"}
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    while "http://" not in line:
        assert line, "training ended without a viewer"
        line = process.stdout.readline()
    address = address_of(line)
    seen = set()
    while process.poll() is None:
        for found in asked(address)["runs"]:
            seen.add((found["id"], found["state"], found["iteration"]))
        time.sleep(0.2)
        if ("watched-run", "training", 1) in seen:
            break
    assert ("watched-run", "training", 1) in seen
    told = process.stdout.read()
    assert process.wait(60) == 0, told
    assert not shows(address, run)  # it ended with training


def test_a_viewer_beside_a_killed_process_ends(tiny_run: Path, tmp_path: Path):
    run = shutil.copytree(tiny_run, tmp_path / "run-of-a-killed-process")
    script = (
        "import os, sys\nfrom pathlib import Path\nfrom hiper.viewer.serve import viewer_beside\n"
        "with viewer_beside(Path(sys.argv[1]), lambda line: print(line, flush=True)):\n    os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(run)], capture_output=True, text=True, check=False)
    address = address_of(done.stdout)
    for _ in range(100):
        if not shows(address, run):
            return
        time.sleep(0.1)
    raise AssertionError("the viewer outlived its process")


def test_third_party_files_are_those_that_were_published():
    rows = re.findall(r"\| `(\S+)` \|.*\| (\w{64}) \|", (STATIC / "vendor" / "THIRD_PARTY.md").read_text())
    assert len(rows) == 2
    for name, digest in rows:
        assert hashlib.sha256((STATIC / "vendor" / name).read_bytes()).hexdigest() == digest
    assert "MIT" in (STATIC / "vendor" / "uplot.LICENSE").read_text()


def test_the_page_names_no_other_host():
    for file in STATIC.glob("*.*"):
        text = file.read_text()
        assert re.findall(r"https?://(?!www\.w3\.org/2000/svg)", text) == [], file.name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", text), file.name
