"""Runs sorted into methods, made sure to be comparable, and compared."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hiper.analysis.comparison.paired import Mean, Paired, compare_paired, crossed_mean, holm
from hiper.analysis.comparison.settings import OF_A_MACHINE, differing, flat, method_settings
from hiper.analysis.comparison.traces import Method, Trace
from hiper.errors import UserError
from hiper.files import write_text
from hiper.outcomes import wilson
from hiper.runs.folder import Evaluated
from hiper.runs.metrics import SEGMENT_TURNS, SUCCESS, SWITCH_RATE

ON_EQUAL_TERMS = ("training.iterations", "rollout.episodes", "learner.epochs", "evaluation.temperature")
"""Beside the environment's, settings in which methods should not differ if it is the methods that are compared."""
NOT_SEEN = ("env.data",)
"""Settings of the environment of which nothing is seen but what is in the hash of a panel."""
TELLS_MOST = "advantages.type"
"""The setting by which methods of one name are told apart where it suffices."""


@dataclass(frozen=True)
class Result:
    """A method on one split, after training."""

    method: str
    seeds: tuple[int, ...]
    tasks: int
    iterations: int
    """After how many the last evaluation was."""
    before: float | None
    """Success before the first iteration, mean over seeds; None where a run was not evaluated then on these tasks."""
    success: float
    """Of the last evaluation, mean over seeds."""
    interval: tuple[float, float]
    """95%: Wilson's of one run, else :func:`hiper.analysis.comparison.paired.crossed_mean` over seeds and tasks."""
    by_seed: tuple[float, ...]
    by_type: Mapping[str, float]
    """Means over seeds, of which ``by_type_and_seed`` has each."""
    by_type_and_seed: Mapping[str, tuple[float, ...]]
    score: float
    graded: bool
    """Whether the score says more than the success."""
    turns: float
    paired: Paired | None
    """Against the first method; None: it is the first, or has no seed in common with it."""
    paired_by_type: Mapping[str, Mean]
    """The same difference on the tasks of each type; empty without ``paired``."""


@dataclass(frozen=True)
class Comparison:
    """Methods on the same held-out tasks."""

    methods: Sequence[Method]
    differences: Sequence[str]
    """What is unequal about methods, in words: the tasks are the same, but not all about them or the training."""
    results: Mapping[str, Sequence[Result]]
    """By split, in the order of methods."""
    panels: Mapping[str, str]
    """By split."""

    def to_json(self) -> dict[str, Any]:
        """Results and curves."""
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

    def write(self, path: Path) -> None:
        """As JSON."""
        write_text(path, json.dumps(self.to_json(), indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def compare(traces: Sequence[Trace], missing: Sequence[str] = ()) -> Comparison:
    """Sort runs into methods, in the order in which they first come, and compare these.

    Args:
        traces: the runs.
        missing: which others should be among them and why they are not, in words.

    Raises:
        UserError: panels or environments differ, or a method has a seed twice, or seeds trained for unlike times.
    """
    panels = _common_panels(traces)
    methods = group(traces)
    for method in methods:
        _check_as_long(method)
    differences = [*_differences(methods), *_machines(traces), *missing]
    return Comparison(methods, differences, {split: _results(methods, split) for split in panels}, panels)


def group(traces: Sequence[Trace]) -> list[Method]:
    """Methods: runs whose settings differ in their seeds alone.

    Where several methods have one name, their labels add what tells them apart.

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
        keys = _telling([other for other, _ in groups if other["name"] == name])
        label = ", ".join([name, *(f"{key} {settings.get(key, 'none')}" for key in keys)])
        methods.append(Method(label, sorted(members, key=lambda trace: trace.config.seed)))
    return methods


def _telling(trees: Sequence[Mapping[str, Any]]) -> list[str]:
    """As few keys as tell all apart, the estimator's first."""
    chosen: list[str] = []

    def apart(keys: Sequence[str]) -> int:
        return len({tuple(str(tree.get(key)) for key in keys) for tree in trees})

    for key in sorted(differing(trees), key=lambda key: key != TELLS_MOST):
        if apart([*chosen, key]) > apart(chosen):
            chosen.append(key)
    return chosen


def _differences(methods: Sequence[Method]) -> list[str]:
    trees = [method_settings(method.traces[0].config) for method in methods]
    unequal = [key for key in differing(trees) if key.startswith("env.") or key in ON_EQUAL_TERMS]
    both = list(zip(methods, trees, strict=True))
    said = [
        f"methods differ in {key} ({', '.join(f'{m.label}: {t.get(key)}' for m, t in both)})"
        for key in unequal
        if key not in NOT_SEEN
    ]
    said += [f"{method.label} is not finished: {told}" for method in methods if (told := _unfinished(method))]
    if any(method.seeds != methods[0].seeds for method in methods):
        seeds = "; ".join(f"{method.label}: {', '.join(map(str, method.seeds))}" for method in methods)
        said.append(f"methods differ in seeds ({seeds}): success is over all of each, differences over common ones")
    return said


def _machines(traces: Sequence[Trace]) -> list[str]:
    """In which settings of the machine runs differ, so that their times say little of methods."""
    trees = [{key: value for key, value in flat(trace.config).items() if key in OF_A_MACHINE} for trace in traces]
    return [
        f"runs differ in {key} ({', '.join(sorted({str(tree[key]) for tree in trees}))}): their minutes are of unlike "
        "machines"
        for key in differing(trees)
    ]


def _unfinished(method: Method) -> str | None:
    """How far the evaluations go that are compared, if not to the end of training; all runs have come equally far."""
    first, last = method.traces[0], method.traces[0].config.training.iterations
    reached = min(evaluations[-1].iteration for evaluations in first.evaluations.values())
    diverged = ", and diverged" if any(trace.diverged for trace in method.traces) else ""
    return f"it was last evaluated after {reached} of {last} iterations{diverged}" if reached < last else None


def _check_as_long(method: Method) -> None:
    """Make sure that the last evaluations of a method's runs came after equally many iterations."""
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
    """The panel of each split's last evaluation, after making sure that all runs played the same throughout.

    Raises:
        UserError: they did not.
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
                        f"{_and(one)}; {_and(two)}. Train them under the same env and evaluation settings, to the end"
                    )
    return {split: of[-1].panel for split, of in first.evaluations.items()}


def _played(trace: Trace, split: str) -> tuple[set[tuple[str, str]], set[tuple[str, str]]]:
    """Panel and environment of the last evaluation, and of those between the first and the last."""
    *earlier, last = trace.evaluations[split]
    return {(last.panel, last.environment)}, {(e.panel, e.environment) for e in earlier if e.iteration > 0}


def _and(played: set[tuple[str, str]]) -> str:
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
    both = {name: [m.outcomes(split, common, name) for m in (method, reference)] for name in types}
    return {name: crossed_mean(own_SN - other_SN) for name, (own_SN, other_SN) in both.items()}


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
        interval=wilson(int(won_SN.sum()), won_SN.size) if one else _within_a_share(crossed_mean(won_SN).interval),
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


def _within_a_share(interval: tuple[float, float]) -> tuple[float, float]:
    low, high = interval
    return max(0.0, low), min(1.0, high)


def _plain(points: Iterable[Any]) -> list[dict[str, Any]]:
    return [dataclasses.asdict(point) for point in points]
