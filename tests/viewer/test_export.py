"""One page in a file: the same views without a server."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hiper.errors import UserError
from hiper.runs.folder import Run
from hiper.viewer.app import STATIC, Library
from hiper.viewer.export import bundled, export_page, some_episodes

Visits = Callable[..., Any]


def test_the_page_shows_what_the_server_shows(visit: Visits, serve: Callable[..., str], tiny_run: Path, tmp_path: Path):
    file = tmp_path / "a page.html"
    assert export_page(tiny_run, file, ["iter-00002/3", "iter-00002/4"]) == ["iter-00002/3", "iter-00002/4"]
    alone, served = visit(file.as_uri()), visit(serve(tiny_run))
    for view in ("learning", "results", "settings", "episode"):
        address = f"#/{view}?run={tiny_run.name}" + ("&file=iter-00002&n=3" if view == "episode" else "")
        texts = []
        for here in (alone, served):
            page = here.open(address)
            page.wait_for_timeout(300)
            texts.append(
                re.sub(
                    r"\d+ (s|min|h) ago|Settings of the estimators|← previous|next →|Same task.*|Group of.*"
                    r"|Credit under the run's own settings.*|Estimators disagree.*",
                    "",
                    here.text,
                ).split()
            )
        assert texts[0] == texts[1], view
    # The page says what it lacks.
    gamma = Library(tiny_run).run(tiny_run.name).settings()[0]["advantages.gamma"]
    assert f"Credit under the run's own settings: gamma {gamma:g}, " in alone.text
    assert "To see credit under other settings, open the run with hiper view." in alone.text
    page = alone.open(f"#/episodes?run={tiny_run.name}")
    assert "This page is an export with some episodes of the run." in alone.text
    assert page.locator(".vinner .vrow").count() == 2
    page.locator(".vinner a").first.click()
    page.wait_for_selector(".strip")
    page.keyboard.press("j")
    page.locator("summary", has_text="exact prompt").click()
    page.wait_for_selector(".plain-token")
    assert alone.errors == []
    assert [url for url in alone.requests if not url.startswith(("file:", "data:"))] == []


def test_without_a_choice_telling_episodes_are_taken(tiny_run: Path):
    chosen = some_episodes(Library(tiny_run).run(tiny_run.name))
    files = [name.partition("/")[0] for name in chosen]
    assert set(files) == {"iter-00002", "eval-00002-held_out"}
    episodes = list(Run.open(tiny_run).episodes(2))
    won = {episodes[int(name.partition("/")[2])].won for name in chosen if name.startswith("iter")}
    assert won == {e.won for e in episodes}


@pytest.mark.parametrize("name", ["iter-00002/99", "iter-00009/0", "3", "iter-00002/x", "../metrics/0"])
def test_unknown_episodes_are_refused(tiny_run: Path, tmp_path: Path, name: str):
    with pytest.raises(UserError):
        export_page(tiny_run, tmp_path / "page.html", [name])
    assert not (tmp_path / "page.html").exists()


def test_a_folder_of_runs_is_no_page(runs: Path, tmp_path: Path):
    with pytest.raises(UserError, match="name the folder of a run"):
        export_page(runs, tmp_path / "page.html", None)


def test_every_module_is_in_the_bundle():
    script = bundled("main")
    modules = {path.stem for path in STATIC.glob("*.js")}
    assert {name for name in modules if f"const module_{name} = " in script} == modules
    assert not re.search(r"^(import|export) ", script, re.M)
    assert "</script" not in script.lower()
