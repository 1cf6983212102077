"""Every metric of a run, declared once; and the file that metrics are written to.

Names group by their first part. A part in angle brackets varies: ``success/<type>`` is a family with one metric per
task type, and :meth:`Metric.of` fills in the type.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from hiper.config import Config
from hiper.errors import UserError, unreadable
from hiper.files import with_checksum, without_checksum, write_text, writing
from hiper.runs.cards import Card
from hiper.runs.trackers import Tracker

Unit = Literal["share", "number", "count", "nats", "seconds", "tokens", "turns", "tokens per second", "0 or 1"]

_VARIABLE = re.compile(r"<\w+>")


@dataclass(frozen=True)
class Metric:
    """A metric, or a family of metrics whose names have variable parts."""

    name: str
    """Variable parts stand in angle brackets."""
    unit: Unit
    meaning: str
    """One sentence for a researcher."""

    def of(self, *parts: str) -> str:
        """Return the name of one member of a family.

        Args:
            parts: one text for each variable part, in order.

        Raises:
            ValueError: the family has another number of variable parts.
        """
        fixed = _VARIABLE.split(self.name)
        if len(parts) != len(fixed) - 1:
            raise ValueError(f"{self.name} has {len(fixed) - 1} variable parts, not {len(parts)}")
        return fixed[0] + "".join(part + rest for part, rest in zip(parts, fixed[1:], strict=True))

    def matches(self, name: str) -> bool:
        """Whether ``name`` is this metric or a member of this family."""
        return self._pattern.fullmatch(name) is not None

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return re.compile("(.+)".join(map(re.escape, _VARIABLE.split(self.name))))


# Outcomes of the iteration's episodes, those that dynamic sampling replaced among them.
SUCCESS = Metric("success/all", "share", "Share of training episodes that were won.")
SUCCESS_OF_TYPE = Metric("success/<type>", "share", "Share of training episodes of one task type that were won.")
RETURN = Metric("episode/return", "number", "Mean undiscounted sum of the environment's rewards, before shaping.")
SCORE = Metric("episode/score", "number", "Mean graded outcome in [0, 1]; equals success where there are no grades.")
TURNS = Metric("episode/turns", "turns", "Mean length of an episode.")
TRUNCATED = Metric("episode/truncated", "share", "Share of episodes that ended at the turn limit.")

# Responses.
INVALID = Metric("invalid/all", "share", "Share of turns whose response was invalid in form or in action.")
INVALID_FORM = Metric("invalid/form", "share", "Share of turns whose response broke the required form.")
INVALID_OF_KIND = Metric("invalid/<kind>", "share", "Share of turns that were invalid for one reason.")
PROMPT_CUT = Metric("prompt/cut", "share", "Share of turns whose prompt was too long and was shortened.")
PROMPT_UNKNOWN = Metric(
    "prompt/unknown", "share", "Share of prompt tokens that stand for words unknown to the tokenizer."
)
PLANS_DROPPED = Metric(
    "prompt/plans_dropped",
    "number",
    "Mean number of a prompt's oldest subgoals that `prompt.plan_memory_tokens` left out, with `prompt.plan_memory`.",
)
PROMPT_TOKENS = Metric("tokens/prompt", "tokens", "Mean length of a prompt.")
RESPONSE_TOKENS = Metric("tokens/response", "tokens", "Mean length of a response.")
THINKING_TOKENS = Metric(
    "tokens/thinking", "tokens", "Mean length of the thinking block of a response, if any has one."
)

# Plans.
SWITCH_RATE = Metric(
    "plan/switch_rate", "share", "Share of SWITCH among well-formed responses after the first turn of an episode."
)
SEGMENT_TURNS = Metric("plan/segment_turns", "turns", "Mean turns per segment: all turns over all segment boundaries.")
NEVER_SWITCHED = Metric(
    "plan/never_switched", "share", "Share of episodes of two or more turns that kept their first subgoal to the end."
)
COPIES_THAT_DIFFER = Metric(
    "plan/copies_that_differ", "share", "Share of KEEP responses whose subgoal is not a copy of the previous one."
)
REPEATED_ACTIONS = Metric(
    "plan/repeated_actions",
    "share",
    "Share of turns whose action was already played on the same observation, mean over episodes.",
)

# Groups of episodes of one task.
GROUPS_WITHOUT_SPREAD = Metric(
    "group/without_spread", "share", "Share of groups whose episodes all have the same return: nothing to compare."
)
GROUPS_REPLACED = Metric("group/replaced", "count", "Groups that dynamic sampling replaced by other tasks.")
EPISODES_PLAYED = Metric("group/episodes_played", "count", "Episodes played, those of replaced groups included.")

# Rewards, values and advantages. Heads: low, high and switch for HAE; token for token-level critics.
REWARD = Metric("reward/<part>", "number", "Sum over an episode of one part of the shaped reward, mean over episodes.")
EXPLAINED_VARIANCE = Metric(
    "critic/explained_variance_<head>",
    "number",
    "1 - Var(return - value) / Var(return) over the entries a value head is trained on; 0 for constant returns.",
)
VALUE = Metric("critic/value_<head>", "number", "Mean value of a head over the entries it is trained on.")
VALUE_LOSS = Metric("critic/loss_<head>", "number", "Mean value loss of a head, clipped if learner.value_clip is set.")
ADVANTAGE_MEAN = Metric(
    "advantage/<head>_mean", "number", "Mean advantage over the entries that use it, before normalisation if possible."
)
ADVANTAGE_STD = Metric("advantage/<head>_std", "number", "Standard deviation of the same advantages.")

# The sampler against the learner, on the sampled tokens.
MISMATCH_KL = Metric(
    "mismatch/kl",
    "nats",
    "k3 estimate of KL(sampler || learner): mean of exp(d) - 1 - d with d = log p_learner - log p_sampler.",
)
MISMATCH_MEAN = Metric("mismatch/mean_abs", "nats", "Mean of |log p_learner - log p_sampler| over sampled tokens.")
MISMATCH_MAX = Metric("mismatch/max_abs", "nats", "Maximum of |log p_learner - log p_sampler| over sampled tokens.")

# The update. r = p_new / p_old is the probability ratio of a token.
POLICY_LOSS = Metric("policy/loss", "number", "Mean clipped PPO surrogate over the tokens that earn credit.")
ENTROPY = Metric("policy/entropy", "nats", "Mean entropy of the policy's next-token distribution over responses.")
POLICY_KL = Metric(
    "policy/kl", "nats", "k3 estimate of KL(old || new): mean of r - 1 - log r over the tokens that earn credit."
)
CLIP_FRACTION = Metric("policy/clip_fraction", "share", "Share of these tokens with |r - 1| > learner.clip.")
REFERENCE_KL = Metric(
    "policy/kl_reference",
    "nats",
    "k3 estimate of KL(policy || reference) over response tokens, if learner.kl_coef > 0.",
)
POLICY_STOPPED = Metric(
    "policy/stopped", "share", "Share of steps without a policy update because policy/kl exceeded learner.target_kl."
)
IMPORTANCE = Metric(
    "update/importance", "number", "Mean importance weight of a credited token, with `learner.importance_cap`."
)
IMPORTANCE_CAPPED = Metric(
    "update/importance_capped", "share", "Share of credited tokens whose importance weight was cut to the cap."
)
GRAD_NORM = Metric("update/grad_norm", "number", "Mean gradient norm of the policy before clipping.")
CRITIC_GRAD_NORM = Metric("critic/grad_norm", "number", "Mean gradient norm of the critic before clipping.")
SKIPPED_STEPS = Metric(
    "update/skipped_steps", "share", "Share of optimizer steps skipped for NaN or infinite gradients."
)
PADDING = Metric("update/padding", "share", "Share of padding among the tokens of the micro-batches.")

# The engine of a sampler outside the trainer's process.
ENGINE_PROBE = Metric(
    "engine/probe",
    "nats",
    "Mean difference between engine and learner in the log-probabilities of fixed rows, after the last load.",
)
ENGINE_LOAD_SECONDS = Metric("engine/load_seconds", "seconds", "Seconds of the last load of weights, with its probe.")
ENGINE_RESTARTS = Metric("engine/restarts", "count", "Times that an engine was started again since the process began.")

# Time.
ITERATION_SECONDS = Metric("time/iteration", "seconds", "Wall time of the iteration, without evaluations.")
PHASE_SHARE = Metric("time/<phase>_share", "share", "Share of the iteration's wall time spent in one phase.")
GENERATION_SPEED = Metric("speed/generated_tokens", "tokens per second", "Response tokens per second of generation.")
UPDATE_SPEED = Metric(
    "speed/update_tokens", "tokens per second", "Prompt and response tokens per second of the update, over all epochs."
)

ALARM = Metric("alarm/<name>", "0 or 1", "Whether an alarm rings: its metric was beyond its limit for some iterations.")

# Held-out tasks.
EVAL_SUCCESS = Metric("eval/<split>/success", "share", "Share of held-out episodes of a split that were won.")
EVAL_SUCCESS_OF_TYPE = Metric(
    "eval/<split>/success/<type>", "share", "Share of held-out episodes of one task type that were won."
)
EVAL_TURNS = Metric("eval/<split>/turns", "turns", "Mean length of a held-out episode.")
EVAL_SECONDS = Metric("eval/<split>/seconds", "seconds", "Wall time of the evaluation.")

METRICS = tuple(declared for declared in list(globals().values()) if isinstance(declared, Metric))
"""All of the above, in this order."""


def metric_of(name: str) -> Metric:
    """Find the declaration of a metric's name; a metric of its own comes before a family.

    Raises:
        ValueError: the name is not declared.
    """
    found = [metric for metric in METRICS if metric.matches(name)]
    if not found:
        raise ValueError(f"metric '{name}' is not declared in hiper.runs.metrics")
    return next((metric for metric in found if metric.name == name), found[0])


def alarms_in(metrics: Mapping[str, Any]) -> list[str]:
    """Names of the alarms that ring in the metrics of one iteration."""
    prefix = ALARM.of("")
    return [name.removeprefix(prefix) for name, value in metrics.items() if name.startswith(prefix) and value]


def episodes_played(metrics: Mapping[str, Any], config: Config) -> int:
    """Number of episodes of an iteration, those that dynamic sampling replaced included."""
    return int(metrics.get(EPISODES_PLAYED.name, config.rollout.episodes))


class MetricsLog:
    """Appends metrics to a file of JSON lines, and hands them to trackers.

    Args:
        file: the JSON lines.
        after: lines of later iterations than this are dropped; an interrupted process left them.
        trackers: see :mod:`hiper.runs.trackers`. They are closed with the log.

    Raises:
        UserError: a line of the file is damaged.
    """

    def __init__(self, file: Path, after: int, trackers: Sequence[Tracker] = ()) -> None:
        self._file, self._trackers = file, trackers
        self._topics: set[tuple[int, str]] = set()
        self._keep(record for record in read_metrics(file) if record["iteration"] <= after)

    def _keep(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Write the file anew. Of lines about the same the last is kept."""
        last = {_topic(record): record for record in records}
        self._topics = set(last)
        write_text(self._file, "".join(map(_line, last.values())))

    def holds_evaluation(self, iteration: int, split: str) -> bool:
        """Whether a line is about the evaluation of a split after an iteration."""
        return (iteration, EVAL_SUCCESS.of(split)) in self._topics

    def write(self, iteration: int, metrics: Mapping[str, float]) -> None:
        """Append one line.

        Raises:
            ValueError: a name is not declared.
            UnwritableError: the disk refused.
        """
        for name in metrics:
            metric_of(name)
        topic = _topic({"iteration": iteration, **metrics})
        if topic in self._topics:  # a process that was killed between an evaluation's metrics and its card wrote it
            self._keep(record for record in read_metrics(self._file) if _topic(record) != topic)
        self._topics.add(topic)
        with writing(self._file), self._file.open("a", encoding="utf-8") as file:
            file.write(_line({"iteration": iteration, **metrics}))
        for tracker in self._trackers:
            tracker.log(iteration, metrics)

    def close(self) -> None:
        """Close the trackers."""
        for tracker in self._trackers:
            tracker.close()


