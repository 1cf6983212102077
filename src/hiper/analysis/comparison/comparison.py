"""Sort runs into methods, check that they can be compared, and compare them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hiper.analysis.comparison.paired import Mean, Paired, compare_paired, crossed_mean, holm
from hiper.analysis.comparison.settings import MACHINE_KEYS, differing, flat, method_settings
from hiper.analysis.comparison.traces import Method, Trace
from hiper.errors import UserError
from hiper.outcomes import wilson
from hiper.runs.folder import Evaluated
from hiper.runs.metrics import SEGMENT_TURNS, SUCCESS, SWITCH_RATE

BUDGET_KEYS = ("training.iterations", "rollout.episodes", "learner.epochs", "evaluation.temperature")
"""Settings of effort, in which methods should not differ; the same holds for all settings of the environment."""
UNSEEN_KEYS = ("env.data",)
"""Settings of the environment whose only effect is on tasks, which a panel's hash already identifies."""
ESTIMATOR_KEY = "advantages.type"
"""The setting that distinguishes methods of one name where it suffices."""


@dataclass(frozen=True)
class Result:
    """A method on one split, after training."""

    method: str
    seeds: tuple[int, ...]
    tasks: int
    iterations: int
    """Iterations before the last evaluation."""
    before: float | None
    """Mean success before the first iteration; None if a run was not evaluated on these tasks then."""
    success: float
    """Mean success of the last evaluation over seeds."""
    interval: tuple[float, float]
    """95% interval: Wilson's for one run, else :func:`hiper.analysis.comparison.paired.crossed_mean`."""
    by_seed: tuple[float, ...]
    """Success of each seed."""
    by_type: Mapping[str, float]
    """Mean success over seeds by task type."""
    by_type_and_seed: Mapping[str, tuple[float, ...]]
    """Success of each seed by task type."""
    score: float
    """Mean score over seeds."""
    graded: bool
    """Whether the score differs from success."""
    turns: float
    """Mean length of an episode in turns."""
    paired: Paired | None
    """Comparison with the first method; None: this is the first one, or they have no seed in common."""
    paired_by_type: Mapping[str, Mean]
    """The same difference by task type; empty without ``paired``."""


@dataclass(frozen=True)
class Comparison:
    """Methods on the same held-out tasks."""

    methods: Sequence[Method]
    differences: Sequence[str]
    """Sentences on conditions that are unequal between methods, apart from the tasks, which are the same."""
    results: Mapping[str, Sequence[Result]]
    """Results by split, in the order of methods."""
    panels: Mapping[str, str]
    """Name and hash of the tasks, by split."""

    def to_json(self) -> dict[str, Any]:
        """Return results and curves as a tree for JSON."""
        return {
            "panels": dict(self.panels),
            "differences": list(self.differences),
            "results": {split: [dataclasses.asdict(r) for r in of] for split, of in self.results.items()},
            "methods": {
                method.label: {
                    "runs": [str(trace.path) for trace in method.traces],
                    "settings": method_settings(method.traces[0].config),
                    "held_out": {split: _plain(method.held_out(split)) for split in self.panels},
                    "training": {
                        metric.name: _plain(method.training(metric.name))
                        for metric in (SUCCESS, SWITCH_RATE, SEGMENT_TURNS)
                    },
                }
                for method in self.methods
            },
        }


def compare(traces: Sequence[Trace], missing: Sequence[str] = ()) -> Comparison:
    """Sort runs into methods, in the order of their first runs, and compare the methods.

    Args:
        traces: the runs.
        missing: sentences on runs that should be among them but are not; they join the differences.

    Raises:
        UserError: tasks or environments differ, or a method has a seed twice, or its seeds were trained for different
            numbers of iterations.
    """
    panels = _common_panels(traces)
    methods = group(traces)
    for method in methods:
        _check_as_long(method)
    differences = [*_differences(methods), *_machines(traces), *missing]
    return Comparison(methods, differences, {split: _results(methods, split) for split in panels}, panels)


