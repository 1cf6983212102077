"""Chores in a row: the goals of several games, joined into one task that begins as the first of them.

A joined game is a standard game file: the first game with another goal, the conjunction of all goals, and another task
sentence, all sentences one after another. So this engine and TextWorld play it as they play any other game.

- Every game of a split is the first game of one task. The goals of the others are added to its own.
- The others are games of the same scene. Where the scene has none left that fits, games of other scenes serve.
- A goal fits if it can be reached in the room of the first game and does not hold there at the start. So its object
  and its receptacle exist, there is a tool for its treatment, and the object can be taken.
- All goals can hold at once, by objects of their own: there are enough objects of each type for all goals.
- No two goals of a task put an object of one type into a receptacle of one type. So no goal is a part of another.
- At most one goal is to look at something in the light. It comes last, as the object must be in hand at the end.
- Every game serves as evenly as possible. Tasks with fewer chores are the beginnings of those with more.

The choice depends on the ids and the texts of the games alone. A game without enough others is left out.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files

from hiper.envs.alfworld.dialect import read_language, with_task
from hiper.envs.alfworld.expert import AlfworldExpert, Errand, kind_of
from hiper.envs.alfworld.goal_patterns import ABLE, StatedGoal, read_goals, state_goals
from hiper.envs.alfworld.pddl import Problem
from hiper.envs.alfworld.sources import GameSource
from hiper.envs.base import Observation, Start
from hiper.envs.panels import Panel, Task
from hiper.errors import UserError

MOST_CHORES = 5
"""The largest number of chores in a row."""
TURNS_EACH = 50
"""The turns of an episode, for each chore."""
_VERSION = "1"
"""A part of every digest. It changes whenever the same games would be joined in another way."""
_TOOLS = {"clean": "sinkbasintype", "hot": "microwavetype", "cool": "fridgetype"}
_STATES = {"clean": "isclean", "hot": "ishot", "cool": "iscool"}
_CHOSEN: dict[str, dict[str, list[str]]] = {}
"""What this process chose to join, by the hash of the panel of single games."""


class JoinedSource:
    """Joined games, made from those of another source; a :class:`~hiper.envs.alfworld.sources.GameSource`.

    Args:
        source: the games to join.
        chores: how many to join into one, from 2 to :data:`MOST_CHORES`.

    Raises:
        UserError: the number is out of range, a game cannot be read, or no game has enough others.
    """

    def __init__(self, source: GameSource, chores: int) -> None:
        if not 2 <= chores <= MOST_CHORES:
            raise UserError(f"chores is {chores}; give a number from 1 to {MOST_CHORES}")
        self.name = f"{source.name}/chores-{chores}"
        self.chores = chores
        """How many games are joined into one."""
        self._source = source
        self._rooms: dict[str, Room] = {}
        panel = Panel.of(source.name, source.tasks())
        others = _CHOSEN.get(panel.hash) or frozen_choice(panel)
        if others is None:
            others = _CHOSEN[panel.hash] = choose_others({task.id: self._room(task.id) for task in panel})
        self._members: dict[str, tuple[str, ...]] = {}
        self._tasks: list[Task] = []
        for task in panel:
            if len(others[task.id]) >= chores - 1:
                self._add([task, *(panel[other] for other in others[task.id][: chores - 1])])
        if not self._tasks:
            raise UserError(
                f"{source.name} has {len(panel):,} games, and no {chores} of them can be joined; take more games or "
                "fewer chores"
            )

    def _add(self, games: Sequence[Task]) -> None:
        """Enter the task that joins these games."""
        task_id = f"chores-{len(games)}/{games[0].id}"
        digest = hashlib.sha256("\n".join([_VERSION, *(game.digest for game in games)]).encode()).hexdigest()
        two = any(game.type == "pick_two_obj_and_place" for game in games)
        self._members[task_id] = tuple(game.id for game in games)
        self._tasks.append(Task(task_id, f"chores-{len(games)}{'-two-objects' * two}", digest))

    def _room(self, game_id: str) -> Room:
        room = self._rooms.get(game_id)
        if room is None:
            read, where = self._source.read(game_id), self._source.where(game_id)
            room = self._rooms[game_id] = Room.read(read, where)
        return room

    def tasks(self) -> Iterable[Task]:
        """See :class:`~hiper.envs.alfworld.sources.GameSource`, also for the methods that follow."""
        return self._tasks

    def dialects(self) -> Mapping[str, str]:
        """Return the dialects of the first games."""
        dialects = self._source.dialects()
        return {task_id: dialects[members[0]] for task_id, members in self._members.items()}

    def read(self, task_id: str) -> str:
        """Return the JSON text of a joined game. It has no walkthrough."""
        members = self._members[task_id]
        game = json.loads(self._source.read(members[0]))
        rooms = sorted(map(self._room, members), key=lambda room: room.goal.lamp)
        problem = game["pddl_problem"]
        begin = problem.lower().index("(:goal")
        return json.dumps(
            game
            | {
                "pddl_problem": f"{problem[:begin]}{state_goals(room.goal for room in rooms)}\n)",
                "grammar": with_task(game["grammar"], join_sentences(room.task for room in rooms)),
                "walkthrough": [],
            }
        )

    def where(self, task_id: str) -> str:
        """Return the name of the first game's file, for messages."""
        first, *others = self._members[task_id]
        return f"{self._source.where(first)}, joined with {len(others)} others"

    def members(self, task_id: str) -> tuple[str, ...]:
        """Return the ids of the games that a task joins. It begins as the first of them."""
        return self._members[task_id]


