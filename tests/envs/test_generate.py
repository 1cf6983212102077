from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from hiper.envs.alfworld import TASK_TYPES as OFFICIAL_TASK_TYPES
from hiper.envs.alfworld import Engine, Game, open_split, parse_game
from hiper.envs.alfworld.dialect import GENERATED_LANGUAGE_DIGEST, language_digest
from hiper.envs.alfworld.expert import AlfworldExpert
from hiper.envs.alfworld.generate import SIZES, SPLITS, TASK_TYPES, Size, generate_game, regenerate, write_games
from hiper.envs.alfworld.generate.contents import APPLIANCES, LAMP
from hiper.envs.alfworld.generate.household import household
from hiper.envs.alfworld.generate.scene import Scene, draw_scene, owner
from hiper.envs.base import Observation, Start
from hiper.envs.dice import Dice
from hiper.errors import NoSplitError, UserError

GAMES_PER_SIZE = 60


def games(size: str, count: int = GAMES_PER_SIZE, split: str = "valid_unseen") -> Iterator[Game]:
    for index in range(count):
        generated = generate_game(split, index, size)
        yield parse_game(generated.text, generated.task_id)


def kind(name: str) -> str:
    return name.rpartition(" ")[0]


def wanted(game: Game) -> list[int]:
    return [o for o in game.goals[0].objects if o in game.pickupable]


def starting_place(game: Game, o: int) -> int:
    return next(r for r, inside in enumerate(game.contents) if o in inside)


# --- the same everywhere -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("split", "index", "size", "task_id", "digest"),
    [
        (
            "train",
            0,
            "tiny",
            "generated-tiny/train/pick_and_place_simple-Tomato-None-Fridge-kitchen313/g00000",
            "8166a26cb7afdd4a",
        ),
        (
            "valid_seen",
            1,
            "small",
            "generated-small/valid_seen/look_at_obj_in_light-CreditCard-None-DeskLamp-bedroom468/g00001",
            "00bc7876bab44dd9",
        ),
        (
            "valid_unseen",
            2,
            "medium",
            "generated-medium/valid_unseen/pick_clean_then_place_in_recep-DishSponge-None-Shelf-bathroom724/g00002",
            "e8d08a3a6cdb731c",
        ),
        (
            "test",
            5,
            "official",
            "generated-official/test/pick_two_obj_and_place-DishSponge-None-Drawer-kitchen883/g00005",
            "9f9d7efbb63c91ea",
        ),
        (
            "valid_unseen",
            17,
            "tiny",
            "generated-tiny/valid_unseen/pick_two_obj_and_place-SoapBar-None-Cabinet-bathroom789/g00017",
            "18dcd22740df277c",
        ),
    ],
)
def test_games_are_the_same_on_every_machine(split: str, index: int, size: str, task_id: str, digest: str) -> None:
    """If this fails and the change is meant, raise GENERATOR_VERSION and record the new ids and digests."""
    game = generate_game(split, index, size)
    assert game.task_id == task_id
    assert hashlib.sha256(game.text.encode()).hexdigest()[:16] == digest


def test_dice_draw_recorded_numbers() -> None:
    dice = Dice("seed", 1)
    assert [dice.between(1, 6) for _ in range(10)] == [1, 1, 5, 6, 3, 6, 3, 3, 6, 1]
    assert [dice.weighted({"a": 1, "never": 0, "b": 3}) for _ in range(8)] == ["b", "b", "b", "a", "b", "b", "b", "b"]


def test_a_game_does_not_depend_on_what_was_generated_before_it() -> None:
    alone = generate_game("train", 7, "tiny")
    for index in range(20):
        generate_game("train", index, "tiny")
    assert generate_game("train", 7, "tiny") == alone


def test_a_game_can_be_had_again_from_its_id() -> None:
    for index in range(12):
        game = generate_game("test", index, "small")
        assert regenerate(game.task_id) == game


@pytest.mark.parametrize(
    "task_id",
    [
        "valid_unseen/pick_and_place_simple-Mug-None-Shelf-3/trial_T20190909",
        "generated-tiny/train/pick_and_place_simple-Mug-None-Shelf-kitchen999/g00000",
        "generated-huge/train/pick_and_place_simple-Mug-None-Shelf-kitchen001/g00000",
    ],
)
def test_an_id_of_no_generated_game_is_refused(task_id: str) -> None:
    with pytest.raises(UserError, match=r"no generated game|unknown size"):
        regenerate(task_id)


# --- tasks -------------------------------------------------------------------------------------------------------


