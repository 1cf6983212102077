"""What came of a run, drawn from its folder: outcomes before and after, the learning curve, a sample episode."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hiper.config import Config
from hiper.display.plots import Curve, Estimate, draw_learning_curve
from hiper.display.tables import Table
from hiper.display.transcript import transcript
from hiper.episode import Episode, read_episodes
from hiper.errors import UserError
from hiper.evaluation.evaluate import CARD
from hiper.files import write_text
from hiper.outcomes import Outcome
from hiper.runs.folder import Run, episodes_played, read_metrics

CURVE = "curve.png"
REPORT = "report.md"


@dataclass(frozen=True)
class Evaluated:
    """One evaluation of a run, read back from its card."""

    iteration: int
    split: str
    panel: str
    """Its name and the beginning of its hash."""
    environment: str
    """Its name, version and limit of turns."""
    outcomes: Mapping[str, Outcome]

    @property
    def overall(self) -> Outcome:
        """All task types together."""
        return self.outcomes["all"]


@dataclass(frozen=True)
class Report:
    """See the module."""

    path: Path
    config: Config
    training: Sequence[tuple[int, float]]
    """Iteration and success of its training episodes."""
    evaluations: Mapping[str, Sequence[Evaluated]]
    """By split, in the order of iterations; at least one each."""
    sample: Episode | None
    """A held-out episode of the last evaluation."""
    episodes: int
    """Played in iterations, those replaced by others among them."""
    seconds: float
    """Spent in iterations."""

    @property
    def title(self) -> str:
        """Which run this is."""
        return f"{self.config.name}, seed {self.config.seed}"

    def summary(self) -> list[str]:
        """What happened, in sentences."""
        minutes = f"{self.seconds / 60:.1f} minutes of training."
        worked = f"{len(self.training)} iterations, {self.episodes:,} episodes, {minutes}"
        return [worked, *map(_rise, self.evaluations.values())]

    def tables(self) -> list[Table]:
        """Before and after by task type, a table per split."""
        return [_table(split, evaluations[0], evaluations[-1]) for split, evaluations in self.evaluations.items()]

    def places(self) -> list[tuple[str, str]]:
        """Where everything lies, and what it is."""
        newest = Run(self.path, self.config).checkpoints[-1:]
        known = (
            (REPORT, "this report"),
            (CURVE, "the learning curve"),
            *(
                (str(c.relative_to(self.path) / "policy"), "the trained policy, a Hugging Face directory")
                for c in newest
            ),
            ("warm-start", "the policy as reinforcement learning found it"),
            ("evaluations", "result cards"),
            ("episodes", "every episode: turns, tokens, log-probabilities, credit"),
            ("metrics.jsonl", "metrics of every iteration; the same in tensorboard/"),
            ("config.yaml", "the settings"),
        )
        return [
            (str(self.path / name), what)
            for name, what in known
            if name in (REPORT, CURVE) or (self.path / name).exists()
        ]

    def markdown(self) -> str:
        """The report as a document that lies in the run's folder."""
        parts = [f"# {self.title}", "\n".join(f"- {sentence}" for sentence in self.summary())]
        parts += [table.section() for table in self.tables()]
        parts += ["## learning curve", f"![success while training, and on held-out tasks]({CURVE})"]
        if self.sample is not None:
            parts += ["## a held-out episode", "```text\n" + "\n".join(transcript(self.sample)) + "\n```"]
        rows = [[f"`{Path(place).relative_to(self.path)}`", what] for place, what in self.places()]
        places = Table("where everything is", ("path", "what"), rows, left=2)
        parts.append(places.section())
        return "\n\n".join(parts) + "\n"


def write_report(report: Report) -> None:
    """Write ``report.md`` and the learning curve into the run's folder."""
    held_out = {split: [_estimate(e) for e in evaluations] for split, evaluations in report.evaluations.items()}
    draw_learning_curve(report.path / CURVE, Curve(report.title, report.training, held_out))
    write_text(report.path / REPORT, report.markdown())