def join_sentences(sentences: Iterable[str]) -> str:
    """Return the task of a joined game: official sentences, one after another."""
    return " ".join(f"{sentence.rstrip('.')}." for sentence in sentences)


def split_sentences(task: str) -> list[str]:
    """Return the sentences of a task."""
    return [f"{sentence.strip()}." for sentence in task.split(".") if sentence.strip()]


@dataclass(frozen=True, slots=True)
class Room:
    """The first state of a game, as far as goals depend on it. Sets hold internal ids, by type."""

    goal: StatedGoal
    """The game's own goal."""
    task: str
    """The game's own sentence."""
    things: Mapping[str, frozenset[str]]
    """The objects that can be taken."""
    targets: Mapping[str, frozenset[str]]
    """The receptacles that can be gone to."""
    takes: frozenset[tuple[str, str]]
    """The types of receptacle and object that go together."""
    treatable: Mapping[str, frozenset[str]]
    """The objects that each treatment works on, if there is a tool for it."""
    lamps: frozenset[str]
    """The types of lamps that can be turned on."""
    placed: frozenset[tuple[str, str]]
    """Objects and the receptacles that they are in."""
    treated: Mapping[str, frozenset[str]]
    """The objects that are clean, hot or cool at the start."""

    @classmethod
    def read(cls, text: str | bytes, where: str) -> Room:
        """Read a game file's text.

        Raises:
            UserError: the game is not one that the engine plays, or has several goals already.
        """
        game = json.loads(text)
        task = read_language(game["pddl_domain"], game["grammar"], where)[1]
        problem = Problem.read(game["pddl_problem"])
        goal, *more = read_goals(problem.goal)
        if more:
            raise UserError(f"{where}: the game has several goals already")
        standing = {r for r, _ in problem.pairs("receptacleatlocation")}
        placed = frozenset((o, r) for o, r in problem.pairs("inreceptacle") if r in standing)
        movable = problem.those("pickupable") & {o for o, _ in placed}
        targets = _by_type((r, kind) for r, kind in problem.pairs("receptacletype") if r in standing)
        shining = problem.those("toggleable") & {o for o, _ in placed}
        return cls(
            goal=goal,
            task=task,
            things=_by_type((o, kind) for o, kind in problem.pairs("objecttype") if o in movable),
            targets=targets,
            takes=frozenset(problem.pairs("cancontain")),
            treatable={
                how: frozenset(problem.those(ABLE[how]) if targets.get(tool) else ()) for how, tool in _TOOLS.items()
            },
            lamps=frozenset(kind for o, kind in problem.pairs("objecttype") if o in shining),
            placed=placed,
            treated={how: frozenset(problem.those(state)) for how, state in _STATES.items()},
        )

    def candidates(self, goal: StatedGoal) -> frozenset[str]:
        """Return the objects that can be brought to fulfil a goal."""
        things = self.things.get(goal.thing, frozenset())
        return things & self.treatable[goal.treatment] if goal.treatment else things

    def allows(self, goal: StatedGoal) -> bool:
        """Whether a goal can be reached here and does not hold at the start."""
        if len(self.candidates(goal)) < goal.count:
            return False
        if goal.lamp:
            return goal.target in self.lamps
        return (goal.target, goal.thing) in self.takes and goal.target in self.targets and not self._holds(goal)

    def _holds(self, goal: StatedGoal) -> bool:
        things = self.things[goal.thing]
        if goal.treatment:
            things = things & self.treated[goal.treatment]
        there = Counter(r for o, r in self.placed if o in things and r in self.targets[goal.target])
        return any(count >= goal.count for count in there.values())

    def allows_together(self, goals: Sequence[StatedGoal]) -> bool:
        """Whether goals that are allowed here can hold at once, each by objects of its own."""
        if sum(goal.lamp for goal in goals) > 1:
            return False
        if len({(goal.thing, goal.target) for goal in goals}) < len(goals):
            return False
        return enough([self.candidates(goal) for goal in goals for _ in range(goal.count)])


def _by_type(pairs: Iterable[tuple[str, str]]) -> Mapping[str, frozenset[str]]:
    groups: dict[str, set[str]] = defaultdict(set)
    for entity, kind in pairs:
        groups[kind].add(entity)
    return {kind: frozenset(group) for kind, group in groups.items()}


