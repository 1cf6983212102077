"""Take the pictures of docs/viewer.md anew, from a run that is given.

    python tools/screenshots.py RUN [--into docs/viewer]

The run needs a critic, groups, and two iterations at least.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PROGRAM = "/usr/bin/chromium"


def main() -> None:
    """Start a viewer, take every picture, and end the viewer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--into", type=Path, default=ROOT / "docs" / "viewer")
    given = parser.parse_args()
    given.into.mkdir(parents=True, exist_ok=True)
    from playwright.sync_api import sync_playwright

    command = [sys.executable, "-m", "hiper", "view", str(given.run), "--no-browser"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    base = server.stdout.readline().split()[-1]
    try:
        with sync_playwright() as started:
            browser = started.chromium.launch(executable_path=PROGRAM, args=["--no-sandbox"])
            take_all(browser, base, given.run.name, given.into)
            browser.close()
    finally:
        server.kill()


def take_all(browser: Any, base: str, run: str, into: Path) -> None:
    """Take every picture."""
    page = opened(browser, f"{base}#/episodes?run={run}&sort=-apart&where=training&result=won")
    page.wait_for_function("() => document.querySelector('.indexing').textContent === ''", timeout=600_000)
    save(page, into / "episodes.png")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_selector(".strip .credit")
    address = page.url
    turns = page.locator(".strip .turn").count()
    for _ in range(turns // 2):
        page.keyboard.press("j")
    page.wait_for_timeout(500)
    page.set_viewport_size({"width": 1280, "height": 1120})
    save(page, into / "episode.png")
    page.close()
    save(opened(browser, f"{base}#/learning?run={run}", dark=True), into / "learning.png")
    phone = opened(browser, address, width=390, height=800, dark=True)
    save(phone, into / "phone.png")
    table = opened(browser, f"{base}#/play?run={run}", height=700)
    table.click("text=Begin")
    table.wait_for_selector(".advice", timeout=120_000)
    for _ in range(3):
        lines = table.locator(".transcript .line").count()
        table.locator(".advice").first.locator("text=Play this").click()
        table.wait_for_function("(n) => document.querySelectorAll('.transcript .line').length > n", arg=lines)
    table.click("text=Ask the policy")
    table.wait_for_selector(".chances, .advice .badge.lost", timeout=120_000)
    save(table, into / "play.png")


def opened(browser: Any, address: str, width: int = 1280, height: int = 860, dark: bool = False) -> Any:
    """Return a page that shows a view."""
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light")
    page.goto(address)
    page.wait_for_selector("main:not([aria-busy]) > section", timeout=120_000)
    page.wait_for_timeout(1500)
    return page


def save(page: Any, file: Path) -> None:
    """Write a picture, with no pointer over it."""
    page.mouse.move(0, 0)
    page.screenshot(path=str(file))


if __name__ == "__main__":
    main()
