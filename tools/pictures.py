"""Draw the pictures of docs/method.md: the plan-execute loop, and HAE on one episode.

    python tools/pictures.py             # write docs/plan-execute.svg and docs/hae.svg
    python tools/pictures.py --check     # fail if one is out of date

The numbers of the second picture come from `hiper.advantages`. Each picture has a background of its own, so it can be
read on light and dark pages.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np

from hiper.advantages import HAE, Credit, TurnGAE, Turns

FOLDER = Path(__file__).parents[1] / "docs"
LIGHT = {
    "page": "#ffffff", "text": "#1f2328", "soft": "#59636e", "line": "#d1d9e0", "box": "#f6f8fa",
    "switch": "#8250df", "subgoal": "#0969da", "action": "#1a7f37", "flat": "#6e7781", "bad": "#cf222e",
    "band0": "#ddf4ff", "band1": "#ffebe9", "band2": "#dafbe1",
}  # fmt: skip
DARK = {
    "page": "#161b22", "text": "#e6edf3", "soft": "#9198a1", "line": "#3d444d", "box": "#21262d",
    "switch": "#ab7df8", "subgoal": "#4493f8", "action": "#3fb950", "flat": "#9198a1", "bad": "#f85149",
    "band0": "#10233d", "band1": "#3a1d1d", "band2": "#12301c",
}  # fmt: skip

ACTIONS = ("go to desk", "take mug", "open drawer", "open cabinet", "go to sink", "wash mug")
SUBGOALS = ("find a mug", "find soap", "wash the mug")
EPISODE = Turns(
    mask_BT=np.ones((1, 6), dtype=bool),
    reward_BT=np.array([[0.0, 0, 0, 0, 0, 10]]),
    boundary_BT=np.array([[True, False, True, False, True, False]]),
    terminated_B=np.array([True]),
    v_high_BT=np.array([[4.0, 0, 6, 0, 3, 0]]),
    v_low_BT=np.array([[4.0, 5, 5, 4, 7, 9]]),
    v_switch_BT=np.array([[4.0, 5, 6, 5, 3, 8]]),
    value_BT=np.array([[4.0, 5, 6, 5, 3, 8]]),
)
"""The episode of docs/method.md: a mug is found, a detour is made, the mug is washed. The environment pays 10."""
ESTIMATOR = HAE(gamma=1.0, lambda_turn=1.0, lambda_seg=0.5)
FLAT = TurnGAE(gamma=1.0, lambda_turn=1.0, normalize=False)


def credit() -> tuple[Credit, Credit]:
    """Return the credit of HAE and of flat GAE on the episode."""
    return ESTIMATOR(EPISODE), FLAT(EPISODE)


# Parts of a picture


def style() -> str:
    """Return the style sheet of a picture, for light and dark."""

    def rules(colors: Mapping[str, str]) -> str:
        fills = "".join(f".{name}{{fill:{value}}}.l-{name}{{stroke:{value}}}" for name, value in colors.items())
        return f"{fills}.frame{{stroke:{colors['line']}}}"

    fixed = "text{font-family:system-ui,sans-serif;font-size:14px}.m{text-anchor:middle}.e{text-anchor:end}"
    fixed += ".s{font-size:12px}.b{font-weight:600}.c{font-family:ui-monospace,monospace;font-size:12.5px}"
    fixed += "path{fill:none;stroke-width:1.8}.head{stroke:none}"
    return f"<style>{fixed}{rules(LIGHT)}@media (prefers-color-scheme:dark){{{rules(DARK)}}}</style>"


def text(x: float, y: float, words: str, classes: str = "text") -> str:
    """Return a line of text."""
    return f'<text x="{x:g}" y="{y:g}" class="{classes}">{escape(words)}</text>'


def box(x: float, y: float, width: float, height: float, classes: str = "box frame", radius: float = 8) -> str:
    """Return a rectangle."""
    return f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{radius:g}" class="{classes}"/>'


def arrow(path: str, color: str) -> str:
    """Return a line that ends in an arrow head."""
    return f'<path d="{path}" class="l-{color}" marker-end="url(#{color})"/>'


def heads(*colors: str) -> str:
    """Return the arrow heads of some colors."""
    shape = '<path class="head {0}" d="M0 0 8 4 0 8z"/>'
    marker = '<marker id="{0}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="6" markerHeight="6" orient="auto">'
    return "<defs>" + "".join(f"{marker}{shape}</marker>".format(color) for color in colors) + "</defs>"


def picture(width: int, height: int, title: str, told: str, parts: Sequence[str]) -> str:
    """Return a whole picture, with a title and a description for those who do not see it."""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-labelledby="t d">'
    names = f'<title id="t">{escape(title)}</title><desc id="d">{escape(told)}</desc>'
    page = box(0.5, 0.5, width - 1, height - 1, "page frame", 10)
    return "\n".join([head, names, style(), page, *parts, "</svg>"]) + "\n"


# The plan-execute loop


def loop() -> str:
    """Return the picture of one turn: what the model reads, its three decisions, and what follows."""
    parts = [heads("soft", "switch", "subgoal", "action")]
    parts += [box(20, 60, 180, 150), text(110, 85, "prompt", "text b m")]
    for line, words in enumerate(("the task", "the last turns", "the observation", "the current subgoal")):
        parts.append(text(110, 115 + 26 * line, words, "subgoal m" if "subgoal" in words else "soft m"))
    parts += [box(236, 60, 348, 150), text(410, 85, "one model, one response, three decisions", "text b m")]
    rows = (("switch", "<switch>SWITCH</switch>"), ("subgoal", "<subgoal>wash the mug</subgoal>"))
    for line, (name, words) in enumerate((*rows, ("action", "<action>go to sink</action>"))):
        y = 118 + 34 * line
        parts += [text(250, y, ("1 switch", "2 subgoal", "3 action")[line], f"{name} b"), text(338, y, words, "text c")]
    parts += [box(620, 60, 180, 150), text(710, 85, "environment", "text b m")]
    for line, words in enumerate(("plays the action,", "pays a reward,", "shows what follows")):
        parts.append(text(710, 118 + 26 * line, words, "soft m"))
    parts += [
        arrow("M200 135H230", "soft"),
        arrow("M584 186H614", "action"),
        arrow("M710 210V262H110V216", "soft"),
        text(410, 256, "next turn: a new observation", "soft s m"),
        arrow("M410 60V30H110V54", "subgoal"),
        text(260, 24, "the subgoal stays until the model says SWITCH", "subgoal s m"),
    ]
    told = (
        "The model reads the task, the last turns, the observation and its current subgoal. It responds with three "
        "decisions: KEEP or SWITCH, the subgoal, and an action. The environment plays the action. The subgoal goes "
        "into the next prompt."
    )
    return picture(820, 285, "One turn of the plan-execute loop", told, parts)


# HAE on one episode

LEFT, COLUMN = 148, 110


def hae() -> str:
    """Return the picture of HAE on one episode: segments, values, two time scales, and credit beside flat credit."""
    by_decision, flat = credit()
    ends = [*np.flatnonzero(EPISODE.boundary_BT[0])[1:], 6]
    parts = [heads("subgoal", "action"), text(16, 34, "turn", "soft s")]
    for t, action in enumerate(ACTIONS):
        parts += [text(middle(t), 34, str(t), "soft s m"), text(middle(t), 100, action, "text s m")]
    begin = 0
    for k, end in enumerate(ends):
        parts.append(box(LEFT + COLUMN * begin + 3, 46, COLUMN * (end - begin) - 6, 34, f"band{k} frame", 6))
        parts.append(text(LEFT + COLUMN * (begin + end) / 2, 68, SUBGOALS[k], "text b m"))
        begin = end
    parts += [text(16, 68, "subgoal", "subgoal b"), text(16, 100, "action", "action b")]
    colors = {"reward": "soft", "V_high": "subgoal", "V_low": "action", "V_switch": "switch"}
    for line, (name, color) in enumerate(colors.items()):
        parts += row(130 + 24 * line, name, color)
    parts += scales(ends)
    charts: tuple[tuple[str, str, str, Sequence[float], bool], ...] = (
        ("A_high", "the planner's credit", "subgoal", by_decision.high_BT[0], True),
        ("A_low", "the executor's credit", "action", by_decision.low_BT[0], False),
        ("A_switch", "of keep or switch", "switch", by_decision.switch_BT[0], False),
        ("flat GAE", "for comparison", "flat", flat.low_BT[0], False),
    )
    for line, (name, words, color, values, sparse) in enumerate(charts):
        parts += bars(354 + 86 * line, name, words, color, values, sparse)
    told = (
        "Six turns in three segments: find a mug, find soap, wash the mug. Only the last turn is rewarded. The "
        "executor's credit is cut at the ends of segments: the detour to the soap gets negative credit, although the "
        "episode was won. Flat credit is positive in every turn."
    )
    return picture(LEFT + 6 * COLUMN + 12, 672, "Hierarchical advantage estimation on one episode", told, parts)


def middle(t: float) -> float:
    """Return the middle of a turn's column."""
    return LEFT + COLUMN * (t + 0.5)