def enough(wanted: Sequence[frozenset[str]]) -> bool:
    """Whether every set can have an element of its own: a bipartite matching by augmenting paths."""
    owner: dict[str, int] = {}

    def give(number: int, tried: set[str]) -> bool:
        for thing in sorted(wanted[number] - tried):
            tried.add(thing)
            if thing not in owner or give(owner[thing], tried):
                owner[thing] = number
                return True
        return False

    return all(give(number, set()) for number in range(len(wanted)))


def frozen_choice(panel: Panel) -> dict[str, list[str]] | None:
    """Return what :func:`choose_others` chose for an official panel, which takes a while; None for other panels."""
    text = files("hiper.envs.alfworld").joinpath("panels", "chores.json").read_text()
    chosen = json.loads(text).get(panel.hash)
    ids = [task.id for task in panel]
    return chosen and {first: [ids[other] for other in others] for first, others in zip(ids, chosen, strict=True)}


def choose_others(rooms: Mapping[str, Room]) -> dict[str, list[str]]:
    """Return the games to join to each game, in order, at most ``MOST_CHORES - 1``; see the docstring of this module.

    Args:
        rooms: the first states of all games, by task id.
    """
    order = sorted(rooms, key=lambda task_id: hashlib.sha256(task_id.encode()).digest())
    scenes: dict[str, list[str]] = defaultdict(list)
    for task_id in order:
        scenes[scene_of(task_id)].append(task_id)
    others: dict[str, list[str]] = {task_id: [] for task_id in order}
    uses: Counter[str] = Counter()
    for chosen in range(MOST_CHORES - 1):
        for first in order:
            room, goals = rooms[first], [rooms[member].goal for member in (first, *others[first])]
            if len(others[first]) < chosen:
                continue  # it found none last time
            for pool in (scenes[scene_of(first)], order):
                fitting = (
                    other
                    for other in sorted(_after(pool, first), key=uses.__getitem__)
                    if room.allows(rooms[other].goal) and room.allows_together([*goals, rooms[other].goal])
                )
                if other := next(fitting, None):
                    others[first].append(other)
                    uses[other] += 1
                    break
    return others


def _after(ring: Sequence[str], start: str) -> Iterator[str]:
    at = ring.index(start)
    yield from ring[at + 1 :]
    yield from ring[:at]


def scene_of(task_id: str) -> str:
    """Return the scene in the id of a game: the last part of its folder's name."""
    return task_id.split("/")[-2].rpartition("-")[2]


@dataclass
class ChoresExpert(AlfworldExpert):
    """The player of joined games: it works on the first goal that does not hold.

    An object that fulfils another goal stays where it is. So the player also remembers which objects it has treated.
    """

    _errands: tuple[Errand, ...] = field(init=False, default=())
    _made: dict[str, frozenset[str]] = field(init=False, default_factory=dict)
    """The objects that are clean, hot or cool now, as far as the player has made them so."""
    _settled: frozenset[str] = field(init=False, default=frozenset())
    """The objects that fulfil goals."""

    def reset(self, start: Start) -> None:
        """See :meth:`AlfworldExpert.reset`."""
        sentences = split_sentences(start.goal)
        super().reset(Start(sentences[0], start.observation))
        self._errands = tuple(sorted(map(Errand.read, sentences), key=lambda errand: errand.lamp))
        self._errand = self._errands[0]
        self._made = dict.fromkeys(("clean", "heat", "cool"), frozenset())
        self._settled = frozenset()

    def acted(self, action: str, observation: Observation) -> None:
        """See :meth:`AlfworldExpert.acted`."""
        super().acted(action, observation)
        verb, _, rest = observation.text.removeprefix("You ").partition(" the ")
        if verb in self._made:
            name = rest.partition(" using ")[0]
            opposite = {"heat": "cool", "cool": "heat"}.get(verb)
            if opposite:
                self._made[opposite] -= {name}
            self._made[verb] |= {name}
        fulfilled = [self._fulfilling(errand) for errand in self._errands]
        self._settled = frozenset().union(*fulfilled)
        unfinished = (errand for errand, by in zip(self._errands, fulfilled, strict=True) if not by)
        following = next(unfinished, self._errands[-1])
        if following != self._errand:
            self._errand, self._treated = following, False

    def _fulfilling(self, errand: Errand) -> frozenset[str]:
        """Return the objects by which a goal holds, as far as is known. Empty: the goal does not hold."""
        if errand.lamp:
            return frozenset()  # when it holds, the game is over
        right = self._made[errand.treatment] if errand.treatment else None
        for place in self._order:
            if kind_of(place) == errand.target:
                there = sorted(self._seen.get(place, ()))
                things = [name for name in there if kind_of(name) == errand.thing and (right is None or name in right)]
                if len(things) > errand.two:
                    return frozenset(things[: 1 + errand.two])
        return frozenset()

    def _wants(self, name: str, place: str) -> bool:
        return name not in self._settled and super()._wants(name, place)
