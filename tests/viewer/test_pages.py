"""Every view in a real browser: what it shows, its keys, its links, its look at several sizes."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hiper.analysis.credit.report import credit_report
from hiper.runs.folder import Run

Serve = Callable[..., str]
Visits = Callable[..., Any]
PROBES = dict(
    re.findall(r"^// (\w+):.*\n((?:.+\n)+)", (Path(__file__).parent / "probes.js").read_text(encoding="utf-8"), re.M)
)
"""Functions that run in the page, by name."""
EPISODE = "#/episode?run=tiny-seed0&file=iter-00002&n=3"
VIEWS = (
    "#/",
    "#/learning?run=tiny-seed0",
    "#/episodes?run=tiny-seed0",
    EPISODE,
    "#/results?run=tiny-seed0",
    "#/settings?run=tiny-seed0",
    "#/compare?runs=tiny-seed0,study/tiny-seed1",
    "#/side?run=tiny-seed0&of=iter-00001/3,iter-00002/3",
    "#/play?run=tiny-seed0",
)


def listed(page: Any) -> None:
    """Wait until every file of the list is read."""
    page.wait_for_function(
        "() => !document.querySelector('.indexing')?.textContent && document.querySelector('.vinner .vrow')",
        timeout=60_000,
    )


@pytest.mark.parametrize("size", [(1280, 900), (390, 844), (640, 450)], ids=["screen", "phone", "200% zoom"])
@pytest.mark.parametrize("colours", ["light", "dark"])
def test_every_view_fits_and_has_no_errors(
    serve: Serve, visit: Visits, runs: Path, size: tuple[int, int], colours: str
):
    here = visit(serve(runs), viewport={"width": size[0], "height": size[1]}, color_scheme=colours)
    for view in VIEWS:
        page = here.open(view)
        page.wait_for_timeout(100)
        assert page.locator("h1").count() >= 1, view
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, f"{view} is {wide} pixels too wide"
        assert page.evaluate(PROBES["unnamed"]) == [], view
    assert here.errors == []
    assert here.elsewhere() == []


def test_texts_can_be_read_in_both_colours(serve: Serve, visit: Visits, runs: Path):
    """The contrast of texts on their own background is at least 4.5 (WCAG AA)."""
    base = serve(runs)
    for colours in ("light", "dark"):
        here = visit(base, color_scheme=colours)
        for view in VIEWS[:4]:
            here.open(view).wait_for_timeout(100)
            assert here.page.evaluate(PROBES["contrast"]) == [], f"{view}, {colours}"


def test_the_list_of_runs(serve: Serve, visit: Visits, runs: Path):
    here = visit(serve(runs))
    page = here.open()
    told = Run.open(runs / "tiny-seed0").evaluations()["held_out"][-1].overall
    rows = page.locator(".runs tbody tr")
    assert rows.count() == 2
    assert f"{100 * told.success:.1f}%" in rows.nth(1).inner_text()
    page.fill("[data-filter]", "seed1")
    assert rows.count() == 1
    page.fill("[data-filter]", "")
    for box in page.locator(".runs input[type=checkbox]").all():
        box.check()
    page.click("text=Compare 2 runs")
    page.wait_for_selector("text=Settings that differ")
    table = page.locator(".settings tbody").inner_text()
    assert re.search(r"seed\s+1\s+0|seed\s+0\s+1", table)
    assert "learner.lr" in table
    assert "env.name" not in table


def test_a_run_alone_opens_at_once(serve: Serve, visit: Visits, runs: Path):
    page = visit(serve(runs / "tiny-seed0")).open()
    page.wait_for_selector("text=success in training")
    assert "learning?run=tiny-seed0" in page.url


def test_curves_are_drawn_and_described(serve: Serve, visit: Visits, runs: Path):
    here = visit(serve(runs))
    page = here.open("#/learning?run=tiny-seed0")
    page.wait_for_selector(".plot canvas")
    record = Run.open(runs / "tiny-seed0").iteration_metrics()[-1]
    card = page.locator(".charts .card", has_text="episode/turns")
    assert float(card.locator(".last").inner_text()) == pytest.approx(record["episode/turns"], rel=1e-3)
    assert "at last" in card.locator(".unseen").text_content()
    page.fill("[data-filter]", "policy/entropy")
    assert page.locator(".charts .card").count() == 1
    assert "metric=policy" in page.url
    page.fill("[data-filter]", "")
    page.click("text=/Show all/")
    assert page.locator(".charts .card").count() > 20


def test_alarms_are_marked(serve: Serve, visit: Visits, runs: Path, tmp_path: Path):
    run = shutil.copytree(runs / "tiny-seed0", tmp_path / "rang")
    text = (run / "metrics.jsonl").read_text().replace('"crc32"', '"alarm/invalid": 1.0, "crc32"')
    (run / "metrics.jsonl").write_text(re.sub(r', "crc32": "?\w+"?', "", text))
    page = visit(serve(run)).open("#/learning?run=rang")
    assert "invalid in iterations 1–2" in page.locator(".notes.bad").inner_text()


def test_the_list_of_episodes(serve: Serve, visit: Visits, runs: Path):
    here = visit(serve(runs))
    page = here.open("#/episodes?run=tiny-seed0")
    listed(page)
    run = Run.open(runs / "tiny-seed0")
    episodes = [e for n in (1, 2) for e in run.episodes(n)]
    held_out = [e for n in range(3) for e in run.evaluated_episodes(n, "held_out")]
    count = page.locator(".head [role=status]")
    assert count.inner_text().startswith(f"{len(episodes) + len(held_out)} of")
    page.select_option(".filters select >> nth=1", "training")
    page.select_option(".filters select >> nth=0", "won")
    assert count.inner_text().startswith(f"{sum(e.won for e in episodes)} of")
    assert "result=won" in page.url
    assert "where=training" in page.url
    page.select_option(".filters select >> nth=0", "")
    page.click(".vhead >> text=disagree")
    apart = [float(text) for text in page.locator(".vinner .vrow > span:nth-child(11)").all_inner_texts()[:10]]
    assert apart == sorted(apart, reverse=True)
    assert max(apart) > 0
    page.reload()
    here.settled()
    listed(page)
    assert [float(t) for t in page.locator(".vinner .vrow > span:nth-child(11)").all_inner_texts()[:10]] == apart
    page.fill("[data-filter]", "no such task")
    page.wait_for_selector("text=No episode matches.")


def test_keys_lead_from_the_list_to_a_turn_and_back(serve: Serve, visit: Visits, runs: Path):
    here = visit(serve(runs))
    page = here.open("#/episodes?run=tiny-seed0&sort=-turns&where=training")
    listed(page)
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.type") == "search"
    page.keyboard.press("Escape")
    for key in ("j", "ArrowDown", "k"):
        page.keyboard.press(key)
    assert page.locator(".vrow.cursor").get_attribute("data-n") == "0"
    page.keyboard.press("Enter")
    page.wait_for_selector(".strip")
    assert "/episode?" in page.url
    page.keyboard.press("j")
    page.keyboard.press("j")
    assert page.locator(".detail h2").inner_text() == "Turn 3"
    assert "turn=3" in page.url
    page.keyboard.press("k")
    assert page.locator(".turn.current").inner_text() == "2"
    address = page.url
    page.keyboard.press("n" if "&n=0" in address else "p")
    page.wait_for_function("(old) => location.href !== old", arg=address)
    here.settled()
    page.keyboard.press("?")
    assert page.locator("dialog[open]").count() == 1
    page.keyboard.press("Escape")
    assert page.locator("dialog[open]").count() == 0
    page.keyboard.press("u")
    page.wait_for_selector(".vlist")
    page.keyboard.press("1")
    page.wait_for_selector(".charts")
    page.keyboard.press("t")
    assert page.evaluate("document.documentElement.dataset.colours") == "dark"
    page.reload()
    assert page.evaluate("document.documentElement.dataset.colours") == "dark"
    assert here.errors == []


def test_one_episode(serve: Serve, visit: Visits, runs: Path):
    run = Run.open(runs / "tiny-seed0")
    number, episode = next((n, e) for n, e in enumerate(run.episodes(2)) if len(e.turns) > 2)
    here = visit(serve(runs))
    page = here.open(f"#/episode?run=tiny-seed0&file=iter-00002&n={number}&turn=2")
    turn = episode.turns[1]
    detail = page.locator(".detail")
    assert turn.observation in detail.inner_text()
    assert detail.locator(".badge").first.inner_text() == ("SWITCH" if turn.switch else "KEEP")
    detail.locator("summary", has_text="admissible").click()
    assert detail.locator(".actions-list li").all_inner_texts() == list(turn.admissible or ())
    detail.locator("summary", has_text="exact prompt").click()
    page.wait_for_selector(".plain-token")
    assert "task" in " ".join(detail.locator(".fold .tokens").inner_text().split())
    boundaries = [t.subgoal or "(none)" for t in episode.turns if t.boundary]
    assert [band.strip() for band in page.locator(".band").all_inner_texts()] == boundaries
    # Credit by decision, and by token.
    report = credit_report(run, 2)
    assert episode.credit is not None
    shown = page.locator(".credit[title^='HAE, action, turn 2:']")
    expected = report.opinions["HAE"].credit.low_BT[number, 1]
    assert float(shown.get_attribute("title").split(": ")[1].replace(",", "")) == pytest.approx(expected, abs=2e-3)
    tokens = detail.locator(".by-estimator").first.locator(".token")
    assert tokens.count() == len(turn.response_ids)
    detail.locator("#colour-by").select_option("logprob")
    assert figure("log-probability", tokens_titles(detail)[0]) == pytest.approx(turn.logprobs[0], rel=1e-3, abs=6e-5)
    # What was unfolded stays so when the card is drawn again, and on other turns.
    assert detail.locator(".fold[open]").count() == 2
    page.wait_for_selector(".fold[open] .plain-token")
    page.keyboard.press("j")
    page.wait_for_selector(".detail h2 >> text=Turn 3")
    assert detail.locator(".fold[open]").count() == 2
    page.keyboard.press("k")
    page.wait_for_selector(".detail h2 >> text=Turn 2")
    detail.locator("#colour-by").select_option("mismatch")
    assert "learner − sampler" in tokens_titles(detail)[0]
    assert "by=mismatch" in page.url
    detail.locator("#colour-by").select_option("entropy")
    entropy = episode.credit.series["entropy/token"][sum(len(t.response_ids) for t in episode.turns[:1])]
    assert figure("entropy", tokens_titles(detail)[0]) == pytest.approx(entropy, rel=1e-3, abs=6e-5)
    assert here.errors == []


def figure(name: str, told: str) -> float:
    """The number that follows a name in the text shown for a token, which has four digits."""
    return float(re.search(rf"^{name} (\S+)", told, re.MULTILINE)[1])  # type: ignore[index]


def tokens_titles(detail: Any) -> list[str]:
    return [str(token.get_attribute("title")) for token in detail.locator(".tokens .token").all()]


def test_credit_is_redrawn_under_other_settings(serve: Serve, visit: Visits, runs: Path):
    here = visit(serve(runs))
    page = here.open(EPISODE)
    page.wait_for_selector(".credit[title^='turn GAE']")
    cells = page.locator(".credit[title^='turn GAE']")
    before = cells.evaluate_all("(all) => all.map((e) => e.title)")
    page.click("summary >> text=Settings of the estimators")
    page.locator("#set-gamma").evaluate(
        "(e) => { e.value = 0.2; e.dispatchEvent(new Event('input', { bubbles: true })); }"
    )
    page.wait_for_function(
        "(old) => document.querySelector(\".credit[title^='turn GAE']\").title !== old", arg=before[0]
    )
    assert "set=" in page.url
    page.reload()
    here.settled()
    assert page.locator("#set-gamma").input_value() == "0.2"
    assert page.locator(".adjust[open]").count() == 1, "changed settings are in sight from the start"
    page.click("summary >> text=left out")
    page.click("text=Back to the run's settings")
    page.wait_for_function(
        "(old) => document.querySelector(\".credit[title^='turn GAE']\").title === old", arg=before[0]
    )
    page.click(".chip >> text=token GAE")
    page.wait_for_selector(".credit[title^='token GAE']")
    assert page.locator(".credit[title^='token GAE']").count() == page.locator(".strip .turn").count()
    page.click(".chip >> text=turn GAE")
    page.wait_for_selector(".credit[title^='turn GAE']", state="detached")
    assert "token" in page.url
    assert "left out" in page.locator(".panel").inner_text()
    assert page.locator(".adjust[open]").count() == 2, "what was unfolded stays so when the panel is drawn again"
    page.click("summary >> text=Settings of the estimators")
    page.click(".chip >> text=turn GAE")
    page.wait_for_selector(".credit[title^='turn GAE']")
    assert page.locator(".adjust[open]").count() == 1
    assert here.errors == []


def test_episodes_side_by_side(serve: Serve, visit: Visits, runs: Path):
    here = visit(serve(runs))
    page = here.open("#/episodes?run=tiny-seed0&file=eval-00000-held_out")
    listed(page)
    page.locator(".vinner a").first.click()
    page.wait_for_selector("text=Same task, first and last")
    page.click("text=Same task, first and last")
    page.wait_for_selector(".side")
    assert page.locator(".side h2").all_inner_texts() == ["held_out, after 0 · 0", "held_out, after 2 · 0"]
    page.locator(".side .line").last.click()
    page.wait_for_selector(".strip")
    assert "eval-00002-held_out" in page.url
    assert here.errors == []


def test_playing_by_hand_with_a_policy(serve: Serve, visit: Visits, runs: Path):
    here = visit(serve(runs))
    page = here.open("#/play?run=tiny-seed0")
    page.click("text=Begin")
    page.wait_for_selector(".advice")
    goal = page.locator(".detail .strong").first.inner_text()
    assert goal.startswith("open the door") or "key" in goal
    page.click("text=Ask the policy")
    page.wait_for_selector(".chances, .advice .badge.lost", timeout=90_000)
    if page.locator(".chances").count():
        assert re.fullmatch(r"KEEP [\d.]+%, SWITCH [\d.]+%", page.locator(".chances").get_attribute("aria-label"))
    page.fill("#subgoal", "reach the door")
    page.locator(".choices .chip").first.click()
    page.wait_for_selector(".transcript .line")
    assert "reach the door" in page.locator(".transcript").inner_text()
    for _ in range(8):
        if page.locator("h2", has_text="over").count():
            break
        lines = page.locator(".transcript .line").count()
        page.locator(".advice").first.locator("text=Play this").click()
        page.wait_for_function("(n) => document.querySelectorAll('.transcript .line').length > n", arg=lines)
    assert page.locator("h2", has_text="The episode is over").count() == 1
    page.click("text=Begin another")
    page.wait_for_selector("h2:has-text('Turn 1 of')")
    assert page.locator("input[type=number]").input_value() == "1"  # another episode, not the same once more
    assert here.errors == []


def test_an_environment_that_cannot_be_opened_shows_no_tasks_of_another(serve: Serve, visit: Visits, runs: Path):
    here = visit(serve(runs))
    page = here.open("#/play")
    page.select_option("select >> nth=0", "corridor")
    page.wait_for_selector("text=drawn with the seed", state="attached")
    page.fill("input[placeholder^='data=']", "cells=1")
    page.keyboard.press("Tab")
    page.wait_for_selector("text=at least 3 cells")
    assert page.locator("text=drawn with the seed").count() == 0


def test_new_iterations_appear_by_themselves(serve: Serve, visit: Visits, runs: Path, tmp_path: Path):
    run = shutil.copytree(runs / "tiny-seed0", tmp_path / "live")
    late = run / "episodes" / "iter-00002.jsonl.gz"
    kept, lines = late.read_bytes(), (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    late.unlink()
    first = [line for line in lines if '"iteration": 2' not in line]
    (run / "metrics.jsonl").write_text("".join(first))
    here = visit(serve(run))
    page = here.open("#/learning?run=live")
    assert "1 of 2" in here.text
    (run / "metrics.jsonl").write_text("".join(lines))
    page.wait_for_selector("text=2 of 2", timeout=10_000)
    page = here.open("#/episodes?run=live")
    listed(page)
    assert "iteration 2" not in page.locator(".vinner").inner_text()
    late.write_bytes(kept)
    page.wait_for_selector(".vinner >> text=iteration 2", timeout=20_000)
    assert here.errors == []


@pytest.mark.parametrize(
    ("address", "told"),
    [
        (f"{EPISODE}&turn=abc&est=zzz&by=zzz", "Turn 1"),
        (f"{EPISODE}&turn=999", "Turn "),
        (f"{EPISODE}&set=nonsense", "Turn 1"),
        (
            f"{EPISODE}&set=%7B%22gamma%22:7%7D",
            "it must lie between 0 and 1. This is credit under the run's own settings",
        ),
        ("#/side?run=tiny-seed0&of=iter-00002/0,nothing,iter-00002/99", "none has the number 99"),
        ("#/compare?runs=tiny-seed0,gone", "gone: there is no run 'gone'"),
        ("#/compare?runs=gone", "gone: there is no run 'gone'"),
        ("#/constructor", "there is no such page"),
        ("#/__proto__?run=tiny-seed0", "there is no such page"),
        ("#/learning?run=%E0%A4%A", "there is no run"),
    ],
)
def test_odd_addresses_show_what_they_can(serve: Serve, visit: Visits, runs: Path, address: str, told: str):
    here = visit(serve(runs))
    page = here.open(address)
    page.wait_for_function("(told) => document.querySelector('main').innerText.includes(told)", arg=told)
    if address.startswith(EPISODE):
        page.wait_for_selector(".credit")
        assert page.locator(".turn.current").count() == 1
    if "side" in address:
        assert page.locator(".side .line").count() > 0
    if "tiny-seed0,gone" in address:
        assert page.locator(".chart").count() > 3
    assert [e for e in here.errors if "status of 4" not in e] == []


def test_the_disputed_turn_is_a_step_away(serve: Serve, visit: Visits, runs: Path):
    here = visit(serve(runs))
    page = here.open("#/episodes?run=tiny-seed0&sort=-apart")
    most = credit_report(Run.open(runs / "tiny-seed0"), 2).disputed[0]
    page.wait_for_selector(".vinner .vrow .num a")
    page.locator(f".vinner .num a[href*='file=iter-00002&n={most.episode}&']").click()
    page.wait_for_selector(".strip")
    assert page.locator(".turn.current").inner_text() == str(most.turn + 1)
    page.keyboard.press("j" if most.turn == 0 else "k")
    assert page.locator(".turn.current").inner_text() != str(most.turn + 1)
    page.click(f"text=Estimators disagree most at turn {most.turn + 1} (")
    assert page.locator(".turn.current").inner_text() == str(most.turn + 1)
    assert here.errors == []


def test_a_run_deleted_while_it_is_shown_is_told(serve: Serve, visit: Visits, runs: Path, tmp_path: Path):
    folder = tmp_path / "runs"
    shutil.copytree(runs / "tiny-seed0", folder / "tiny-seed0")
    here = visit(serve(folder))
    page = here.open("#/learning?run=tiny-seed0")
    page.wait_for_timeout(1500)
    shutil.rmtree(folder / "tiny-seed0")
    page.wait_for_selector("html.gone")
    assert "cannot be read any more" in page.evaluate(
        "getComputedStyle(document.querySelector('.bar'), '::after').content"
    )
    assert page.locator(".chart").count() > 3  # what was read stays


def test_runs_of_one_seed_are_not_called_seeds(serve: Serve, visit: Visits, runs: Path, tmp_path: Path):
    for name in ("a", "b"):
        shutil.copytree(runs / "tiny-seed0", tmp_path / "runs" / name)
    here = visit(serve(tmp_path / "runs"))
    assert here.open("#/compare?runs=a,b").locator(".legend").inner_text() == "a, b (2 runs, 1 seed)"


def test_names_of_runs_stay_in_one_line_on_a_phone(serve: Serve, visit: Visits, runs: Path, tmp_path: Path):
    shutil.copytree(runs / "tiny-seed0", tmp_path / "runs" / "q")
    page = visit(serve(tmp_path / "runs"), viewport={"width": 390, "height": 844}).open()
    assert page.locator(".runs tbody tr").first.bounding_box()["height"] < 120


def test_every_iteration_is_told_apart_on_a_phone(serve: Serve, visit: Visits, runs: Path):
    page = visit(serve(runs), viewport={"width": 390, "height": 844}).open("#/episodes?run=tiny-seed0&where=training")
    page.wait_for_selector(".vinner .vrow")
    cells = page.locator(".vinner .vrow > span:nth-child(3)")
    cut = cells.evaluate_all("(all) => all.filter((e) => e.scrollWidth > e.clientWidth).map((e) => e.innerText)")
    assert cut == []
    assert cells.first.inner_text() == "it. 2"
    widths = (
        page.locator(".vinner .vrow").first.locator("> span").evaluate_all("(all) => all.map((e) => e.clientWidth)")
    )
    assert widths[5] > widths[2] > 0  # the task has more room than the file


def test_the_names_of_rows_cover_what_is_scrolled_under_them(serve: Serve, visit: Visits, runs: Path):
    run = Run.open(runs / "tiny-seed0")
    number = max(enumerate(run.episodes(2)), key=lambda pair: len(pair[1].turns))[0]
    here = visit(serve(runs), viewport={"width": 320, "height": 800})
    page = here.open(f"#/episode?run=tiny-seed0&file=iter-00002&n={number}")
    page.wait_for_selector(".credit")
    told = page.evaluate(
        """() => {
          const card = document.querySelector(".strip-card");
          card.scrollLeft = 60;
          const box = card.getBoundingClientRect();
          const rows = [...document.querySelectorAll(".gutter.est")].map((e) => e.getBoundingClientRect());
          const at = (x, y) => document.elementFromPoint(x, y)?.className ?? "";
          const x = box.left + 3;
          const points = rows.flatMap((r) => [[x, r.top + 2], [x, r.top + r.height / 2], [x, r.bottom - 2]]);
          const under = points.map(([x, y]) => at(x, y)).filter((name) => /credit/.test(name));
          return { scrolled: card.scrollLeft, under };
        }"""
    )
    assert told["scrolled"] > 0
    assert told["under"] == []
