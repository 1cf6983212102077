"""Who may enter, what a browser may do, and that no path leads out of the folder."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

from hiper.viewer.safety import COOKIE, POLICY, Door

Serve = Callable[..., str]


def ask(
    base: str, path: str, method: str = "GET", body: str | None = None, **headers: str
) -> tuple[int, dict[str, str], str]:
    """Send a request as it is, with no help of a browser."""
    place = urlsplit(base)
    assert place.hostname is not None
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=30)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.putrequest(method, path, skip_host="Host" in named)
    for name, value in named.items():
        connection.putheader(name, value)
    if body is not None:
        connection.putheader("Content-Length", str(len(body.encode())))
    connection.endheaders(body.encode() if body is not None else None)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, text


def test_every_answer_forbids_what_is_not_needed(serve: Serve, runs: Path):
    base = serve(runs)
    for path in ("/", "/style.css", "/main.js", "/api/runs", "/nowhere", "/api/run?run=nowhere"):
        _, headers, _ = ask(base, path)
        assert headers["content-security-policy"] == POLICY
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
    assert "unsafe" not in POLICY
    assert "default-src 'none'" in POLICY


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "localhost.evil.example"]
)
def test_other_names_of_the_host_are_refused(serve: Serve, runs: Path, host: str):
    assert ask(serve(runs), "/api/runs", Host=host)[0] == 421


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:1234", "[::1]:8000", "LOCALHOST"])
def test_names_of_this_machine_are_served(serve: Serve, runs: Path, host: str):
    assert ask(serve(runs), "/api/runs", Host=host)[0] == 200


def test_beyond_loopback_a_token_is_needed(serve: Serve, runs: Path):
    door = Door.for_host("0.0.0.0")
    assert door.token is not None
    assert len(door.token) >= 32
    assert door.token not in repr(door)
    base = serve(runs, door)
    for path in ("/", "/main.js", "/api/runs", "/api/runs?token=wrong", "/api/runs?token="):
        status, _, text = ask(base, path)
        assert status == 401
        assert "tiny" not in text
    status, headers, _ = ask(base, f"/?token={door.token}")
    assert (status, headers["location"]) == (303, "/")
    cookie = headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=strict" in cookie.lower()
    assert ask(base, "/api/runs", Cookie=cookie.split(";")[0])[0] == 200
    assert ask(base, "/api/runs", Cookie=f"{COOKIE}=wrong")[0] == 401
    assert ask(base, "/api/runs", Cookie=f"{COOKIE}={door.token}", Host="evil.example")[0] == 421
    assert ask(base, "/api/runs", Cookie=f"{COOKIE}={door.token}", Host="192.0.2.7:80")[0] == 200


def test_two_servers_have_different_tokens():
    assert Door.for_host("0.0.0.0").token != Door.for_host("0.0.0.0").token
    assert Door.for_host(None).token is None


@pytest.mark.parametrize(
    "path",
    [
        "/../pyproject.toml", "/..%2f..%2fsafety.py", "/%2e%2e/safety.py", "/vendor/../../safety.py", "//etc/passwd",
        "/api/run?run=..", "/api/run?run=/etc", "/api/run?run=../secret", "/api/run?run=%00",
        "/api/episode?run=tiny-seed0&file=../../metrics&n=0", "/api/episode?run=tiny-seed0&file=/etc/passwd&n=0",
        "/api/prompt?run=tiny-seed0&file=iter-00001&n=0&turn=999", "/api/episode?run=tiny-seed0&file=iter-00001&n=-1",
    ],
)  # fmt: skip
def test_no_path_leads_out(serve: Serve, runs: Path, path: str):
    (runs.parent / "secret").mkdir(exist_ok=True)
    (runs.parent / "secret" / "config.yaml").write_text("name: secret\n")
    status, _, text = ask(serve(runs), path)
    assert status == 404
    for told in ("name: secret", "Middleware", "[build-system]", "root:"):
        assert told not in text


def test_reading_changes_nothing(serve: Serve, runs: Path):
    before = {path: path.stat().st_mtime_ns for path in runs.rglob("*")}
    base = serve(runs)
    run, episode = "run=tiny-seed0", "run=tiny-seed0&file=iter-00001&n=0"
    for path in ("runs", f"run?{run}", f"episodes?{run}&after=0", f"episode?{episode}", f"credit?{episode}", "stamps"):
        assert ask(base, f"/api/{path}")[0] == 200
    assert {path: path.stat().st_mtime_ns for path in runs.rglob("*")} == before


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_only_playing_takes_anything(serve: Serve, runs: Path, method: str):
    base = serve(runs)
    own = {"Origin": base.rstrip("/"), "Content_Type": "application/json"}
    assert ask(base, "/api/runs", method, "{}", **own)[0] == 405
    assert ask(base, "/api/play/begin", method, '{"env": "corridor"}', **own)[0] == (200 if method == "POST" else 405)


def test_other_pages_cannot_play(serve: Serve, runs: Path):
    base = serve(runs)
    body = json.dumps({"env": "corridor"})
    json_type = {"Content_Type": "application/json"}
    assert ask(base, "/api/play/begin", "POST", body, **json_type)[0] == 403
    assert ask(base, "/api/play/begin", "POST", body, Origin="http://evil.example", **json_type)[0] == 403
    assert ask(base, "/api/play/begin", "POST", body, Origin=base.rstrip("/"), Content_Type="text/plain")[0] == 403


@pytest.mark.parametrize("settings", ["nonsense", "[]", "[" * 20_000, '{"gamma": NaN}', '{"gamma": 7}', '{"x": 1}'])
def test_odd_settings_are_told_why(serve: Serve, runs: Path, settings: str):
    place = f"/api/credit?run=tiny-seed0&file=iter-00001&n=0&set={quote(settings)}"
    status, _, told = ask(serve(runs), place)
    assert status == 400
    assert json.loads(told)["error"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("", 400),
        ("[]", 400),
        ("{", 400),
        ("[" * 60_000, 400),
        ('{"env": 3}', 400),
        ('{"env": "os:system"}', 400),
        ('{"env": "corridor", "seed": -1}', 400),
        ('{"env": "corridor", "task": "nowhere"}', 400),
        ('{"env": "corridor", "options": "cells"}', 400),
        ("x" * 70_000, 413),
    ],
)
def test_odd_requests_are_told_why(serve: Serve, runs: Path, body: str, status: int):
    base = serve(runs)
    told = ask(base, "/api/play/begin", "POST", body, Origin=base.rstrip("/"), Content_Type="application/json")
    assert told[0] == status
    assert json.loads(told[2])["error"]
