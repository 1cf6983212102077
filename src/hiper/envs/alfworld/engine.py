"""The engine: rules and sentences of ALFWorld as TextWorld prints them, in plain Python.

The state is a handful of immutable values that are replaced on change. So a reset is a few assignments, and games share
everything until they diverge. A command is understood exactly when it is in the admissible list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from hiper.envs.alfworld.game import NOWHERE, Appliance, Game, Goal

NOTHING_HAPPENS = "Nothing happens."
_NOTHING_HELD = -1


def listing(items: Sequence[str]) -> str:
    """List things as the game does: "nothing", "a", "a, and b", "a, b, and c"."""
    match items:
        case []:
            return "nothing"
        case [one]:
            return one
        case [*most, last]:
            return ", ".join(most) + ", and " + last
    raise AssertionError(items)


class Engine:
    """One running game."""

    __slots__ = (
        "_admissible",
        "_clean",
        "_contents",
        "_cool",
        "_held",
        "_hot",
        "_location",
        "_lying",
        "_opened",
        "_sliced",
        "_taken_from",
        "_toggled",
        "game",
        "won",
    )

    game: Game
    won: bool
    """Whether all goals hold now."""
    _admissible: tuple[str, ...] | None
    _taken_from: frozenset[tuple[int, int]]
    """Object and receptacle of every take that no put has undone. "look" finds these objects beside the receptacle."""

    def __init__(self, game: Game) -> None:
        self.game = game
        self.reset()

    def reset(self) -> None:
        """Begin again."""
        game = self.game
        self._location = game.start
        self._held = _NOTHING_HELD
        self._contents = game.contents
        self._lying = game.lying
        self._taken_from = frozenset()
        self._opened = game.opened
        self._clean = game.clean
        self._hot = game.hot
        self._cool = game.cool
        self._toggled = game.toggled
        self._sliced = game.sliced
        self._changed()

    def intro(self) -> str:
        """Return the opening text: the room and the task."""
        return f"-= Welcome to TextWorld, ALFRED! =-\n\n{self._room()}\n\nYour task is to: {self.game.task}"

    def step(self, command: str) -> str:
        """Play one command and return the game's answer."""
        command = command.strip()
        if command not in self.admissible:
            return NOTHING_HAPPENS
        verb, _, rest = command.partition(" ")
        return _VERBS[verb](self, rest)

    @property
    def admissible(self) -> tuple[str, ...]:
        """Every command that is understood now, in string order."""
        commands = self._admissible
        if commands is None:
            commands = self._admissible = self._commands()
        return commands

    def _changed(self) -> None:
        self._admissible = None
        self.won = all(map(self._holds, self.game.goals))

    # --- what can be done --------------------------------------------------------------------------------------

    def _commands(self) -> tuple[str, ...]:
        """Return the admissible commands in string order: groups of verbs in order, each group sorted."""
        game, place = self.game, self.game.place(self._location)
        early = list(place.examine)
        heat: list[str] = []
        late: list[str] = []
        held = self._held
        holding = "" if held == _NOTHING_HELD else game.objects[held]
        if holding:
            early.append(f"examine {holding}")
            if held in game.knives:
                at = self._location
                late += [f"slice {game.objects[o]} with {holding}" for o in game.sliceable if (o, at) in self._lying]
        for r in place.receptacles:
            name = game.receptacles[r]
            contents = self._contents[r]
            closed = False
            if r in game.openable:
                closed = r not in self._opened
                if closed:
                    late.append(f"open {name}")
                else:
                    early.append(f"close {name}")
            if not holding:
                if not closed:
                    late += [f"take {game.objects[o]} from {name}" for o in contents if o in game.pickupable]
            else:
                if not closed and r in game.fits[held]:
                    late.append(f"{game.dialect.put_verb} {holding}{game.dialect.put_joint}{name}")
                appliance = game.appliances.get(r)
                if appliance and held in game.treatable[appliance]:
                    commands = heat if appliance is Appliance.MICROWAVE else early
                    commands.append(f"{appliance.value} {holding} with {name}")
            for o in game.toggleable.intersection(contents):
                command = f"use {game.objects[o]}"
                if command not in late:
                    late.append(command)
        early.sort()
        heat.sort()
        late.sort()
        return (*early, *place.go, *heat, *game.dialect.always, *late)

    # --- what the game says ------------------------------------------------------------------------------------

    def _room(self) -> str:
        game = self.game
        if game.place(self._location).receptacles:
            return self._look("")
        return _middle_of_room(
            [f"a {name}" for name, at in zip(game.receptacles, game.stands_at, strict=True) if at != NOWHERE]
        )

    def _look(self, _: str) -> str:
        game, location = self.game, self._location
        here = game.place(location).receptacles
        if not here:
            return _middle_of_room([])
        beside = [
            f"a {game.objects[o]}" for o, r in sorted(self._taken_from) if r in here and (o, location) in self._lying
        ]
        return (
            f"You are facing the {listing([game.receptacles[r] for r in here])}. Next to it, you see {listing(beside)}."
        )

    def _describe(self, receptacle: int) -> str:
        game = self.game
        name = game.receptacles[receptacle]
        if receptacle in game.openable and receptacle not in self._opened:
            return f"The {name} is closed."
        seen = listing([f"a {game.objects[o]}" for o in self._contents[receptacle]])
        if receptacle in game.openable:
            return f"The {name} is open. In it, you see {seen}."
        return f"On the {name}, you see {seen}."

    def _describe_object(self, o: int) -> str:
        game = self.game
        name = game.objects[o]
        if o in game.inside:
            inner = listing([f"a {game.objects[i]}" for i in game.inside[o]])
            return f"This is a normal {name}. In it, you see {inner}."
        hot, cool, clean, sliced = o in self._hot, o in self._cool, o in self._clean, o in self._sliced
        if hot or cool or clean:
            plain_cool = cool and not (clean or sliced)
            warmth = "hot" if hot else "cold" if plain_cool else "cool" if cool else ""
            words = " and ".join(filter(None, (warmth, "clean" if clean else "")))
            return f"This is a {words} {'sliced ' if sliced else ''}{name}."
        if o in game.toggleable and o in self._toggled:
            return f"This {name} is on."
        if o in game.sliceable and sliced:
            return f"This is a sliced {name}."
        return f"There's nothing special about {name}."

    def _inventory(self, _: str) -> str:
        if self._held == _NOTHING_HELD:
            return "You are not carrying anything."
        return f"You are carrying: a {self.game.objects[self._held]}."

    def _help(self, _: str) -> str:
        return self.game.dialect.help or ""

    def _examine(self, name: str) -> str:
        number = self.game.numbers[name]
        if self._held != _NOTHING_HELD and name == self.game.objects[self._held]:
            return self._describe_object(number)
        return self._describe(number)

    # --- what changes the world --------------------------------------------------------------------------------

    def _go(self, rest: str) -> str:
        game = self.game
        name = rest.removeprefix("to ")
        receptacle = game.numbers[name]
        self._location = game.stands_at[receptacle]
        self._changed()
        arrived = game.locations[self._location] if game.dialect.arrive_at_location else name
        return f"You arrive at {arrived}. {self._describe(receptacle)}"

    def _open(self, name: str) -> str:
        receptacle = self.game.numbers[name]
        self._opened |= {receptacle}
        self._changed()
        return f"You open the {name}. {self._describe(receptacle)}"

    def _close(self, name: str) -> str:
        self._opened -= {self.game.numbers[name]}
        self._changed()
        return f"You close the {name}."

    def _take(self, rest: str) -> str:
        name, _, source = rest.partition(" from ")
        o, r = self.game.numbers[name], self.game.numbers[source]
        self._held = o
        self._replace_contents(r, (other for other in self._contents[r] if other != o))
        self._lying -= {(o, self._location)}
        self._taken_from |= {(o, r)}
        self._changed()
        return f"You pick up the {name} from the {source}."

    def _put(self, rest: str) -> str:
        dialect, o = self.game.dialect, self._held
        name, _, target = rest.partition(dialect.put_joint)
        r = self.game.numbers[target]
        self._held = _NOTHING_HELD
        self._replace_contents(r, sorted({*self._contents[r], o}))
        self._lying |= {(o, self._location)}
        self._taken_from -= {(o, r)}
        self._changed()
        return f"You {dialect.put_verb} the {name}{dialect.put_joint}the {target}."

    def _replace_contents(self, receptacle: int, objects: Iterable[int]) -> None:
        contents = list(self._contents)
        contents[receptacle] = tuple(objects)
        self._contents = tuple(contents)

    def _clean_with(self, rest: str) -> str:
        self._clean |= {self._held}
        return self._treated("clean", rest)

    def _heat_with(self, rest: str) -> str:
        self._hot |= {self._held}
        self._cool -= {self._held}
        return self._treated("heat", rest)

    def _cool_with(self, rest: str) -> str:
        self._cool |= {self._held}
        self._hot -= {self._held}
        return self._treated("cool", rest)

    def _treated(self, verb: str, rest: str) -> str:
        self._changed()
        name, _, receptacle = rest.partition(" with ")
        return f"You {verb} the {name} using the {receptacle}."

    def _use(self, name: str) -> str:
        self._toggled |= {self.game.numbers[name]}
        self._changed()
        return f"You turn on the {name}."

    def _slice(self, rest: str) -> str:
        name, _, knife = rest.partition(" with ")
        self._sliced |= {self.game.numbers[name]}
        self._changed()
        return f"You sliced the {name} with the {knife}."

    # --- the goals ---------------------------------------------------------------------------------------------

    @property
    def progress(self) -> float:
        """The share of the goals that hold now."""
        goals = self.game.goals
        return sum(map(self._holds, goals)) / len(goals)

    def _holds(self, goal: Goal) -> bool:
        if goal.lamps:
            return self._held in goal.objects and any(
                o in goal.lamps and o in self._toggled
                for r in self.game.place(self._location).receptacles
                for o in self._contents[r]
            )
        candidates = goal.objects
        if goal.treatment:
            candidates = candidates & self._treated_so(goal.treatment)
        if len(candidates) < goal.count:
            return False
        return any(len(candidates.intersection(self._contents[r])) >= goal.count for r in goal.receptacles)

    def _treated_so(self, treatment: str) -> frozenset[int]:
        return {"clean": self._clean, "hot": self._hot, "cool": self._cool}[treatment]


def _middle_of_room(appliances: Sequence[str]) -> str:
    return f"You are in the middle of a room. Looking quickly around you, you see {listing(appliances)}."


_VERBS: dict[str, Callable[[Engine, str], str]] = {
    "clean": Engine._clean_with,
    "close": Engine._close,
    "cool": Engine._cool_with,
    "examine": Engine._examine,
    "go": Engine._go,
    "heat": Engine._heat_with,
    "help": Engine._help,
    "inventory": Engine._inventory,
    "look": Engine._look,
    "move": Engine._put,
    "open": Engine._open,
    "put": Engine._put,
    "slice": Engine._slice,
    "take": Engine._take,
    "use": Engine._use,
}
