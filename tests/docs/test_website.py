"""The documentation site: links, formulas and notebooks on it, what it must not lack, and the whole of it, built."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

import hiper
from hiper import advantages, envs

pytest.importorskip("zensical", reason="the extra docs is not installed")
pytest.importorskip("latex2mathml", reason="the extra docs is not installed")

import website

PLACES = {
    "docs/credit.md": "credit.md",
    "docs/how-to/tune.md": "how-to/tune.md",
    "docs/notebooks/one.ipynb": "notebooks/one.ipynb",
    "CONTRIBUTING.md": "contributing.md",
}
ADDRESS = "https://example.org/hiper"


@pytest.mark.parametrize(
    ("path", "text", "shown"),
    [
        ("docs/credit.md", "[a](../CONTRIBUTING.md#b)", "[a](contributing.md#b)"),
        ("docs/credit.md", "[a](how-to/tune.md)", "[a](how-to/tune.md)"),
        ("docs/credit.md", "[a](notebooks/one.ipynb)", "[a](notebooks/one.md)"),
        ("docs/how-to/tune.md", "![two\nlines](../credit.md)", "![two\nlines](../credit.md)"),
        ("CONTRIBUTING.md", "[a](docs/credit.md#c) [b](#d)", "[a](credit.md#c) [b](#d)"),
        ("docs/credit.md", "[a](https://x.org/../y)", "[a](https://x.org/../y)"),
        ("docs/credit.md", "`[a](../CONTRIBUTING.md)`", "`[a](../CONTRIBUTING.md)`"),
        ("docs/credit.md", "```\n[a](../CONTRIBUTING.md)\n```\n", "```\n[a](../CONTRIBUTING.md)\n```\n"),
        ("docs/credit.md", "[a](gone.md)", "[a](gone.md)"),  # the builder reports it
    ],
)
def test_links_lead_to_the_places_of_the_site(path: str, text: str, shown: str):
    assert website.page(text, path, PLACES, None) == website.page(text, path, PLACES, ADDRESS) == shown


def test_links_to_other_files_lead_to_the_repository_once_there_is_one():
    text = "See [`registry.py`](../src/hiper/advantages/registry.py)."
    assert website.page(text, "docs/credit.md", PLACES, None) == text  # code stays as it is
    text = "See [the registry](../src/hiper/advantages/registry.py)."
    assert website.page(text, "docs/credit.md", PLACES, None) == "See the registry."
    found = website.page(text, "docs/credit.md", PLACES, ADDRESS)
    assert found == f"See [the registry]({ADDRESS}/blob/HEAD/src/hiper/advantages/registry.py)."


def test_formulas_need_no_script():
    found = website.page("```math\nA_t = 1\n\nB = 2\n```\n", "docs/credit.md", PLACES, None)
    assert found.count("<math") == 2
    assert "<msub><mi>A</mi><mi>t</mi></msub>" in found
    assert "```" not in found


def test_what_the_builder_does_not_check_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pages, site = tmp_path / "pages", tmp_path / "site"
    for folder in (pages, site / "deep"):
        folder.mkdir(parents=True)
    for name in ("there.md", "forgotten.md"):
        (pages / name).touch()
    (tmp_path / "mkdocs.yml").write_text("nav:\n  - A: [there.md, {B: gone.md}]\n")
    monkeypatch.setattr(website, "SETTINGS", tmp_path / "mkdocs.yml")
    (site / "fine.html").write_text('<a href="https://x.org">x</a><script src="assets/own.js"></script>')
    (site / "deep" / "shim.html").write_text(f'<script src="{website.SHIM}"></script>')
    (site / "foreign.html").write_text('<link rel="stylesheet" href="https://fonts.example/css"><img src="//x.org/y">')
    website.localise(site)
    assert '"../assets/iframe-worker.js"' in (site / "deep" / "shim.html").read_text()
    found = website.faults(pages, site)
    assert [fault.partition(":")[0] for fault in found] == ["mkdocs.yml"] * 2 + ["foreign.html"] * 2
    assert "forgotten.md" in found[0]
    assert "gone.md" in found[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole site, built as `make docs` builds it, but in a folder of its own."""
    folder = tmp_path_factory.mktemp("site")
    assert website.build(folder) == 0
    return folder / "site"


@pytest.mark.slow
def test_every_public_name_is_in_the_reference_of_python(site: Path):
    page = (site / "reference" / "api.html").read_text(encoding="utf-8")
    shown = {name.rpartition(".")[2] for name in re.findall(r'<h[1-6] id="(hiper[\w.]*)"', page)}
    public = {*hiper.__all__, *advantages.__all__, *envs.__all__} - {"make_env"}  # a second name of envs.make
    assert public - shown == set()


@pytest.mark.slow
def test_the_reference_of_python_is_in_markdown(site: Path):
    page = (site / "reference" / "api.html").read_text(encoding="utf-8")
    text = re.sub(r"<[^>]+>", "", page)
    assert not re.search(r":\w+:`|\+SKIP|The module's docstring", text)
    assert "A_low(t)" in text  # HAE's formulas


@pytest.mark.slow
def test_the_search_works_offline(site: Path):
    index = json.loads((site / "search.json").read_text(encoding="utf-8"))
    titles = {item["title"] for item in index["items"]}
    assert {"The method in pictures", "advantages.type: gigpo", "Contributing", "Resume a run"} <= titles
    assert (site / "assets" / "iframe-worker.js").is_file()
    assert (site / "search.js").is_file()  # for pages that are opened from disk


@pytest.mark.slow
def test_the_search_finds_a_page_in_a_browser_and_nothing_comes_from_elsewhere(site: Path):
    """Pages are opened from disk, as those who build the site offline do."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    playwright = pytest.importorskip("playwright.sync_api")
    if browser is None:
        pytest.skip("no Chromium on this machine")
    with (
        playwright.sync_playwright() as program,
        program.chromium.launch(executable_path=browser, args=["--no-sandbox"]) as opened,
    ):
        page = opened.new_page()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto((site / "how-to" / "resume-a-run.html").as_uri())
        page.keyboard.press("Control+k")
        page.keyboard.type("lambda_boundary")
        page.get_by_text("What each part is worth").wait_for()
    assert asked
    assert all(url.startswith(("file:", "blob:", "data:")) for url in asked)


@pytest.mark.slow
def test_a_broken_link_breaks_the_build(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd):
    write = website.write_pages

    def break_one(folder: Path) -> None:
        write(folder)
        (folder / "faq.md").write_text("# Questions\n\n[a](credit.md#nowhere) [b](gone.md)\n")

    monkeypatch.setattr(website, "write_pages", break_one)
    assert website.build(tmp_path) != 0
    told = "".join(capfd.readouterr())
    assert "2 issues" in told, told
    assert "faq.md" in re.sub(r"\x1b\[[0-9;]*m", "", told)
