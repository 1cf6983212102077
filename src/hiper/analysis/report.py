"""The report of a run: outcomes before and after, the learning curve, a sample episode."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hiper.display.tables import Table
from hiper.display.text import duration
from hiper.display.transcript import transcript
from hiper.episode import Episode
from hiper.errors import UserError
from hiper.files import write_text
from hiper.outcomes import Outcome
from hiper.runs.folder import Evaluated, Run, checkpoint_policy
from hiper.runs.metrics import ITERATION_SECONDS, SUCCESS, alarms_in, episodes_played


@dataclass(frozen=True)
class Report:
    """The contents of a report."""

    run: Run
    training: Sequence[tuple[int, float]]
    """Iteration and success of its training episodes."""
    evaluations: Mapping[str, Sequence[Evaluated]]
    """By split, in the order of iterations; at least one each."""
    sample: Episode | None
    """A held-out episode of the last evaluation."""
    episodes: int
    """Episodes played in training, those that dynamic sampling replaced included."""
    seconds: float
    """Wall time of all iterations."""

    @property
    def title(self) -> str:
        """Name and seed of the run."""
        return f"{self.run.config.name}, seed {self.run.config.seed}"

    def summary(self) -> list[str]:
        """Say in sentences what happened."""
        took = f"{duration(self.seconds)} of training."
        worked = f"{len(self.training)} iterations, {self.episodes:,} episodes, {took}"
        return [worked, *map(_rise, self.evaluations.values()), *self._rang()]

    def _rang(self) -> list[str]:
        """Say which alarms rang."""
        count = Counter(name for record in self.run.iteration_metrics() for name in alarms_in(record))
        rang = ", ".join(f"{name} ({number} iterations)" for name, number in count.items())
        return [f"Alarms rang: {rang}. docs/reading-a-run.md explains them."] if rang else []

    def tables(self) -> list[Table]:
        """Make a table per split: success before and after by task type."""
        return [_table(split, evaluations[0], evaluations[-1]) for split, evaluations in self.evaluations.items()]

    def places(self) -> list[tuple[str, str]]:
        """List the files of the run and what each holds."""
        run = self.run
        newest = [checkpoint_policy(checkpoint) for checkpoint in run.checkpoints[-1:]]
        known = (
            (run.report_file, "this report"),
            (run.curve_file, "the learning curve"),
            *((policy, "the trained policy, a Hugging Face directory") for policy in newest),
            (run.warm_start, "the policy as reinforcement learning found it"),
            (run.evaluations_folder, "result cards"),
            (run.episodes_folder, "every episode: turns, tokens, log-probabilities, credit"),
            (run.metrics_file, f"metrics of every iteration; the same in {run.tensorboard.name}/"),
            (run.settings_file, "the settings"),
        )
        return [(str(path), what) for path, what in known if path in (run.report_file, run.curve_file) or path.exists()]

    def markdown(self) -> str:
        """Write the report as a document that lies in the run's folder."""
        parts = [f"# {self.title}", "\n".join(f"- {sentence}" for sentence in self.summary())]
        parts += [table.section() for table in self.tables()]
        curve = self.run.curve_file.name
        parts += ["## learning curve", f"![success while training, and on held-out tasks]({curve})"]
        if self.sample is not None:
            parts += ["## a held-out episode", "```text\n" + "\n".join(transcript(self.sample)) + "\n```"]
        rows = [[f"`{Path(place).relative_to(self.run.path)}`", what] for place, what in self.places()]
        places = Table("where everything is", ("path", "what"), rows, left=2)
        parts.append(places.section())
        return "\n\n".join(parts) + "\n"


def write_report(report: Report) -> None:
    """Write the report into the run's folder, and the learning curve if results have come since it was drawn."""
    if _curve_is_old(report.run):
        _draw_curve(report)
    write_text(report.run.report_file, report.markdown())


def _curve_is_old(run: Run) -> bool:
    if not run.curve_file.exists():
        return True
    results = [file for file in (run.metrics_file, *run.evaluations_folder.iterdir()) if file.exists()]
    return any(file.stat().st_mtime >= run.curve_file.stat().st_mtime for file in results)


def _draw_curve(report: Report) -> None:
    from hiper.display.plots import Curve, Estimate, draw_learning_curve  # matplotlib takes a second to import

    held_out = {
        split: [Estimate(e.iteration, e.overall.success, *e.overall.interval) for e in evaluations]
        for split, evaluations in report.evaluations.items()
    }
    draw_learning_curve(report.run.curve_file, Curve(report.title, report.training, held_out))


def read_report(run: Run) -> Report:
    """Gather the contents of a report from the run's folder.

    Raises:
        UserError: the run has no evaluation yet, or one of its files is damaged.
    """
    metrics = run.iteration_metrics()
    evaluations = run.evaluations()
    if not evaluations:
        raise UserError(f"{run.path} holds no evaluation yet; continue it with: hiper train --resume {run.path}")
    last = next(iter(evaluations.values()))[-1]
    return Report(
        run=run,
        training=[(record["iteration"], record[SUCCESS.name]) for record in metrics],
        evaluations=evaluations,
        sample=choose_sample(run.evaluated_episodes(last.iteration, last.split)),
        episodes=sum(episodes_played(record, run.config) for record in metrics),
        seconds=sum(record.get(ITERATION_SECONDS.name, 0.0) for record in metrics),
    )


def choose_sample(episodes: Iterable[Episode]) -> Episode | None:
    """Choose the won episode with the most different subgoals, the shortest of equals; a lost one if none was won."""

    def worth(episode: Episode) -> tuple[bool, int, int]:
        return episode.won, len({turn.subgoal for turn in episode.turns}), -len(episode.turns)

    return max(episodes, key=worth, default=None)


def _rise(evaluations: Sequence[Evaluated]) -> str:
    """Say in one sentence what training changed on a split."""
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