def test_the_lamp_finds_a_place_where_what_is_wanted_took_the_last() -> None:
    """One of the first thirty thousand games with a lamp."""
    game = generate_game("valid_unseen", 4453, "official")
    assert "look_at_obj_in_light" in game.task_id
    engine = Engine(parse_game(game.text, game.task_id))
    for command in json.loads(game.text)["walkthrough"]:
        engine.step(command)
    assert engine.won


def test_a_split_cycles_through_all_task_types() -> None:
    types = [generate_game("train", index).type for index in range(12)]
    assert types == [*TASK_TYPES, *TASK_TYPES]


def test_task_types_can_be_chosen_in_any_order() -> None:
    chosen = ["pick_two_obj_and_place", "look_at_obj_in_light"]
    some = [generate_game("train", index, task_types=chosen) for index in range(4)]
    assert [game.type for game in some] == ["look_at_obj_in_light", "pick_two_obj_and_place"] * 2
    assert some == [generate_game("train", index, task_types=reversed(chosen)) for index in range(4)]


def test_the_task_id_names_the_game() -> None:
    seen = set()
    for split in SPLITS:
        for index in range(30):
            game = generate_game(split, index, "tiny")
            origin, its_split, folder, number = game.task_id.split("/")
            task, thing, movable, target, room = folder.split("-")
            assert (origin, its_split, task, movable, number) == (
                "generated-tiny",
                split,
                game.type,
                "None",
                f"g{index:05d}",
            )
            assert room.rstrip("0123456789") in household().tasks[task]
            task_sentence = parse_game(game.text, "").task
            assert thing.lower() in task_sentence
            assert target.lower() in task_sentence
            seen.add(game.task_id)
    assert len(seen) == 30 * len(SPLITS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("trian", 0), "unknown split 'trian'; did you mean 'train'"),
        (("train", 0, "smal"), "did you mean 'small'"),
        (("train", 0, "tiny", ["pick_and_place"]), "did you mean 'pick_and_place_simple'"),
        (("train", 0, "tiny", []), "no task types"),
        (("train", -1), "must not be negative"),
    ],
)
def test_bad_arguments_are_refused(arguments: tuple[str, int], message: str) -> None:
    with pytest.raises(NoSplitError if arguments[0] not in SPLITS else UserError, match=message):
        generate_game(*arguments)


# --- games can be played -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("size", SIZES)
def test_the_walkthrough_wins_and_nothing_less_does(size: str, split: str) -> None:
    for game in games(size, split=split):
        engine = Engine(game)
        for command in game.walkthrough:
            assert not engine.won, game.where
            assert command in engine.admissible, (game.where, command)
            engine.step(command)
        assert engine.won, game.where


def test_files_have_the_official_keys_and_a_language_the_engine_knows() -> None:
    data = json.loads(generate_game("train", 0).text)
    assert list(data) == ["pddl_domain", "grammar", "pddl_problem", "solvable", "walkthrough"]
    before, _, after = data["grammar"].partition("Your task is to: ")
    common = before + "Your task is to: " + after[after.index('"') :]
    assert language_digest(data["pddl_domain"], common) == GENERATED_LANGUAGE_DIGEST


def test_written_games_are_found_as_official_ones_are(tmp_path: Path) -> None:
    paths = write_games(tmp_path, "valid_seen", 6, "tiny")
    library = open_split("valid_seen", tmp_path)
    assert len(library.panel) == len(paths) == 6
    assert {task.type for task in library.panel} == set(TASK_TYPES)
    assert library.dialect == "move"


@pytest.mark.parametrize(("size", "shortest", "mean", "longest"), [("tiny", 3, 10, 30), ("small", 3, 13, 50)])
def test_the_expert_wins_in_a_sensible_number_of_turns(size: str, shortest: int, mean: float, longest: int) -> None:
    turns = [expert_turns(game) for game in games(size, 120)]
    assert shortest <= min(turns)
    assert max(turns) <= longest
    assert sum(turns) / len(turns) <= mean


def expert_turns(game: Game) -> int:
    engine, expert = Engine(game), AlfworldExpert()
    observation = Observation(engine.intro(), engine.admissible)
    expert.reset(Start(game.task, observation))
    for turn in range(1, 51):
        action = expert.act(observation).action
        observation = Observation(engine.step(action), engine.admissible)
        if engine.won:
            return turn
        expert.acted(action, observation)
    raise AssertionError(f"the expert lost {game.where}")


# --- rooms -------------------------------------------------------------------------------------------------------


def scenes(split: str, size: str, count: int = 150) -> list[Scene]:
    dice = Dice("test", split)
    return [draw_scene(size, room, split, dice) for room in household().rooms for _ in range(count)]


def furnishing(scene: Scene) -> tuple[str, frozenset[tuple[str, int]]]:
    counts = Counter(receptacle.kind for receptacle in scene.receptacles)
    return scene.room.name, frozenset(counts.items())