def row(y: float, name: str, color: str) -> list[str]:
    """Return a row of the episode's numbers. V_high has some at boundaries alone."""
    values = getattr(EPISODE, f"{name.lower()}_BT")[0]
    shown = [t for t in range(6) if name != "V_high" or EPISODE.boundary_BT[0, t]]
    return [text(16, y, name, f"{color} b"), *(text(middle(t), y, f"{values[t]:g}", "text m") for t in shown)]


def scales(ends: Sequence[int]) -> list[str]:
    """Return the arrows along which credit flows back, on two time scales."""
    parts = [
        text(16, 244, "planner", "subgoal b"), text(16, 260, "segment to segment", "soft s"),
        text(16, 288, "executor", "action b"), text(16, 304, "inside a segment", "soft s"),
    ]  # fmt: skip
    begins = [0, *ends[:-1]]
    for begin, end in zip(begins, ends, strict=True):
        if end < 6:
            here, there = middle(end), middle(begin)
            parts.append(arrow(f"M{here - 6} 254C{here - 50} 232 {there + 50} 232 {there + 6} 252", "subgoal"))
        for t in range(begin, end - 1):
            parts.append(arrow(f"M{middle(t + 1) - 8} 296H{middle(t) + 10}", "action"))
        if end < 6:  # the trace is cut here
            x = LEFT + COLUMN * end
            parts.append(f'<path d="M{x} 278V314" class="l-bad"/>')
        parts += [f'<circle cx="{middle(begin)}" cy="256" r="4" class="subgoal"/>']
        parts += [f'<circle cx="{middle(t)}" cy="296" r="4" class="action"/>' for t in range(begin, end)]
    return parts


