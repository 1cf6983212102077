"""Playing episodes in slots. The agent is scripted, so that every turn is known."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from transformers import PreTrainedTokenizerFast, Qwen2ForCausalLM

from helpers.made import turns_of
from hiper.advantages import TokenKind
from hiper.envs.base import Start, Step
from hiper.envs.panels import Panel
from hiper.envs.small.corridor import SPLITS, CorridorEnv, make
from hiper.episode import Episode
from hiper.errors import UserError
from hiper.imitation.demonstrations import demonstrate
from hiper.models.weights import PolicyWeights
from hiper.plan_execute.parse import InvalidKind, response_text
from hiper.plan_execute.prompts import PromptBuilder
from hiper.plan_execute.render import Template
from hiper.plan_execute.tokenizer import build_word_tokenizer, encode_text
from hiper.rollout.agent import Agent
from hiper.rollout.collector import Timing, collect
from hiper.rollout.groups import Collected, collect_groups, groups_without_spread
from hiper.rollout.players import Assignment
from hiper.rollout.samplers import Request, Sample, Sampler, SamplingParams
from hiper.rollout.samplers.transformers import TransformersOptions, TransformersSampler

CELLS = 4
TURNS = 6
Say = Callable[[str], str]
"""From a prompt to a response."""
Build = Callable[..., Agent]


def respond(switch: str, subgoal: str, action: str) -> str:
    return f"<switch> {switch} </switch> <subgoal> {subgoal} </subgoal> <action> {action} </action>"


class Counting(CorridorEnv):
    """Notes what is played in it. (That it refuses to be stepped after the end is the corridor's own doing.)"""

    played: list[tuple[str, str]]

    def reset(self, task_id: str, seed: int = 0) -> Start:
        self.task_id = task_id
        return super().reset(task_id, seed)

    def step(self, action: str) -> Step:
        self.played.append((self.task_id, action))
        return super().step(action)


class Scripted:
    """A sampler that says what it is told to, and notes how much it was asked for."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, say: Say) -> None:
        self.tokenizer, self.say = tokenizer, say
        self.rounds: list[int] = []
        self.seeds: list[int] = []
        self.waiting: list[tuple[Request, Future[Sample]]] = []

    def load(self, weights: PolicyWeights, version: int) -> None: ...

    def close(self) -> None: ...

    def submit(self, request: Request) -> Future[Sample]:
        self.seeds.append(request.seed)
        self.waiting.append((request, Future()))
        return self.waiting[-1][1]

    def run(self) -> None:
        """Answers all that it was asked, at once."""
        if self.waiting:
            self.rounds.append(len(self.waiting))
        waiting, self.waiting = self.waiting, []
        for request, future in waiting:
            future.set_result(self.answer(request))

    def answer(self, request: Request) -> Sample:
        ids = (
            *encode_text(self.tokenizer, self.say(str(self.tokenizer.decode(list(request.prompt))))),
            self.tokenizer.eos_token_id,
        )
        cut = ids[: request.params.max_tokens]
        return Sample(cut, tuple(-0.01 * i for i in range(len(cut))), len(cut) == len(ids), 3)


class OneByOne(Scripted):
    """Answers from a thread of its own, one after the other, the newest request first."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, say: Say) -> None:
        super().__init__(tokenizer, say)
        self.pool = ThreadPoolExecutor(1)

    def submit(self, request: Request) -> Future[Sample]:
        future = super().submit(request)
        self.pool.submit(self.answer_newest)
        return future

    def answer_newest(self) -> None:
        time.sleep(0.001)
        request, future = self.waiting.pop()
        if future.set_running_or_notify_cancel():
            future.set_result(self.answer(request))

    def run(self) -> None:
        """Its thread does the work."""


@pytest.fixture(scope="module")
def env() -> Counting:
    tasks = [task for split in SPLITS for task in make(split, CELLS, TURNS).panel]
    counting = Counting(Panel.of("corridor", tasks), TURNS)
    counting.played = []  # one list for all that it spawns
    return counting


@pytest.fixture(autouse=True)
def _forget(env: Counting) -> None:
    env.played.clear()


@pytest.fixture(scope="module")
def tokenizer(env: Counting) -> PreTrainedTokenizerFast:
    template = Template.load("terse")
    turns = [turn for task in env.panel for turn in turns_of(demonstrate(env, task.id))]
    texts = [text for turn in turns for text in (str(template.render(turn.context)), response_text(turn.decision))]
    return build_word_tokenizer(texts, [*template.wording, "sing"])


@pytest.fixture
def agent_of(tokenizer: PreTrainedTokenizerFast) -> Build:
    def build(says: Sampler | Say, max_tokens: int = 40) -> Agent:
        sampler = Scripted(tokenizer, says) if callable(says) else says
        prompts = PromptBuilder(
            Template.load("terse"), tokenizer, history_window=1, max_tokens=None, overflow="drop_history"
        )
        return Agent(sampler, tokenizer, prompts, SamplingParams(1.0, max_tokens), include_tags=True)

    return build


def wander(prompt: str) -> str:
    """Opens the door where it stands, else goes right; so episodes end after different numbers of turns."""
    at_door = re.search(r"[.,] open door [^.]*\. task", prompt)  # among the actions, which stand before the task
    return respond("SWITCH", "find the door", "open door" if at_door else "go right")


def play(env: Counting, agent: Agent, slots: int, count: int = 9, seed: int = 0) -> list[Episode]:
    chosen = [Assignment(task.id, index, seed + index) for index, task in enumerate(env.panel.tasks[:count])]
    episodes, _ = collect(env, chosen, agent, slots=slots)
    assert [(episode.task_id, episode.seed) for episode in episodes] == [(a.task_id, a.seed) for a in chosen]
    return episodes


# --- Slots ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slots", [1, 2, 4, 50])
def test_a_finished_episode_is_neither_stepped_nor_asked_again(
    env: Counting, agent_of: Build, tokenizer: PreTrainedTokenizerFast, slots: int
):
    sampler = Scripted(tokenizer, wander)
    episodes = play(env, agent_of(sampler), slots)
    lengths = [len(episode.turns) for episode in episodes]
    assert len(set(lengths)) > 1  # otherwise this shows nothing
    assert sum(sampler.rounds) == len(env.played) == sum(lengths)
    assert Counter(task for task, _ in env.played) == {e.task_id: len(e.turns) for e in episodes}


@pytest.mark.parametrize("slots", [2, 4])
def test_a_slot_that_falls_free_is_filled_at_once(
    env: Counting, agent_of: Build, tokenizer: PreTrainedTokenizerFast, slots: int
):
    sampler = Scripted(tokenizer, wander)
    episodes = play(env, agent_of(sampler), slots)
    remaining = [len(episode.turns) for episode in episodes]
    running: list[int] = []
    expected: list[int] = []
    while remaining or running:
        while remaining and len(running) < slots:
            running.append(remaining.pop(0))
        expected.append(len(running))
        running = [turns - 1 for turns in running if turns > 1]
    assert sampler.rounds == expected


def test_results_do_not_depend_on_slots_or_order_of_ending(env: Counting, agent_of: Build):
    assert play(env, agent_of(wander), 1) == play(env, agent_of(wander), 3) == play(env, agent_of(wander), 50)


def test_each_turn_has_a_seed_of_its_own(env: Counting, agent_of: Build, tokenizer: PreTrainedTokenizerFast):
    """It depends on the episode and the turn, not on the slots."""

    def seeds(seed: int, slots: int = 3) -> list[int]:
        sampler = Scripted(tokenizer, wander)
        play(env, agent_of(sampler), slots=slots, seed=seed)
        return sampler.seeds

    assert len(set(seeds(0))) == len(seeds(0))
    assert sorted(seeds(0)) == sorted(seeds(0, slots=1)) == sorted(seeds(0, slots=50))
    assert not set(seeds(0)) & set(seeds(100))


def test_an_episode_goes_on_as_soon_as_its_own_answer_is_there(
    env: Counting, agent_of: Build, tokenizer: PreTrainedTokenizerFast
):
    """With the newest request answered first, one episode is played to its end while the others wait."""
    ended: list[Episode] = []
    sampler = OneByOne(tokenizer, wander)
    chosen = [Assignment(task.id, index, index) for index, task in enumerate(env.panel.tasks[:9])]
    episodes, _ = collect(env, chosen, agent_of(sampler), slots=3, on_episode=ended.append)
    assert episodes == play(env, agent_of(wander), slots=50)
    assert ended != episodes


def test_what_is_under_way_is_cancelled_by_a_stop(env: Counting, agent_of: Build, tokenizer: PreTrainedTokenizerFast):
    sampler = Scripted(tokenizer, wander)

    def stop() -> None:
        raise KeyboardInterrupt

    chosen = [Assignment(task.id, 0, 0) for task in env.panel.tasks[:3]]
    with pytest.raises(KeyboardInterrupt):
        collect(env, chosen, agent_of(sampler), slots=3, on_turn=stop)
    assert all(future.cancelled() for _, future in sampler.waiting)
    assert len(env.played) == 1


class Slow(Counting):
    """Steps that take a while and may be taken side by side; notes how many were under way at once."""

    concurrent = True
    lock = threading.Lock()
    under_way = most = 0
    closed = 0

    def step(self, action: str) -> Step:
        with Slow.lock:
            Slow.under_way += 1
            Slow.most = max(Slow.most, Slow.under_way)
        time.sleep(0.01)
        with Slow.lock:
            Slow.under_way -= 1
        return super().step(action)

    def close(self) -> None:
        Slow.closed += 1


def test_steps_of_concurrent_environments_are_taken_side_by_side(env: Counting, agent_of: Build):
    slow = Slow(env.panel, TURNS)
    slow.played = []
    assert play(slow, agent_of(wander), slots=6) == play(env, agent_of(wander), slots=6)
    assert 1 < Slow.most <= 6
    assert Slow.closed == 9  # each episode's own


def test_an_error_in_an_environment_ends_the_collection(
    env: Counting, agent_of: Build, monkeypatch: pytest.MonkeyPatch
):
    def fail(self: Counting, action: str) -> Step:
        raise RuntimeError("the door is stuck")

    for kind in (Counting, Slow):
        monkeypatch.setattr(kind, "step", fail)
        broken = kind(env.panel, TURNS)
        with pytest.raises(UserError, match=r"task '.*': step raised RuntimeError: the door is stuck") as told:
            play(broken, agent_of(wander), slots=3)
        assert isinstance(told.value.__cause__, RuntimeError)


def test_the_environment_given_is_not_played_itself(env: Counting, agent_of: Build):
    env.reset(env.panel.tasks[0].id)
    before = dict(vars(env))
    play(env, agent_of(wander), slots=3)
    assert vars(env) == before


def test_nothing_to_play(env: Counting, agent_of: Build):
    assert play(env, agent_of(wander), slots=3, count=0) == []


def test_episodes_are_announced_as_they_end_and_a_stop_goes_through(env: Counting, agent_of: Build):
    ended: list[int] = []

    def stop(episode: Episode) -> None:
        ended.append(len(episode.turns))
        if len(ended) == 2:
            raise KeyboardInterrupt

    chosen = [Assignment(task.id, 0, 0) for task in env.panel.tasks[:9]]
    with pytest.raises(KeyboardInterrupt):
        collect(env, chosen, agent_of(wander), slots=9, on_episode=stop)
    assert ended == sorted(ended)


def test_time_is_told_apart(env: Counting, agent_of: Build):
    _, timing = collect(env, [Assignment(env.panel.tasks[0].id, 0, 0)], agent_of(wander), slots=1)
    assert min(timing.environment, timing.generation, timing.prompts) > 0


def test_equal_seeds_give_equal_episodes_with_a_model(
    env: Counting, agent_of: Build, tokenizer: PreTrainedTokenizerFast, make_qwen2: Callable[..., Qwen2ForCausalLM]
):
    model = make_qwen2(vocab_size=len(tokenizer))

    def played(seed: int, slots: int = 4) -> list[Episode]:
        sampler = TransformersSampler(tokenizer, TransformersOptions(batch_tokens=10_000))
        sampler.load(PolicyWeights(model), 0)
        return play(env, agent_of(sampler, max_tokens=6), slots, seed=seed)

    assert played(0) == played(0)
    assert played(0) != played(100)
    alone, together = (
        [[turn.response_ids for turn in episode.turns] for episode in played(0, slots)] for slots in (1, 50)
    )
    assert alone == together


# --- What is recorded -----------------------------------------------------------------------------------------------


def test_rows_are_the_sampled_ids(env: Counting, agent_of: Build, tokenizer: PreTrainedTokenizerFast):
    agent = agent_of(wander)
    for episode in play(env, agent, slots=2, count=3):
        for turn in episode.turns:
            assert turn.response_ids == (*encode_text(tokenizer, turn.text), tokenizer.eos_token_id)
            assert len(turn.kinds) == len(turn.logprobs) == len(turn.response_ids)
            assert turn.logprobs[:3] == (0.0, -0.01, -0.02)
            assert turn.low_index is not None
            assert tokenizer.decode(turn.response_ids[turn.low_index]) == "</subgoal>"
            assert turn.kinds[1] == TokenKind.SWITCH
            assert turn.policy_version == 3


def script(*responses: str) -> Say:
    """Says these one after the other."""
    left = iter(responses)
    return lambda prompt: next(left)


def one(env: Counting, agent: Agent, task: str = "locked") -> Episode:
    chosen = next(t.id for t in env.panel if t.type == task and "start0-key3-door1" in t.id)
    (episode,), _ = collect(env, [Assignment(chosen, 0, 0)], agent, slots=1)
    return episode


def test_segments_begin_where_switch_is_said_and_at_the_first_turn(env: Counting, agent_of: Build):
    say = script(
        respond("KEEP", "find the key", "go right"),
        respond("KEEP", "find the key", "go right"),
        respond("KEEP", "find the door", "go right"),  # no copy: the subgoal in force stays
        "sing",
        respond("SWITCH", "find the door", "take key"),
        respond("KEEP", "find the door", "go left"),
    )
    turns = one(env, agent_of(say)).turns
    assert [turn.boundary for turn in turns] == [True, False, False, False, True, False]
    assert [turn.switch for turn in turns] == [False, False, False, False, True, False]
    assert [turn.subgoal for turn in turns] == ["find the key"] * 4 + ["find the door"] * 2
    assert [turn.copy_differs for turn in turns] == [False, False, True, False, False, False]


def test_an_invalid_first_turn_still_begins_a_segment(env: Counting, agent_of: Build):
    say = script("sing", *[respond("KEEP", "find the key", "go right")] * 5)
    turns = one(env, agent_of(say)).turns
    assert [turn.boundary for turn in turns] == [True, True, False, False, False, False]
    assert [turn.subgoal for turn in turns[:2]] == ["", "find the key"]


@pytest.mark.parametrize(
    ("response", "kind", "action"),
    [
        ("sing", InvalidKind.MISSING_BLOCK, ""),
        (respond("sing", "find the key", "go right"), InvalidKind.UNKNOWN_SWITCH, ""),
        (respond("SWITCH", "", "go right"), InvalidKind.EMPTY_BLOCK, ""),
        (respond("SWITCH", "find the key", "sing"), InvalidKind.INADMISSIBLE_ACTION, "sing"),
        (respond("SWITCH", "find the key " * 9, "go right"), InvalidKind.CUT_OFF, ""),
    ],
)
def test_an_invalid_response_sends_the_defined_action(
    env: Counting, agent_of: Build, response: str, kind: InvalidKind, action: str
):
    say = script(response, *[respond("SWITCH", "find the key", "go right")] * 5)
    episode = one(env, agent_of(say, max_tokens=24))
    turn = episode.turns[0]
    assert (turn.invalid, turn.action) == (kind, action)
    assert env.played[0][1] == action
    assert turn.format_valid == (kind is InvalidKind.INADMISSIBLE_ACTION)
    assert episode.turns[1].observation.startswith("Nothing happens.")


def test_won_lost_and_out_of_time(env: Counting, agent_of: Build):
    walk = [respond("SWITCH", "find the key", action) for action in ("go right", "go right", "go right", "take key")]
    back = [respond("SWITCH", "find the door", action) for action in ("go left", "go left", "open door")]
    late = one(env, agent_of(script(*walk, *back)))  # would need seven turns
    assert (late.terminated, late.truncated, late.won, late.end, late.score) == (False, True, False, "turn_limit", 0.0)
    assert len(late.turns) == TURNS
    opening = [respond("SWITCH", "find the door", action) for action in ("go right", "open door")]
    won = one(env, agent_of(script(*opening)), task="unlocked")
    assert (won.terminated, won.truncated, won.won, won.end, won.score) == (True, False, True, "won", 1.0)
    assert [turn.reward for turn in won.turns] == [0.0, 1.0]
    lost = one(env, agent_of(script(*opening)))  # it is locked
    assert (lost.terminated, lost.truncated, lost.won, lost.end) == (True, False, False, "lost")
    assert won.task_type == "unlocked"


# --- Groups without spread are found, and replaced as long as there are tasks and rounds ------------------------------


MakeEpisode = Callable[..., Episode]


@pytest.fixture
def played(make_episode: MakeEpisode) -> Callable[[Sequence[Assignment]], tuple[list[Episode], Timing]]:
    """A task's name says how its two episodes end: "wl-3" is won, then lost."""

    def played(assignments: Sequence[Assignment]) -> tuple[list[Episode], Timing]:
        return [
            make_episode("SWITCH go > look", won=a.task_id[n % 2] == "w", task_id=a.task_id)
            for n, a in enumerate(assignments)
        ], Timing(1.0, 2.0, 3.0)

    return played


def pairs(*names: str) -> list[Assignment]:
    return [Assignment(name, 0, member) for name in names for member in range(2)]


def names(episodes: Sequence[Episode]) -> list[str]:
    return [episode.task_id for episode in episodes[::2]]


def run(played: Callable[..., object], rounds: int, *further: Sequence[str]) -> tuple[Collected, list[list[str]]]:
    asked: list[list[str]] = []

    def more(round_number: int, assigned: Sequence[Assignment]) -> list[Assignment]:
        asked.append([a.task_id for a in assigned[::2]])
        return pairs(*further[round_number - 1])

    first = pairs("ww-1", "wl-1", "ll-1", "lw-1")
    collected = collect_groups(played, first, more, size=2, rounds=rounds)  # type: ignore[arg-type]
    return collected, asked


def test_groups_all_won_or_all_lost_have_no_spread(played: Callable[..., tuple[list[Episode], Timing]]):
    episodes, _ = played(pairs("ww-1", "wl-1", "ll-1", "lw-1"))
    assert groups_without_spread(episodes, 2) == [0, 2]
    assert groups_without_spread(episodes, 4) == []
    assert groups_without_spread(episodes[:2], 1) == [0, 1]


def test_without_rounds_nothing_is_replaced(played: Callable[..., object]):
    collected, asked = run(played, 0)
    assert names(collected.episodes) == ["ww-1", "wl-1", "ll-1", "lw-1"]
    assert not collected.replaced
    assert not asked
    assert collected.timing == Timing(1.0, 2.0, 3.0)


def test_replacements_take_the_places_of_what_they_replace(played: Callable[..., object]):
    collected, asked = run(played, 5, ["wl-2", "ww-2", "lw-2"], ["lw-3"])
    # Two groups were asked for and the third offered left alone; one of them was flat again.
    assert names(collected.episodes) == ["wl-2", "wl-1", "lw-3", "lw-1"]
    assert names(collected.replaced) == ["ww-1", "ll-1", "ww-2"]
    assert len(collected.played) == 14
    assert collected.timing == Timing(3.0, 6.0, 9.0)
    assert asked == [["ww-1", "wl-1", "ll-1", "lw-1"], ["ww-1", "wl-1", "ll-1", "lw-1", "wl-2", "ww-2"]]


def test_rounds_and_tasks_are_bounded(played: Callable[..., object]):
    collected, asked = run(played, 1, ["ww-2", "ll-2"])
    assert names(collected.episodes) == ["ww-2", "wl-1", "ll-2", "lw-1"]
    assert len(asked) == 1
    collected, asked = run(played, 9, ["ww-2"], [])  # one task is left, then none
    assert names(collected.episodes) == ["ww-2", "wl-1", "ll-1", "lw-1"]
    assert len(asked) == 2