def group(traces: Sequence[Trace]) -> list[Method]:
    """Group runs into methods: runs of one method differ in their seeds only.

    Where several methods have one name, their labels add the settings that distinguish them.

    Raises:
        UserError: two runs of one method have the same seed.
    """
    groups: list[tuple[dict[str, Any], list[Trace]]] = []
    for trace in traces:
        settings = method_settings(trace.config)
        known = next((members for other, members in groups if other == settings), None)
        if known is None:
            groups.append((settings, [trace]))
            continue
        if twin := next((other for other in known if other.config.seed == trace.config.seed), None):
            raise UserError(
                f"{twin.path} and {trace.path} have the same settings and the same seed, {trace.config.seed}: they are "
                "one run, not two; leave one out"
            )
        known.append(trace)
    methods = []
    for settings, members in groups:
        name = settings["name"]
        keys = _distinguishing_keys([other for other, _ in groups if other["name"] == name])
        label = ", ".join([name, *(f"{key} {settings.get(key, 'none')}" for key in keys)])
        methods.append(Method(label, sorted(members, key=lambda trace: trace.config.seed)))
    return methods


def _distinguishing_keys(trees: Sequence[Mapping[str, Any]]) -> list[str]:
    """Choose few keys whose values together distinguish all trees; the estimator's comes first."""
    chosen: list[str] = []

    def distinct(keys: Sequence[str]) -> int:
        return len({tuple(str(tree.get(key)) for key in keys) for tree in trees})

    for key in sorted(differing(trees), key=lambda key: key != ESTIMATOR_KEY):
        if distinct([*chosen, key]) > distinct(chosen):
            chosen.append(key)
    return chosen


def _differences(methods: Sequence[Method]) -> list[str]:
    trees = [method_settings(method.traces[0].config) for method in methods]
    unequal = [key for key in differing(trees) if key.startswith("env.") or key in BUDGET_KEYS]
    labelled = list(zip(methods, trees, strict=True))
    sentences = [
        f"methods differ in {key} ({', '.join(f'{m.label}: {t.get(key)}' for m, t in labelled)})"
        for key in unequal
        if key not in UNSEEN_KEYS
    ]
    sentences += [f"{m.label} is not finished: {reason}" for m in methods if (reason := _unfinished(m))]
    if any(method.seeds != methods[0].seeds for method in methods):
        seeds = "; ".join(f"{method.label}: {', '.join(map(str, method.seeds))}" for method in methods)
        sentences.append(
            f"methods differ in seeds ({seeds}): success is over all of each, differences over common ones"
        )
    return sentences


def _machines(traces: Sequence[Trace]) -> list[str]:
    """List the settings of the machine in which runs differ, which makes their times hard to compare."""
    trees = [{key: value for key, value in flat(trace.config).items() if key in MACHINE_KEYS} for trace in traces]
    return [
        f"runs differ in {key} ({', '.join(sorted({str(tree.get(key, 'default')) for tree in trees}))}): their minutes "
        "are of unlike machines"
        for key in differing(trees)
    ]


def _unfinished(method: Method) -> str | None:
    """Say when a method was last evaluated, if not after its last iteration; its runs are equally far."""
    first, last = method.traces[0], method.traces[0].config.training.iterations
    reached = min(evaluations[-1].iteration for evaluations in first.evaluations.values())
    diverged = ", and diverged" if any(trace.diverged for trace in method.traces) else ""
    return f"it was last evaluated after {reached} of {last} iterations{diverged}" if reached < last else None


def _check_as_long(method: Method) -> None:
    """Check that the runs of a method were last evaluated after the same number of iterations."""
    first, *others = method.traces
    for other in others:
        for split in first.evaluations:
            ends = [trace.evaluations[split][-1].iteration for trace in (first, other)]
            if ends[0] != ends[1]:
                shorter = first if ends[0] < ends[1] else other
                advice = "leave out the shorter one, which diverged"
                if not shorter.diverged:
                    advice = "continue the shorter one with hiper train --resume, or leave it out"
                raise UserError(
                    f"{first.path} and {other.path} are seeds of one method, and were last evaluated on {split} after "
                    f"{ends[0]} and {ends[1]} iterations: {advice}"
                )


