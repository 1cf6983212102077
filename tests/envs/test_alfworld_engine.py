"""The engine in a kitchen written by hand; test_alfworld_parity.py plays the same kitchen beside TextWorld."""

from __future__ import annotations

import pytest

from helpers.kitchen import BOWL_IN_LIGHT, COOL_LETTUCE_ON_SIDETABLE, TWO_APPLES_IN_FRIDGE, kitchen
from hiper.envs.alfworld.engine import NOTHING_HAPPENS, Engine, listing


def play(engine: Engine, *commands: str) -> str:
    """Plays commands that must all be understood; returns the last answer."""
    answer = ""
    for command in commands:
        assert command in engine.admissible, (command, engine.admissible)
        answer = engine.step(command)
        assert answer != NOTHING_HAPPENS
    return answer


TAKE_KNIFE = ("go to cabinet 1", "open cabinet 1", "take butterknife 1 from cabinet 1")


def test_lists_in_words() -> None:
    assert listing([]) == "nothing"
    assert listing(["a mug 1"]) == "a mug 1"
    assert listing(["a", "b"]) == "a, and b"
    assert listing(["a", "b", "c"]) == "a, b, and c"


def test_intro_lists_the_room_in_the_order_of_ids() -> None:
    engine = kitchen()
    assert engine.intro() == (
        "-= Welcome to TextWorld, ALFRED! =-\n\n"
        "You are in the middle of a room. Looking quickly around you, you see a cabinet 2, a cabinet 1, "
        "a countertop 1, a fridge 1, a microwave 1, a sidetable 1, and a sinkbasin 1.\n\n"
        f"Your task is to: {engine.game.task}"
    )


def test_intro_at_a_receptacle_faces_it() -> None:
    assert (
        "You are facing the cabinet 2, and sinkbasin 1. Next to it, you see nothing."
        in kitchen(start="loc_bar_2").intro()
    )


def test_admissible_at_the_start() -> None:
    assert kitchen().admissible == (
        "go to cabinet 1",
        "go to cabinet 2",
        "go to countertop 1",
        "go to fridge 1",
        "go to microwave 1",
        "go to sidetable 1",
        "go to sinkbasin 1",
        "help",
        "inventory",
        "look",
    )


def test_look_sees_nothing_in_the_middle_of_the_room() -> None:
    assert play(kitchen(), "look") == "You are in the middle of a room. Looking quickly around you, you see nothing."


def test_receptacles_at_one_place() -> None:
    engine = kitchen()
    assert play(engine, "go to sinkbasin 1") == "You arrive at sinkbasin 1. On the sinkbasin 1, you see nothing."
    assert play(engine, "look") == "You are facing the cabinet 2, and sinkbasin 1. Next to it, you see nothing."
    assert "go to cabinet 2" not in engine.admissible, "it stands here"
    assert {"open cabinet 2", "examine cabinet 2", "examine sinkbasin 1"} <= set(engine.admissible)


def test_closed_receptacles_hide_and_open_ones_show() -> None:
    engine = kitchen()
    assert play(engine, "go to fridge 1") == "You arrive at fridge 1. The fridge 1 is closed."
    assert not any(command.startswith("take") for command in engine.admissible)
    assert play(engine, "open fridge 1") == ("You open the fridge 1. The fridge 1 is open. In it, you see a apple 1.")
    assert "open fridge 1" not in engine.admissible
    assert play(engine, "close fridge 1") == "You close the fridge 1."
    assert play(engine, "examine fridge 1") == "The fridge 1 is closed."


def test_only_the_held_object_can_be_examined() -> None:
    engine = kitchen()
    play(engine, "go to countertop 1")
    assert engine.step("examine apple 2") == NOTHING_HAPPENS
    play(engine, "take apple 2 from countertop 1")
    assert play(engine, "examine apple 2") == "There's nothing special about apple 2."
    assert play(engine, "inventory") == "You are carrying: a apple 2."


