"""What models, environments and files say is text, wherever the page shows it."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hiper.episode import Episode, read_episodes, write_episodes
from hiper.viewer.export import export_page

PROBES = dict(
    re.findall(r"^// (\w+):.*\n((?:.+\n)+)", (Path(__file__).parent / "probes.js").read_text(encoding="utf-8"), re.M)
)
"""Functions that run in the page, by name."""
Serve = Callable[..., str]
Visits = Callable[..., Any]

IMAGE = "<img src=x onerror=alert(1)>"
SCRIPT = "</script><script>alert(2)</script>"
HOSTILE = f"{IMAGE}{SCRIPT}<!--\u2028'\"`${{7*7}}{{{{7*7}}}}"
FOLDER = "<img src=x onerror=alert(3)>"
FILE = "iter-00002"


def spoilt(episode: Episode) -> Episode:
    turns = [
        dataclasses.replace(
            turn, observation=HOSTILE, admissible=(HOSTILE, turn.action), text=HOSTILE, subgoal=HOSTILE, action=HOSTILE
        )
        for turn in episode.turns
    ]
    return dataclasses.replace(
        episode, task_id=HOSTILE, task_type=HOSTILE, goal=HOSTILE, turns=tuple(turns), parts={HOSTILE: 0.5}
    )


def respell(value: Any, old: str, new: str) -> Any:
    """A JSON value with other keys and texts."""
    if isinstance(value, dict):
        return {respell(k, old, new): respell(v, old, new) for k, v in value.items()}
    if isinstance(value, list):
        return [respell(v, old, new) for v in value]
    return new if value == old else value


@pytest.fixture(scope="module")
def hostile(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that says scripts in every place that a run has words for."""
    run = shutil.copytree(tiny_run, tmp_path_factory.mktemp("hostile") / "runs" / FOLDER)
    for file in (run / "episodes").glob("*.gz"):
        write_episodes(file, [spoilt(e) for e in list(read_episodes(file))])
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for record in metrics:
        record.pop("crc32", None)
        if "success/all" in record:
            record |= {f"success/{HOSTILE}": 0.5, f"alarm/{HOSTILE}": 1.0}
    (run / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in metrics) + "{<b>damaged</b>\n")
    (run / "config.yaml").write_text(
        (run / "config.yaml").read_text().replace("name: tiny", f"name: {json.dumps(IMAGE + SCRIPT)}")
    )
    for card in (run / "evaluations").glob("*.json"):
        record = json.loads(card.read_text())
        record.pop("crc32", None)
        record["command"] = record["machine"] = record["template"] = HOSTILE
        record["outcomes"][HOSTILE] = record["outcomes"]["all"]
        card.write_text(json.dumps(record))
    shutil.copy(
        run / "evaluations" / "eval-00002-held_out.json",
        run / "evaluations" / f"eval-00002-{IMAGE.replace('/', '')}.json",
    )
    (run / "diverged").write_text(HOSTILE)
    # Tokens are decoded by the run's own tokenizer, which may say anything too.
    for tokenizer in run.rglob("tokenizer.json"):
        told = json.loads(tokenizer.read_text())
        told["model"]["vocab"] = respell(told["model"]["vocab"], "find", IMAGE)
        tokenizer.write_text(json.dumps(told))
    return run


def views(run: str) -> list[str]:
    name = (
        run.replace("<", "%3C")
        .replace(">", "%3E")
        .replace(" ", "%20")
        .replace("=", "%3D")
        .replace("(", "%28")
        .replace(")", "%29")
    )
    of = f"{FILE}/0,{FILE}/1"
    return [
        "#/", *(f"#/{view}?run={name}" for view in ("learning", "episodes", "results", "settings")),
        f"#/learning?run={name}&all=1", f"#/episode?run={name}&file={FILE}&n=0", f"#/side?run={name}&of={of}",
        f"#/compare?runs={name}", f"#/play?run={name}&task=%3Cscript%3Ealert(4)%3C/script%3E",
        f"#/%3Cimg%20src=x%20onerror=alert(5)%3E?run={name}",
        f"#/episode?run={name}&file=%3Cscript%3E&n=0",
    ]  # fmt: skip


def is_plain(here: Any) -> None:
    """Nothing ran, nothing was loaded, and no element came from a text."""
    assert here.page.evaluate(PROBES["plain"]) == []
    assert [e for e in here.errors if "alert" in e or "dialog" in e or "Refused" in e or "violates" in e] == []
    assert here.elsewhere() == []
    assert not [url for url in here.requests if url.rstrip("/").endswith("/x")]


def test_everything_is_text(serve: Serve, visit: Visits, hostile: Path):
    here = visit(serve(hostile.parent))
    for view in views(FOLDER):
        page = here.open(view)
        if "/episodes?" in view:
            page.wait_for_selector(".vinner .vrow")
        is_plain(here)
    page = here.open(views(FOLDER)[6])
    for place in (".detail .text", ".band", ".goal", ".inline", ".line .act"):
        assert IMAGE in page.locator(place).first.inner_text(), place
    for option in ("credit", "logprob", "mismatch", "entropy", "kind"):
        page.locator("#colour-by").select_option(option)
    page.locator("summary", has_text="exact prompt").click()
    page.wait_for_selector(".plain-token")
    page.keyboard.press("j")
    is_plain(here)
    here.open(views(FOLDER)[5])
    assert IMAGE in here.text  # the name of a metric
    assert "line " in here.text  # the note on the damaged line


def test_an_exported_page_is_text(visit: Visits, hostile: Path, tmp_path: Path):
    file = tmp_path / "page.html"
    export_page(hostile, file, [f"{FILE}/0", f"{FILE}/1", "eval-00002-held_out/0"])
    text = file.read_text()
    assert text.count("<script") == text.count("</script>") == 3
    assert "<img" not in text.partition('id="answers">')[2].partition("</script>")[0]
    here = visit(file.as_uri())
    for view in views(FOLDER)[1:8]:
        here.open(view)
        is_plain(here)
    assert IMAGE in here.page.locator(".side").first.inner_text()