def _common_panels(traces: Iterable[Trace]) -> dict[str, str]:
    """Return the panel of each split's last evaluation.

    Raises:
        UserError: the runs were not all evaluated on the same tasks throughout.
    """
    first, *others = traces
    for other in others:
        if missing := set(first.evaluations) ^ set(other.evaluations):
            raise UserError(
                f"{first.path} and {other.path} cannot be compared: only one was evaluated on "
                f"{', '.join(sorted(missing))}; train both with the same evaluation.splits"
            )
        for split in first.evaluations:
            for one, two in zip(_played(first, split), _played(other, split), strict=True):
                if one and two and one != two:
                    raise UserError(
                        f"{first.path} and {other.path} cannot be compared: on {split} they played different tasks: "
                        f"{_joined(one)}; "
                        f"{_joined(two)}. Train them under the same env and evaluation settings, to the end"
                    )
    return {split: of[-1].panel for split, of in first.evaluations.items()}


def _played(trace: Trace, split: str) -> tuple[set[tuple[str, str]], set[tuple[str, str]]]:
    """Return panel and environment of the last evaluation, and of those between the first and the last."""
    *earlier, last = trace.evaluations[split]
    return {(last.panel, last.environment)}, {(e.panel, e.environment) for e in earlier if e.iteration > 0}


def _joined(played: set[tuple[str, str]]) -> str:
    return " and ".join(f"{panel} ({environment})" for panel, environment in sorted(played))


def _results(methods: Sequence[Method], split: str) -> list[Result]:
    reference, *others = methods
    paired = [_paired(method, reference, split) for method in others]
    adjusted = iter(holm([found.p for found in paired if found and found.p is not None]))
    corrected = [
        found if found is None or found.p is None else dataclasses.replace(found, p_holm=next(adjusted))
        for found in paired
    ]
    by_type = [_paired_by_type(method, reference, split) for method in others]
    together = zip(methods, [None, *corrected], [{}, *by_type], strict=True)
    return [_result(method, split, found, of_types) for method, found, of_types in together]


def _common_seeds(method: Method, reference: Method) -> list[int]:
    return [seed for seed in method.seeds if seed in reference.seeds]


def _paired(method: Method, reference: Method, split: str) -> Paired | None:
    common = _common_seeds(method, reference)
    return compare_paired(method.outcomes(split, common), reference.outcomes(split, common)) if common else None


def _paired_by_type(method: Method, reference: Method, split: str) -> dict[str, Mean]:
    if not (common := _common_seeds(method, reference)):
        return {}
    types = [name for name in method.traces[0].evaluations[split][-1].outcomes if name != "all"]
    outcomes = {name: [m.outcomes(split, common, name) for m in (method, reference)] for name in types}
    return {name: crossed_mean(own_SN - other_SN) for name, (own_SN, other_SN) in outcomes.items()}


def _result(method: Method, split: str, paired: Paired | None, paired_by_type: Mapping[str, Mean]) -> Result:
    last = [trace.evaluations[split][-1] for trace in method.traces]
    won_SN = method.outcomes(split)
    one = len(won_SN) == 1
    by_type = {name: tuple(e.outcomes[name].success for e in last) for name in last[0].outcomes}
    return Result(
        method=method.label,
        seeds=tuple(method.seeds),
        tasks=won_SN.shape[1],
        iterations=last[0].iteration,
        before=_before([trace.evaluations[split] for trace in method.traces]),
        success=float(won_SN.mean()),
        interval=wilson(int(won_SN.sum()), won_SN.size) if one else _clipped(crossed_mean(won_SN).interval),
        by_seed=tuple(won_SN.mean(axis=1).tolist()),
        by_type={name: float(np.mean(of)) for name, of in by_type.items()},
        by_type_and_seed=by_type,
        score=float(np.mean([e.overall.score for e in last])),
        graded=any(e.overall.graded for e in last),
        turns=float(np.mean([e.overall.turns for e in last])),
        paired=paired,
        paired_by_type=paired_by_type,
    )


def _before(evaluations: Sequence[Sequence[Evaluated]]) -> float | None:
    firsts = [of[0] for of in evaluations if (of[0].iteration, of[0].panel) == (0, of[-1].panel)]
    return float(np.mean([e.overall.success for e in firsts])) if len(firsts) == len(evaluations) else None


def _clipped(interval: tuple[float, float]) -> tuple[float, float]:
    low, high = interval
    return max(0.0, low), min(1.0, high)


def _plain(points: Iterable[Any]) -> list[dict[str, Any]]:
    return [dataclasses.asdict(point) for point in points]