def bars(y: float, name: str, words: str, color: str, values: Sequence[float], sparse: bool) -> list[str]:
    """Return a chart of signed bars with their numbers."""
    zero, unit = y + 30, 5.0
    parts = [text(16, zero - 4, name, f"{color} b"), text(16, zero + 12, words, "soft s")]
    parts.append(f'<path d="M{LEFT} {zero}H{LEFT + 6 * COLUMN}" class="l-line"/>')
    for t in range(6):
        if sparse and not EPISODE.boundary_BT[0, t]:
            continue
        size = unit * abs(values[t])
        top = zero - size if values[t] > 0 else zero
        parts.append(box(middle(t) - 19, top, 38, size, color if values[t] > 0 else "bad", 2))
        label = f"{values[t]:+.2f}".rstrip("0").rstrip(".").replace("-", "\N{MINUS SIGN}")
        parts.append(text(middle(t), zero - size - 5 if values[t] > 0 else zero + size + 14, label, "text s m"))
    return parts


PICTURES: Mapping[str, Callable[[], str]] = {"plan-execute.svg": loop, "hae.svg": hae}
"""What draws each picture."""


def main() -> None:
    """Write the pictures, or check them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a picture is out of date")
    check = parser.parse_args().check
    for name, draw in PICTURES.items():
        file, drawn = FOLDER / name, draw()
        if not check:
            file.write_text(drawn, encoding="utf-8")
        elif not file.is_file() or file.read_text(encoding="utf-8") != drawn:
            sys.exit(f"{file} is out of date: run `make reference`")


if __name__ == "__main__":
    main()