class NoLog(MetricsLog):
    """A log for processes that write nothing."""

    def __init__(self) -> None:
        self._trackers, self._topics = (), set()

    def write(self, iteration: int, metrics: Mapping[str, float]) -> None:
        """Do nothing."""


def read_metrics(file: Path) -> list[dict[str, Any]]:
    """Read metrics in the order written; a half-written last line is left out.

    Raises:
        UserError: another line than the last is damaged, or a whole line holds no metrics.
    """
    text = file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""
    lines = text.split("\n")
    records, checked = [], []
    for number, line in enumerate(lines, start=1):
        if number == len(lines) and not line:
            break
        try:
            record, has_checksum = _record(line)
            records.append(record)
            checked.append(has_checksum)
        except (ValueError, RecursionError) as error:
            if number == len(lines) and isinstance(error, json.JSONDecodeError):
                break
            raise _damaged(file, number, unreadable(error)) from error
    if len(set(checked)) > 1:  # a log writes checksums into all lines, or into none before they came
        raise _damaged(file, checked.index(False) + 1, "it has no checksum, unlike others")
    return records


def readable_metrics(file: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Read every line that can be read, and say in words which cannot. For displays of damaged runs."""
    text = file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""
    *lines, unfinished = text.split("\n")
    records, problems = [], []
    for number, line in enumerate([*lines, *([unfinished] if unfinished else [])], start=1):
        try:
            records.append(_record(line)[0])
        except (ValueError, RecursionError) as error:
            if number <= len(lines):  # the last line may be half-written
                problems.append(f"{file.name}, line {number}, is left out: {unreadable(error)}")
    return records, problems


def _damaged(file: Path, number: int, reason: str) -> UserError:
    return UserError(f"{file}:{number} is damaged ({reason}): restore the line, or delete it to go without its metrics")


def metrics_problems(records: Sequence[Mapping[str, Any]], after: int) -> list[str]:
    """Describe in words what is missing or written twice in the metrics of ``after`` iterations."""
    trained = {record["iteration"] for record in records if SUCCESS.name in record}
    missing = [n for n in range(1, after + 1) if n not in trained]
    twice = sorted({iteration for (iteration, _), n in Counter(map(_topic, records)).items() if n > 1})
    return [
        *([f"the metrics of iteration {_numbers(missing)} are missing"] if missing else []),
        *([f"metrics after iteration {_numbers(twice)} are written twice"] if twice else []),
    ]


CARD_NAME = re.compile(r"eval-(\d+)-(.+)")
"""The name of a result card of a run: the iteration and the split."""


def card_problems(folder: Path, metrics_file: Path, records: Sequence[Mapping[str, Any]], after: int) -> Iterator[str]:
    """Describe in words which cards are damaged, or are not those of the metrics of ``after`` iterations."""
    for file in sorted(folder.glob("*.json")):
        try:
            card = Card.read(file)
        except UserError as error:
            yield str(error)
            continue
        name = CARD_NAME.fullmatch(file.stem)
        if name is None or int(name[1]) > after:
            continue
        success, turns, seconds = (metric.of(name[2]) for metric in (EVAL_SUCCESS, EVAL_TURNS, EVAL_SECONDS))
        told = [record for record in records if record["iteration"] == int(name[1]) and success in record]
        numbers = [(record[success], record.get(turns), round(record.get(seconds, -1), 1)) for record in told]
        if not told:
            yield f"{metrics_file}: the metrics of {file.name} are missing"
        elif (card.overall.success, card.overall.turns, card.seconds) not in numbers:
            yield f"{file} holds another evaluation than the one in {metrics_file.name}: restore it"


def _topic(record: Mapping[str, Any]) -> tuple[int, str]:
    """What a line is about: an iteration itself, or the evaluation of one split after it."""
    evaluation = next((name for name in record if EVAL_SUCCESS.matches(name)), "")
    return record["iteration"], "" if SUCCESS.name in record else evaluation


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(with_checksum(record)) + "\n"


def _record(line: str) -> tuple[dict[str, Any], bool]:
    """The metrics of a line, and whether a checksum says that they are as they were written."""
    read = json.loads(line)
    if not isinstance(read, dict):
        raise ValueError(f"it is of type {type(read).__name__}, not a mapping")
    record, has_checksum = without_checksum(read)
    iteration = record.get("iteration")
    if not isinstance(iteration, int) or isinstance(iteration, bool) or iteration < 0:
        raise ValueError("it has no number of an iteration")
    for name, value in record.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"'{name[:50]}' is of type {type(value).__name__}, not a number")
    return record, has_checksum


def _numbers(numbers: Sequence[int]) -> str:
    first = ", ".join(map(str, numbers[:5]))
    return f"{first} and {len(numbers) - 5} others" if len(numbers) > 5 else first