def test_vessels_name_what_is_inside() -> None:
    engine = kitchen()
    play(engine, "go to countertop 1", "take bowl 1 from countertop 1")
    assert play(engine, "examine bowl 1") == "This is a normal bowl 1. In it, you see a apple 2."


def test_full_hands_take_nothing() -> None:
    engine = kitchen()
    play(engine, "go to countertop 1", "take bowl 1 from countertop 1")
    assert engine.step("take apple 2 from countertop 1") == NOTHING_HAPPENS
    assert engine.step("move apple 2 to sidetable 1") == NOTHING_HAPPENS


def test_an_object_in_two_receptacles_leaves_one() -> None:
    engine = kitchen()
    play(engine, "go to countertop 1", "take lettuce 1 from countertop 1")
    assert play(engine, "examine sidetable 1") == "On the sidetable 1, you see a desklamp 1, and a lettuce 1."
    assert play(engine, "examine countertop 1") == "On the countertop 1, you see a apple 2, and a bowl 1."


def test_look_finds_what_was_moved_beside_its_old_receptacle() -> None:
    engine = kitchen()
    play(engine, "go to countertop 1", "take bowl 1 from countertop 1")
    assert play(engine, "look").endswith("Next to it, you see nothing."), "in the hand, it lies nowhere"
    play(engine, "move bowl 1 to sidetable 1")
    assert play(engine, "look") == "You are facing the countertop 1, and sidetable 1. Next to it, you see a bowl 1."
    play(engine, "take bowl 1 from sidetable 1", "move bowl 1 to countertop 1")
    assert play(engine, "look").endswith("Next to it, you see a bowl 1."), "beside the sidetable now"


def test_lamps_only_ever_turn_on() -> None:
    engine = kitchen()
    play(engine, "go to sidetable 1")
    for _ in range(3):
        assert play(engine, "use desklamp 1") == "You turn on the desklamp 1."


@pytest.mark.parametrize(
    ("treatments", "described"),
    [
        (["heat"], "a hot apple"),
        (["cool"], "a cold apple"),
        (["clean"], "a clean apple"),
        (["heat", "cool"], "a cold apple"),
        (["cool", "heat"], "a hot apple"),
        (["clean", "heat"], "a hot and clean apple"),
        (["clean", "cool"], "a cool and clean apple"),
        (["slice"], "a sliced apple"),
        (["slice", "heat"], "a hot sliced apple"),
        (["slice", "cool"], "a cool sliced apple"),
        (["slice", "clean"], "a clean sliced apple"),
        (["slice", "clean", "heat"], "a hot and clean sliced apple"),
        (["slice", "clean", "cool"], "a cool and clean sliced apple"),
    ],
)
def test_treated_objects_are_described(treatments: list[str], described: str) -> None:
    engine = kitchen()
    if "slice" in treatments:
        play(engine, *TAKE_KNIFE, "go to countertop 1", "slice apple 2 with butterknife 1")
        play(engine, "move butterknife 1 to countertop 1")
    play(engine, "go to countertop 1") if "slice" not in treatments else None
    play(engine, "take apple 2 from countertop 1")
    where = {"heat": "microwave 1", "cool": "fridge 1", "clean": "sinkbasin 1"}
    for verb in treatments:
        if verb in where:
            place = where[verb]
            answer = play(engine, f"go to {place}", f"{verb} apple 2 with {place}")
            assert answer == f"You {verb} the apple 2 using the {place}."
    assert play(engine, "examine apple 2") == f"This is {described} 2."


def test_treating_needs_neither_an_open_door_nor_an_empty_appliance() -> None:
    engine = kitchen()
    play(engine, "go to countertop 1", "take apple 2 from countertop 1", "go to microwave 1")
    assert "heat apple 2 with microwave 1" in engine.admissible
    assert "move apple 2 to microwave 1" not in engine.admissible, "it is closed"
    play(engine, "open microwave 1")
    assert "move apple 2 to microwave 1" in engine.admissible