def read_report(run: Run) -> Report:
    """Gather what a run's folder tells.

    Raises:
        UserError: the run has not been evaluated yet, or a file of it is damaged.
    """
    metrics = [record for record in read_metrics(run.path) if "success/all" in record]
    evaluations = read_evaluations(run)
    if not evaluations:
        raise UserError(f"{run.path} holds no evaluation yet; continue it with: hiper train --resume {run.path}")
    last = next(iter(evaluations.values()))[-1]
    return Report(
        path=run.path,
        config=run.config,
        training=[(record["iteration"], record["success/all"]) for record in metrics],
        evaluations=evaluations,
        sample=choose_sample(read_episodes(run.evaluation_episodes(last.iteration, last.split))),
        episodes=sum(episodes_played(record, run.config) for record in metrics),
        seconds=sum(record["time/iteration"] for record in metrics),
    )


def choose_sample(episodes: Iterable[Episode]) -> Episode | None:
    """The won episode that followed the most different subgoals; of equals the shortest. A lost one if all were."""

    def worth(episode: Episode) -> tuple[bool, int, int]:
        return episode.won, len({turn.subgoal for turn in episode.turns}), -len(episode.turns)

    return max(episodes, key=worth, default=None)


def read_evaluations(run: Run) -> dict[str, list[Evaluated]]:
    """The evaluations of a run by split, in the order of iterations.

    Raises:
        UserError: a card is damaged.
    """
    by_split: dict[str, list[Evaluated]] = {}
    for path in sorted((run.path / "evaluations").glob("*.json")):
        if name := re.fullmatch(r"eval-(\d+)-(.+)", path.stem):
            by_split.setdefault(name[2], []).append(_read_card(path, int(name[1]), name[2]))
    return by_split


def _read_card(path: Path, iteration: int, split: str) -> Evaluated:
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        if card["card"] != CARD:
            raise UserError(
                f"{path} is a result card of version {card['card']}, and this hiper reads version {CARD}: read the run "
                "with the hiper that made it"
            )
        outcomes = {name: Outcome(**{**o, "interval": tuple(o["interval"])}) for name, o in card["outcomes"].items()}
        panel, env = card["panel"], card["environment"]
        for name, of in outcomes.items():
            if (len(of.won_by_task), of.won_by_task.count("1")) != (of.episodes, of.won):
                raise ValueError(f"it tells of other outcomes of '{name}' by task than in all")
        return Evaluated(
            iteration,
            split,
            f"{panel['name']}, sha256 {panel['sha256'][:12]}",
            f"{env['name']} version {env['version']}, at most {env['max_turns']} turns",
            outcomes,
        )
    except UserError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is not a readable result card ({error}): move it away to go without it; hiper train --resume "
            f"{path.parent.parent} makes the last one of a run again"
        ) from error


def _estimate(evaluated: Evaluated) -> Estimate:
    low, high = evaluated.overall.interval
    return Estimate(evaluated.iteration, evaluated.overall.success, low, high)


def _rise(evaluations: Sequence[Evaluated]) -> str:
    """One sentence on a split."""
    before, after = evaluations[0], evaluations[-1]
    result = f"{after.split}: {_rate(after.overall)} of {after.overall.episodes} tasks ({after.panel})"
    if before is after:
        return f"{result}."
    points = 100 * (after.overall.success - before.overall.success)
    apart = (
        before.overall.interval[1] < after.overall.interval[0] or after.overall.interval[1] < before.overall.interval[0]
    )
    intervals = "the 95% intervals do not overlap" if apart else "the 95% intervals overlap"
    return f"{result}; {_when(before)}, {_rate(before.overall)}. A change of {points:+.1f} points; {intervals}."


def _table(split: str, before: Evaluated, after: Evaluated) -> Table:
    once = before is after
    graded = any(outcome.graded for outcome in after.outcomes.values())
    headings = [
        "task type",
        "tasks",
        *([_when(after)] if once else [_when(before), _when(after), "change"]),
        *["score"] * graded,
        "turns",
    ]
    rows = []
    for name, outcome in after.outcomes.items():
        was = before.outcomes.get(name)
        change = f"{100 * (outcome.success - was.success):+.1f}" if was else ""
        rates = [_rate(outcome)] if once else [_rate(was) if was else "", _rate(outcome), change]
        score = [f"{outcome.score:.3f}"] * graded
        rows.append([name, str(outcome.episodes), *rates, *score, f"{outcome.turns:.1f}"])
    return Table(f"held out: {split}", headings, rows, total="all")


def _when(evaluated: Evaluated) -> str:
    return f"after {evaluated.iteration} iterations" if evaluated.iteration else "before"


def _rate(outcome: Outcome) -> str:
    low, high = outcome.interval
    return f"{outcome.success:.1%} [{100 * low:.0f}, {100 * high:.0f}]"
