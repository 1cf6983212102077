"""The tutorials are true: what their code prints, their pictures, their notebooks, and the screens they show."""

from __future__ import annotations

import contextlib
import doctest
import importlib
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest

import pictures
from helpers.slow_estimators import episodes_of, slow_credit, slow_gae

pytest.importorskip("nbclient", reason="the extra docs is not installed")

import notebooks

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
NOTEBOOKS = sorted(notebooks.FOLDER.glob("*.ipynb"))


def told(page: str, language: str) -> list[str]:
    """The fenced blocks of a page in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", (DOCS / page).read_text(encoding="utf-8"), re.M | re.S)


# --- What code prints -------------------------------------------------------------------------------------------------


def test_only_the_estimator_prints_what_the_page_says():
    """Its blocks run one after the other; each is followed by what it prints."""
    names: dict[str, Any] = {}
    codes, outputs = told("estimator-alone.md", "python"), told("estimator-alone.md", "text")
    assert len(codes) == len(outputs) == 4
    for code, output in zip(codes, outputs, strict=True):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(code, names)
        assert printed.getvalue() == output


def test_the_page_the_picture_and_the_notebook_show_one_episode():
    names: dict[str, Any] = {}
    exec(told("estimator-alone.md", "python")[0].partition("credit =")[0], names)
    for name, array in vars(pictures.EPISODE).items():
        if isinstance(array, np.ndarray):
            np.testing.assert_array_equal(array, getattr(names["turns"], name), err_msg=name)


@pytest.mark.parametrize(
    "module", ["advantages.registry", "advantages.shaping", "config.load", "envs.checks", "envs.registry"]
)
def test_the_examples_of_docstrings_run(module: str):
    failed, tried = doctest.testmod(importlib.import_module(f"hiper.{module}"))
    assert tried
    assert not failed


# --- Pictures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", pictures.PICTURES)
def test_pictures_are_up_to_date(name: str):
    assert (DOCS / name).read_text(encoding="utf-8") == pictures.PICTURES[name](), "run `make reference`"


def test_the_numbers_of_the_picture_are_those_of_a_slow_definition():
    credit, flat = pictures.credit()
    slow = slow_credit(pictures.EPISODE, pictures.ESTIMATOR)
    for name in ("low_BT", "high_BT", "switch_BT"):
        np.testing.assert_allclose(getattr(credit, name), getattr(slow, name), err_msg=name)
    (episode,) = episodes_of(pictures.EPISODE)
    np.testing.assert_allclose(flat.low_BT[0], slow_gae(episode, 1.0, 1.0, False))


def test_the_numbers_worked_by_hand_are_those_of_the_picture():
    """The tables of the page and its sentences, beside what the estimator computes."""
    credit, flat = pictures.credit()
    page = (DOCS / "method.md").read_text(encoding="utf-8")
    part = page.partition("## One episode, worked by hand")[2].partition("\n## ")[0]
    assert (part.count("λ_seg = 0.5"), pictures.ESTIMATOR.lambda_seg) == (1, 0.5)
    executor = re.findall(r"^\| (\d) \| (\d+) \| (\d+) \| (-?\d+) \|$", part, re.M)
    assert len(executor) == 2
    for turn, leads_to, value, advantage in executor:
        assert int(leads_to) - int(value) == int(advantage) == credit.low_BT[0, int(turn)]
    planner = re.findall(r"^\| (\d), .* \| (\d+) \+ (\d+) \| (\d+) \| (-?\d+) \| (?:.* = )?(-?[\d.]+) \|$", part, re.M)
    assert len(planner) == 3
    begins = np.flatnonzero(pictures.EPISODE.boundary_BT[0])
    for segment, reward, following, value, delta, advantage in planner:
        assert int(reward) + int(following) - int(value) == int(delta)
        assert float(advantage) == credit.high_BT[0, begins[int(segment)]]
    sums = re.findall(r"(\d+) - (\d+) = (-?\d+)", part.replace("\n", " "))
    assert len(sums) == 4
    for left, right, result in sums:
        assert int(left) - int(right) == int(result)
    assert [credit.low_BT[0, 4], credit.low_BT[0, 5]] == [3, 1]
    assert [credit.switch_BT[0, 2], credit.switch_BT[0, 4]] == [-3, 7]
    assert (flat.low_BT > 0).all()


@pytest.mark.parametrize("name", pictures.PICTURES)
def test_pictures_can_be_read_in_light_and_in_dark(name: str):
    drawn = pictures.PICTURES[name]()
    used = set(re.findall(r'class="([^"]+)"', drawn))
    colors = {word.removeprefix("l-") for classes in used for word in classes.split()} & pictures.LIGHT.keys()
    assert len(colors) > 5
    assert pictures.LIGHT.keys() == pictures.DARK.keys()
    for scheme in (pictures.LIGHT, pictures.DARK):
        for color in colors & {"text", "soft", "switch", "subgoal", "action", "flat", "bad"}:
            assert contrast(scheme[color], scheme["page"]) >= 3, color
        assert contrast(scheme["text"], scheme["page"]) >= 7
        for band in ("band0", "band1", "band2", "box"):
            assert contrast(scheme["text"], scheme[band]) >= 7, band


def contrast(one: str, other: str) -> float:
    """The contrast of two colors, as WCAG 2 defines it."""

    def luminance(color: str) -> float:
        parts = (int(color[n : n + 2], 16) / 255 for n in (1, 3, 5))
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


# --- Notebooks --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_notebooks_run(file: Path, tmp_path: Path):
    """Every cell runs. What numpy computes is what the file says; what training prints differs between machines."""
    kept = nbformat.read(file, as_version=4)
    made = notebooks.executed(file, tmp_path)
    for before, after in zip(kept.cells, made.cells, strict=True):
        if before.cell_type != "code":
            continue
        assert [masked(output.text) for output in before.outputs] == [masked(output.text) for output in after.outputs]
        if "hiper.train(" in before.source:
            break  # other machines learn something else from here on
        assert before.outputs == after.outputs


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_notebooks_are_small_and_install_from_where_the_project_is(file: Path):
    assert file.stat().st_size < 20_000
    notebook = nbformat.read(file, as_version=4)
    nbformat.validate(notebook)
    assert {output.output_type for cell in notebook.cells for output in cell.get("outputs", ())} <= {"stream"}
    first = next(cell.source for cell in notebook.cells if cell.cell_type == "code")
    urls = (ROOT / "pyproject.toml").read_text(encoding="utf-8").partition("[project.urls]")[2].partition("\n[")[0]
    address = re.search(r'^Repository = "(.+)"', urls, re.M)
    assert f'"git+{address[1] if address else "https://ADDRESS-OF-THE-REPOSITORY"}"' in first


# --- Screens ----------------------------------------------------------------------------------------------------------

SHORT = (
    "env.games=16 env.max_turns=12 warm_start.tasks=2 warm_start.epochs=1 warm_start.imperfect.epochs=1 "
    "rollout.episodes=8 rollout.max_response_tokens=16 training.iterations=2 evaluation.final_tasks=12 "
    "evaluation.tasks=4 evaluation.every=1"
)
"""What makes the quickstart end in seconds, with every kind of line on its screen."""


def masked(screen: str) -> str:
    """A screen without its numbers, names of tasks and line breaks, and with equal rows once."""
    words = re.sub(r"[━─┏┓┗┛┡┩└┘┴┳╇┼│┃]+", " ", screen)
    words = re.sub(r"\b[0-9a-f]{12}\b", "HASH", words)
    words = re.sub(r"\b[a-z]+(?:_[a-z]+)*_(?:recep|place|simple|light)\b", "TYPE", words)
    words = re.sub(r"(?<=iter-)\d+", "N", words)
    words = re.sub(r"(?<![\w-])[+-]?\d[\d.,:]*(?<![,:.])%?", "N", words)
    words = re.sub(r"\bN (?:s|min|h)\b", "N time", words)
    words = re.sub(r"(?<= )-(?= )", "N", words)  # a number that an iteration does not have
    words = re.sub(r"intervals (?:do not )?overlap", "intervals overlap", words)
    words = " ".join(words.split())
    words = re.sub(r"(N/N(?: N%?)+ time )(?:N/N(?: N%?)+ time )+", r"\1", words + " ")
    return re.sub(r"(TYPE(?: N%?(?: \[N, N\])?)+ )(?:TYPE(?: N%?(?: \[N, N\])?)+ )+", r"\1", words).strip()


def test_masks_keep_words_and_drop_numbers():
    assert masked("warm start: 1,747 steps; loss\n  0.015, 9 min") == masked("warm start: 17 steps; loss 2.3, 4.0 s")
    rows = "  1/14  38.3%  -0.01  3 min\n  2/14  1.2%  0.37  20 s\n"
    assert masked(rows) == masked("1/2 100.0% 0.00 9 s") == "N/N N N N time"
    assert masked("held out") != masked("held in")


@pytest.mark.slow
def test_the_screens_of_the_quickstart_are_those_of_a_quickstart(
    hiper: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A short quickstart shows every block that the page shows, in that order, word for word beside its numbers."""
    monkeypatch.chdir(tmp_path)
    done = hiper("train", "quickstart", *SHORT.split())
    assert done.code == 0, done.err
    rest = masked(done.out)
    screens = told("quickstart.md", "console")
    assert len(screens) > 5
    for screen in screens:
        before, found, rest = rest.partition(masked(screen))
        assert found, f"{masked(screen)}\n\nis not in\n\n{before}"