def test_receptacles_refuse_what_they_cannot_contain() -> None:
    engine = kitchen()
    play(engine, *TAKE_KNIFE, "go to microwave 1", "open microwave 1")
    assert not any(command.startswith(("move", "heat")) for command in engine.admissible)


def test_slicing_reaches_into_closed_receptacles() -> None:
    engine = kitchen()
    play(engine, *TAKE_KNIFE, "go to fridge 1")
    assert play(engine, "slice apple 1 with butterknife 1") == "You sliced the apple 1 with the butterknife 1."


def test_admissible_is_sorted_and_says_everything_once() -> None:
    engine = kitchen()
    play(engine, *TAKE_KNIFE, "go to countertop 1")
    assert list(engine.admissible) == sorted(set(engine.admissible))
    assert {
        "slice apple 2 with butterknife 1",
        "slice lettuce 1 with butterknife 1",
        "move butterknife 1 to sidetable 1",
        "use desklamp 1",
    } <= set(engine.admissible)


@pytest.mark.parametrize("odd", ["", "  ", "LOOK", "go to", "look around", "go to cellar 1", "take apple 2", "☃"])
def test_odd_commands_do_nothing(odd: str) -> None:
    engine = kitchen()
    before = engine.admissible
    assert engine.step(odd) == NOTHING_HAPPENS
    assert engine.admissible == before


def test_spaces_around_a_command_do_not_matter() -> None:
    assert kitchen().step("  inventory\n") == "You are not carrying anything."


def test_help() -> None:
    answer = play(kitchen(), "help")
    assert answer.startswith("Available commands:\n  look:")
    assert answer.endswith("\n")


def test_put_goal() -> None:
    engine = kitchen()
    play(engine, "go to countertop 1", "take apple 2 from countertop 1", "go to cabinet 1", "open cabinet 1")
    assert not engine.won
    assert play(engine, "move apple 2 to cabinet 1") == "You move the apple 2 to the cabinet 1."
    assert engine.won
    play(engine, "take apple 2 from cabinet 1")
    assert not engine.won


def test_treated_goal_counts_an_object_that_is_also_elsewhere() -> None:
    engine = kitchen(COOL_LETTUCE_ON_SIDETABLE)
    play(engine, "go to countertop 1", "take lettuce 1 from countertop 1", "go to fridge 1")
    assert not engine.won
    play(engine, "cool lettuce 1 with fridge 1")
    assert engine.won, "the second copy of the fact is still on the sidetable"


def test_goal_of_two_needs_both_in_one_receptacle() -> None:
    engine = kitchen(TWO_APPLES_IN_FRIDGE)
    play(engine, "go to countertop 1", "take apple 2 from countertop 1", "go to fridge 1", "open fridge 1")
    assert not engine.won
    play(engine, "move apple 2 to fridge 1")
    assert engine.won


def test_light_goal_needs_lamp_place_and_object() -> None:
    engine = kitchen(BOWL_IN_LIGHT)
    play(engine, "go to sidetable 1", "use desklamp 1")
    assert not engine.won
    play(engine, "take bowl 1 from countertop 1")
    assert engine.won
    play(engine, "go to fridge 1")
    assert not engine.won


def test_games_may_start_with_treated_objects() -> None:
    engine = kitchen(COOL_LETTUCE_ON_SIDETABLE, more="(isCool Lettuce_bar_1)")
    assert engine.won


def test_reset_forgets_everything() -> None:
    engine = kitchen()
    opening, admissible = engine.intro(), engine.admissible
    play(engine, *TAKE_KNIFE, "go to countertop 1", "slice apple 2 with butterknife 1", "use desklamp 1")
    engine.reset()
    assert (engine.intro(), engine.admissible) == (opening, admissible)
    play(engine, "go to countertop 1", "take apple 2 from countertop 1")
    assert play(engine, "examine apple 2") == "There's nothing special about apple 2."
