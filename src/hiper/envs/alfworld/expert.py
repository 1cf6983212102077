"""A rule-based ALFWorld player that knows no more than an agent: the goal, what it has read, the admissible actions.

It is written to be *imitated*. Nearly every decision is a function of what a prompt shows: the goal, the current
subgoal, the current observation and the admissible actions. So a small model can learn it:

- All receptacles of a room have one fixed order: the most promising kinds first (:mod:`hiper.envs.alfworld.priors`),
  then by number. A search begins with the first and then visits the successor of the place where it is, cyclically.
  The present place alone tells where to go next, also after a detour.
- A closed receptacle on the way is opened, and left open.
- A wanted object within reach is taken. An object that nobody asked for is put down at once.
- Tools and destinations are the first of their kind, or one that is within reach already.
- An object that was put down counts as untreated, and the search for a second object starts anew. So nothing but the
  subgoal has to be remembered.

The subgoals of a task that wants a clean plate in the fridge are ``find plate``, ``take plate``, ``clean plate``,
``put plate in fridge``. Under a lamp they are ``find cd``, ``take cd``, ``find desklamp``, ``use desklamp``. For two
objects, the last three of six name the second: ``find second cd``, ``take second cd``, ``put second cd in safe``.
``drop bowl`` gets rid of an object that was picked up by mistake.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from hiper.envs.alfworld.dialect import PUT_JOINTS
from hiper.envs.alfworld.priors import worth
from hiper.envs.base import Decision, Observation, Start
from hiper.errors import UserError

TREATMENTS = {"clean": "clean", "hot": "heat", "heat": "heat", "cool": "cool"}
"""The treatment of an object, by the word in the goal."""

TOOLS = {"clean": ("sinkbasin", "sink"), "heat": ("microwave",), "cool": ("fridge",)}
"""The kinds of receptacle for each treatment."""

_GOALS = tuple(
    re.compile(pattern)
    for pattern in (
        r"put two (?P<two>\w+) in (?P<target>\w+)",
        r"find two (?P<two>\w+) and put them in (?P<target>\w+)",
        r"put a (?P<treatment>clean|hot|cool) (?P<thing>\w+) in (?P<target>\w+)",
        r"(?P<treatment>clean|heat|cool) some (?P<thing>\w+) and put it in (?P<target>\w+)",
        r"put (?:a|some) (?P<thing>\w+) (?:in|on) (?P<target>\w+)",
        r"(?:look at|examine the) (?P<thing>\w+) (?:under|with) the (?P<lamp>\w+)",
    )
)
_ENTITY = re.compile(r"[a-z]+ \d+")


@dataclass(frozen=True, slots=True)
class Errand:
    """The meaning of a goal sentence."""

    thing: str
    """The kind of object that the goal asks for."""
    target: str
    """The kind of receptacle to put the object in, or of lamp to hold it under."""
    treatment: str | None = None
    """``clean``, ``heat`` or ``cool`` before delivery."""
    two: bool = False
    """Whether two of them belong in the same receptacle."""
    lamp: bool = False
    """Whether the target is a lamp."""

    @classmethod
    def read(cls, goal: str) -> Errand:
        """Read a goal sentence in any of the official phrasings of the six task types.

        Raises:
            UserError: the sentence is none of them.
        """
        for pattern in _GOALS:
            if match := pattern.search(goal):
                part = match.groupdict()
                return cls(
                    thing=part.get("two") or part["thing"],
                    target=part.get("lamp") or part["target"],
                    treatment=TREATMENTS.get(part.get("treatment") or ""),
                    two="two" in part,
                    lamp="lamp" in part,
                )
        raise UserError(
            f"the ALFWorld expert does not understand the goal {goal!r}; "
            "it knows the six official task types, such as 'put a clean plate in fridge'"
        )


@dataclass(frozen=True, slots=True)
class Situation:
    """A situation, read from the admissible actions."""

    actions: frozenset[str]
    here: tuple[str, ...]
    """Receptacles within reach (several may share a place), in search order. Empty in the middle of the room."""
    holding: str | None
    takes: tuple[tuple[str, str], ...]
    """Pairs of an object that can be taken and its receptacle."""
    puts: dict[str, str]
    """The action that puts the held object into a receptacle, by receptacle."""

    @classmethod
    def read(cls, actions: Iterable[str], order: Sequence[str]) -> Situation:
        """Return the situation in which ``actions`` are admissible, in a room whose receptacles are ``order``."""
        actions = frozenset(actions)
        takes, puts, holding = [], {}, None
        for action in sorted(actions):
            verb, *words = action.split()
            first, last = " ".join(words[:2]), " ".join(words[-2:])
            if verb == "take":
                takes.append((first, last))
            elif verb in ("move", "put"):  # games before 2025 say: put cd 1 in/on safe 1
                puts[last] = action
            elif verb == "examine" and first not in order:
                holding = first
        here = tuple(place for place in order if f"examine {place}" in actions)
        return cls(actions, here, holding, tuple(takes), puts)

    def first(self, actions: Iterable[str]) -> str | None:
        """Return the first of ``actions`` that is admissible, or None."""
        return next((action for action in actions if action in self.actions), None)


@dataclass
class AlfworldExpert:
    """The player.

    It remembers three things beyond the present scene: where it looks, whether the object in its hands has been
    treated, and what it last saw in each place. From the last it only uses how many objects are delivered.

    With ``memory`` it goes straight to where a wanted object was seen, and leaves out places already searched. Episodes
    get a little shorter, but a short history no longer explains its decisions.
    """

    memory: bool = False
    put_verb: str = "move"
    """The games' verb for laying an object down. Only :meth:`slip` needs it; otherwise the admissible actions tell."""
    _errand: Errand = field(init=False)
    _order: tuple[str, ...] = field(init=False, default=())
    _focus: str | None = field(init=False, default=None)
    _treated: bool = field(init=False, default=False)
    _seen: dict[str, frozenset[str]] = field(init=False, default_factory=dict)
    _subgoal: str | None = field(init=False, default=None)

    def reset(self, start: Start) -> None:
        """Forget the last episode and read the new task.

        Raises:
            UserError: the goal is not understood, or the environment lists no admissible actions.
        """
        self._errand = Errand.read(start.goal)
        goes = (action for action in _admissible(start.observation) if action.startswith("go to "))
        self._order = tuple(sorted((action.removeprefix("go to ") for action in goes), key=search_key))
        self._focus, self._treated, self._subgoal = None, False, None
        self._seen = {}

    def acted(self, action: str, observation: Observation) -> None:
        """Learn the outcome of ``action``, whoever chose it. The text tells everything; the action is not needed."""
        now = self._situation(observation)
        text = observation.text
        named = _ENTITY.findall(text)
        self._focus = next((name for name in named if name in now.here), self._focus)
        if now.holding is None:
            self._treated = False
        elif text.startswith(("You clean", "You heat", "You cool")):
            self._treated = text.split()[1] == self._errand.treatment
        self._note_contents(text, named)
        if text.startswith(("You pick up", "You move", "You put")) and kind_of(named[0]) == self._errand.thing:
            self._focus = None  # the next search starts from the beginning

    def act(self, observation: Observation) -> Decision:
        """Decide on the next turn. The action is always an admissible one."""
        subgoal, action = self._decide(self._situation(observation))
        switch = subgoal != self._subgoal
        self._subgoal = subgoal
        return Decision(switch, subgoal, action)

    def slip(self, observation: Observation, rng: random.Random) -> Decision | None:
        """Return a likely mistake of an imitator: to complete the current step where that cannot be done.

        The action is inadmissible. None: the step can be completed here.
        """
        now, errand = self._situation(observation), self._errand
        subgoal, action = self._decide(now)
        held = now.holding or f"{errand.thing} 1"
        if subgoal.startswith("find") and now.holding:
            subgoal, action = f"use {errand.target}", f"use {errand.target} 1"
        elif subgoal.startswith("find") and self._focus:
            subgoal = subgoal.replace("find", "take")
            action = f"take {errand.thing} {rng.randint(1, 3)} from {self._focus}"
        elif subgoal.startswith("put") and self._destinations:
            action = f"{self.put_verb} {held}{PUT_JOINTS[self.put_verb]}{self._destinations[0]}"
        elif subgoal.startswith(tuple(TOOLS)) and (tools := self._tools):
            action = f"{errand.treatment} {held} with {tools[0]}"
        return None if action in now.actions else Decision(subgoal != self._subgoal, subgoal, action)

    # What to do

    def _decide(self, now: Situation) -> tuple[str, str]:
        """Return the subgoal and the action for a situation."""
        errand = self._errand
        if now.holding is None:
            return self._acquire(now)
        if kind_of(now.holding) != errand.thing:
            return f"drop {kind_of(now.holding)}", self._put_down(now)
        if errand.lamp:
            return self._illuminate(now)
        if errand.treatment and not self._treated:
            return f"{errand.treatment} {errand.thing}", self._treat(now, now.holding)
        return f"put {self._wanted} in {errand.target}", self._deliver(now)

    def _acquire(self, now: Situation) -> tuple[str, str]:
        for name, place in now.takes:
            if self._wants(name, place):
                return f"take {self._wanted}", f"take {name} from {place}"
        return f"find {self._wanted}", self._search(now)

    def _illuminate(self, now: Situation) -> tuple[str, str]:
        lamp = self._errand.target
        use = next((action for action in sorted(now.actions) if action.startswith(f"use {lamp} ")), None)
        return (f"use {lamp}", use) if use else (f"find {lamp}", self._search(now))

    def _treat(self, now: Situation, held: str) -> str:
        uses = (f"{self._errand.treatment} {held} with {tool}" for tool in self._tools)
        return now.first(uses) or self._go(now, self._tools)

    def _deliver(self, now: Situation) -> str:
        return self._put(now, self._destinations) or self._go(now, self._destinations)

    def _put_down(self, now: Situation) -> str:
        nearest_first = sorted(now.here, key=lambda place: place != self._focus)
        return self._put(now, nearest_first) or self._search(now)

    def _put(self, now: Situation, places: Sequence[str]) -> str | None:
        """Put the held object into one of ``places``, or open one that is here. None: neither can be done."""
        put = next((now.puts[place] for place in places if place in now.puts), None)
        return put or now.first(f"open {place}" for place in places)

    def _go(self, now: Situation, places: Sequence[str]) -> str:
        """Go to the first of ``places``, or search on if none can be gone to."""
        return now.first(f"go to {place}" for place in places) or self._search(now)

    def _search(self, now: Situation) -> str:
        """Look into the place in focus if it is closed, or else go to its successor in the order."""
        if self._focus in now.here and f"open {self._focus}" in now.actions:
            return f"open {self._focus}"
        at = self._order.index(self._focus) if self._focus else -1
        ahead = self._order[at + 1 :] + self._order[: at + 1]
        if self.memory:
            ahead = self._best_first(ahead, looking_for_lamp=now.holding is not None)
        # A successor that shares this place cannot be gone to: it is opened from here, or in view already.
        steps = (f"{verb} {place}" for place in ahead for verb in ("go to", "open"))
        return now.first(steps) or now.first(("look",)) or min(now.actions)

    def _best_first(self, ahead: Sequence[str], looking_for_lamp: bool) -> tuple[str, ...]:
        """Sort ``ahead``: places where a wanted object was seen, then those not looked into, then the rest."""

        def wanted(name: str, place: str) -> bool:
            return kind_of(name) == self._errand.target if looking_for_lamp else self._wants(name, place)

        def rank(place: str) -> int:
            if place not in self._seen:
                return 1
            return 0 if any(wanted(name, place) for name in self._seen[place]) else 2

        return tuple(sorted(ahead, key=rank))

    # What it knows

    @property
    def _wanted(self) -> str:
        """Return the object that is wanted now, as subgoals name it."""
        thing = self._errand.thing
        delivered = (name for place in self._destinations for name in self._seen.get(place, ()))
        return f"second {thing}" if self._errand.two and thing in map(kind_of, delivered) else thing

    @property
    def _destinations(self) -> tuple[str, ...]:
        """Return where to deliver. Two objects go to the first receptacle of its kind, as they must end up together."""
        places = tuple(place for place in self._order if kind_of(place) == self._errand.target)
        return places[:1] if self._errand.two else places

    @property
    def _tools(self) -> tuple[str, ...]:
        kinds = TOOLS.get(self._errand.treatment or "", ())
        return tuple(place for place in self._order if kind_of(place) in kinds)

    def _wants(self, name: str, place: str) -> bool:
        """Whether to take ``name`` from ``place``. Objects that count as delivered stay."""
        errand = self._errand
        return kind_of(name) == errand.thing and not (errand.two and place in self._destinations)

    def _situation(self, observation: Observation) -> Situation:
        return Situation.read(_admissible(observation), self._order)

    def _note_contents(self, text: str, named: Sequence[str]) -> None:
        """Update :attr:`_seen` with what ``text`` says of the place in focus."""
        place = self._focus
        if place is None:
            return
        before = self._seen.get(place, frozenset())
        if text.startswith("You pick up"):
            self._seen[place] = before - {named[0]}
        elif text.startswith(("You move", "You put")):
            self._seen[place] = before | {named[0]}
        elif f"the {place}, you see" in text or f"The {place} is open." in text:
            self._seen[place] = frozenset(name for name in named if name not in self._order)


def kind_of(name: str) -> str:
    """Return the kind in a name: ``cabinet`` for ``cabinet 12``."""
    return name.rpartition(" ")[0]


def search_key(place: str) -> tuple[float, str, int]:
    """Return the sort key of a receptacle in the order of searches."""
    kind, _, number = place.rpartition(" ")
    return (-worth(kind), kind, int(number))


def _admissible(observation: Observation) -> tuple[str, ...]:
    if observation.admissible is None:
        raise UserError("the ALFWorld expert reads the admissible actions, and this environment gives none")
    return observation.admissible