@pytest.mark.parametrize("size", SIZES)
def test_held_out_rooms_are_furnished_like_no_room_of_another_split(size: str) -> None:
    rooms = {split: {furnishing(scene) for scene in scenes(split, size)} for split in ("train", "valid_unseen", "test")}
    assert not rooms["train"] & rooms["valid_unseen"]
    assert not rooms["train"] & rooms["test"]
    assert not rooms["valid_unseen"] & rooms["test"]
    assert min(map(len, rooms.values())) > 50


def test_rooms_are_disjoint_between_sizes_too() -> None:
    for size in SIZES:
        for split in ("train", "valid_unseen", "test"):
            for scene in scenes(split, size, 20):
                assert owner(scene.room.name, Counter(dict(furnishing(scene)[1]))) == split


def test_valid_seen_plays_other_games_in_train_rooms() -> None:
    train = {scene.name for scene in scenes("train", "tiny", 400)}
    seen = {scene.name for scene in scenes("valid_seen", "tiny", 400)}
    unseen = {scene.name for scene in scenes("valid_unseen", "tiny", 400)}
    assert len(train & seen) > 0.4 * len(seen)
    assert not train & unseen
    assert all(generate_game("train", i).text != generate_game("valid_seen", i).text for i in range(30))


@pytest.mark.parametrize(("size", "preset"), SIZES.items())
def test_rooms_and_their_contents_have_the_size_asked_for(size: str, preset: Size) -> None:
    for game in games(size):
        factor = preset.kitchen if "-kitchen" in game.where else 1
        assert round(preset.receptacles[0] * factor) <= len(game.receptacles) <= round(preset.receptacles[1] * factor)
        assert round(preset.objects[0] * factor) * 0.7 <= len(game.objects) <= round(preset.objects[1] * factor)
        assert len(game.openable) <= max(preset.closed * len(game.receptacles), 2)


def test_tiny_rooms_have_one_receptacle_at_a_place_and_larger_ones_sometimes_two() -> None:
    shared = {size: sum(len(set(g.stands_at)) < len(g.stands_at) for g in games(size)) for size in SIZES}
    assert shared["tiny"] == 0
    assert 0 < shared["small"] < shared["official"]


# --- contents ----------------------------------------------------------------------------------------------------


def test_rooms_hold_what_the_task_needs() -> None:
    for game in games("tiny", 120):
        task = game.where.split("/")[2].split("-")[0]
        present = {kind(name) for name in (*game.receptacles, *game.objects)}
        assert len(wanted(game)) >= game.goals[0].count
        if task in APPLIANCES:
            assert APPLIANCES[task][1].lower() in present
        if task == "look_at_obj_in_light":
            assert LAMP.lower() in present


def test_what_is_wanted_never_starts_at_its_goal() -> None:
    for game in games("small", 120):
        assert all(starting_place(game, o) not in game.goals[0].receptacles for o in wanted(game))


def test_placements_vary() -> None:
    places: dict[str, Counter[str]] = {}
    hidden = spare = siblings = cool = 0
    for game in games("small", 300, split="train"):
        its = wanted(game)
        spare += len(its) > game.goals[0].count
        hidden += any(starting_place(game, o) in game.openable for o in its)
        families = Counter(FAMILY[kind(name)] for name in game.objects)
        siblings += families[FAMILY[kind(game.objects[its[0]])]] > len(its)
        cool += bool(game.cool)
        for o in its:
            places.setdefault(kind(game.objects[o]), Counter())[kind(game.receptacles[starting_place(game, o)])] += 1
    frequent = {thing: where for thing, where in places.items() if where.total() >= 12}
    assert len(frequent) >= 8
    assert all(len(where) >= 3 for where in frequent.values()), frequent
    assert 60 < hidden < 180
    assert 60 < spare < 240
    assert siblings > 150
    assert cool > 0


FAMILY = {name.lower(): row.family for name, row in household().objects.items()}


def test_the_household_is_consistent() -> None:
    house = household()
    for row in house.objects.values():
        assert set(row.places) <= set(house.receptacles), row
        assert any(row.places.values()), row
        assert row.abilities <= {"clean", "heat", "cool", "slice", "light", "hold", "fixed"}, row
    for room in house.rooms.values():
        assert {name for group in room.core for name in group} | set(room.furniture) <= set(house.receptacles)
        assert set(room.objects) <= set(house.objects)
        assert sum(room.most.values()) >= max(
            size.receptacles[1] * (size.kitchen if room.name == "kitchen" else 1) for size in SIZES.values()
        )
    assert set(house.tasks) == set(TASK_TYPES) == set(OFFICIAL_TASK_TYPES)
