"""The ALFWorld expert: on transcripts worked by hand, and at play."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import hiper.envs
from helpers.made import turns_of
from hiper.envs import Observation, Start, TextEnv
from hiper.envs.alfworld.expert import AlfworldExpert, Errand, search_key
from hiper.envs.alfworld.generate import SIZES, write_games
from hiper.envs.alfworld.priors import count, main
from hiper.envs.base import Decision
from hiper.episode import Episode
from hiper.errors import UserError
from hiper.imitation.demonstrations import demonstrate

KITCHEN = ("cabinet 2", "cabinet 10", "countertop 1", "countertop 2", "fridge 1", "sinkbasin 1")
"""Searched in the order countertop 1, countertop 2, fridge 1, sinkbasin 1, cabinet 2, cabinet 10."""


class Transcript:
    """Plays the world's part by hand: what is read, and which actions it makes admissible."""

    def __init__(self, goal: str, room: Sequence[str] = KITCHEN, **known: Any) -> None:
        self.room = room
        self.expert = AlfworldExpert(**known)
        self.now = self.see("You are in the middle of a room.", [])
        self.expert.reset(Start(goal, self.now))

    def see(self, text: str, here: Sequence[str], *actions: str, holding: str = "") -> Observation:
        admissible = {"help", "inventory", "look", *actions}
        admissible |= {f"examine {place}" if place in here else f"go to {place}" for place in self.room}
        admissible |= {f"examine {holding}"} if holding else set()
        return Observation(text, tuple(sorted(admissible)))

    def expect(self, switch: bool, subgoal: str, action: str) -> None:
        decision = self.expert.act(self.now)
        assert decision == Decision(switch, subgoal, action)
        assert self.now.admissible is not None
        assert action in self.now.admissible
        self.played = action

    def then(self, text: str, here: Sequence[str], *actions: str, holding: str = "", played: str = "") -> None:
        """The world answers the expert's action, or ``played`` where something else was done."""
        self.now = self.see(text, here, *actions, holding=holding)
        self.expert.acted(played or self.played, self.now)


# Goals


@pytest.mark.parametrize(
    ("goal", "errand"),
    [
        ("put a book in sofa.", Errand("book", "sofa")),
        ("put some egg on microwave.", Errand("egg", "microwave")),
        ("put a clean plate in fridge.", Errand("plate", "fridge", "clean")),
        ("put a hot mug in cabinet.", Errand("mug", "cabinet", "heat")),
        ("put a cool cup in sidetable.", Errand("cup", "sidetable", "cool")),
        ("clean some plate and put it in fridge.", Errand("plate", "fridge", "clean")),
        ("heat some egg and put it in countertop.", Errand("egg", "countertop", "heat")),
        ("cool some apple and put it in countertop.", Errand("apple", "countertop", "cool")),
        ("put two creditcard in dresser.", Errand("creditcard", "dresser", two=True)),
        ("find two pan and put them in countertop.", Errand("pan", "countertop", two=True)),
        ("look at vase under the desklamp.", Errand("vase", "desklamp", lamp=True)),
        ("Your task is to: examine the keychain with the desklamp.", Errand("keychain", "desklamp", lamp=True)),
    ],
)
def test_understands_every_official_phrasing(goal: str, errand: Errand) -> None:
    assert Errand.read(goal) == errand


def test_says_which_goal_it_does_not_understand() -> None:
    with pytest.raises(UserError, match="slice the bread"):
        Errand.read("slice the bread")


def test_needs_admissible_actions() -> None:
    with pytest.raises(UserError, match="admissible"):
        AlfworldExpert().reset(Start("put a mug in shelf.", Observation("You are in the middle of a room.")))


def test_searches_likely_places_first_then_by_number() -> None:
    assert sorted(["cabinet 10", "shelf 1", "cabinet 9", "desk 1", "wardrobe 1"], key=search_key) == [
        "desk 1",
        "wardrobe 1",  # unheard of: after large surfaces, before small places
        "shelf 1",
        "cabinet 9",
        "cabinet 10",
    ]


def test_counts_where_wanted_things_are() -> None:
    problem = """(:objects Cup_bar_1 Pan_bar_1 - object Shelf_bar_1 Shelf_bar_2 Safe_bar_1 Sink_bar_1_bar_SinkBasin
        - receptacle loc_1 loc_2 - location) (:init (objectType Cup_bar_1 CupType)
        (objectType Pan_bar_1 PanType) (pickupable Cup_bar_1)
        (receptacleAtLocation Shelf_bar_1 loc_1) (receptacleAtLocation Shelf_bar_2 loc_1) (openable Safe_bar_1)
        (receptacleAtLocation Safe_bar_1 loc_1) (receptacleAtLocation Sink_bar_1_bar_SinkBasin loc_2)
        (inReceptacle Cup_bar_1 Shelf_bar_1) (inReceptacle Pan_bar_1 Shelf_bar_2))
        (:goal (exists (?o - object) (objectType ?o CupType)))"""
    assert count([problem]) == ({"shelf": 0.5, "safe": 0.0, "sinkbasin": 0.0}, frozenset({"safe"}))


def test_the_table_can_be_counted_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_games(tmp_path, "train", 3, "tiny")
    main(str(tmp_path))
    out = capsys.readouterr().out
    assert out.startswith("3 games\nCHANCE = {\n")
    assert "OPENABLE = [" in out


# Transcripts worked by hand


def test_a_clean_plate_in_the_cabinet() -> None:
    story = Transcript("put a clean plate in cabinet.")
    story.expect(True, "find plate", "go to countertop 1")
    story.then(
        "You arrive at countertop 1. On the countertop 1, you see a cup 1.",
        ["countertop 1"],
        "take cup 1 from countertop 1",
    )
    story.expect(False, "find plate", "go to countertop 2")
    story.then("You arrive at countertop 2. On the countertop 2, you see nothing.", ["countertop 2"])
    story.expect(False, "find plate", "go to fridge 1")
    story.then("You arrive at fridge 1. The fridge 1 is closed.", ["fridge 1"], "open fridge 1")
    story.expect(False, "find plate", "open fridge 1")
    story.then(
        "You open the fridge 1. The fridge 1 is open. In it, you see a plate 2, and a plate 1.",
        ["fridge 1"],
        "close fridge 1",
        "take plate 1 from fridge 1",
        "take plate 2 from fridge 1",
    )
    story.expect(True, "take plate", "take plate 1 from fridge 1")
    story.then("You pick up the plate 1 from the fridge 1.", ["fridge 1"], "close fridge 1", holding="plate 1")
    story.expect(True, "clean plate", "go to sinkbasin 1")
    story.then(
        "You arrive at sinkbasin 1. On the sinkbasin 1, you see nothing.",
        ["sinkbasin 1"],
        "clean plate 1 with sinkbasin 1",
        holding="plate 1",
    )
    story.expect(False, "clean plate", "clean plate 1 with sinkbasin 1")
    story.then(
        "You clean the plate 1 using the sinkbasin 1.",
        ["sinkbasin 1"],
        "clean plate 1 with sinkbasin 1",
        holding="plate 1",
    )
    story.expect(True, "put plate in cabinet", "go to cabinet 2")
    story.then("You arrive at cabinet 2. The cabinet 2 is closed.", ["cabinet 2"], "open cabinet 2", holding="plate 1")
    story.expect(False, "put plate in cabinet", "open cabinet 2")
    story.then(
        "You open the cabinet 2. The cabinet 2 is open. In it, you see nothing.",
        ["cabinet 2"],
        "close cabinet 2",
        "move plate 1 to cabinet 2",
        holding="plate 1",
    )
    story.expect(False, "put plate in cabinet", "move plate 1 to cabinet 2")


STUDY = ("desk 1", "drawer 1", "sofa 1")
"""Searched in the order desk 1, sofa 1, drawer 1."""


def test_two_objects_go_to_the_same_place_and_the_search_begins_anew() -> None:
    story = Transcript("put two cd in drawer.", ("desk 1", "drawer 1", "drawer 2", "sofa 1"))
    story.expect(True, "find cd", "go to desk 1")
    story.then("You arrive at desk 1. On the desk 1, you see a cd 1.", ["desk 1"], "take cd 1 from desk 1")
    story.expect(True, "take cd", "take cd 1 from desk 1")
    story.then("You pick up the cd 1 from the desk 1.", ["desk 1"], "move cd 1 to desk 1", holding="cd 1")
    story.expect(True, "put cd in drawer", "go to drawer 1")
    story.then("You arrive at drawer 1. The drawer 1 is closed.", ["drawer 1"], "open drawer 1", holding="cd 1")
    story.expect(False, "put cd in drawer", "open drawer 1")
    story.then(
        "You open the drawer 1. The drawer 1 is open. In it, you see a pen 1.",
        ["drawer 1"],
        "move cd 1 to drawer 1",
        holding="cd 1",
    )
    story.expect(False, "put cd in drawer", "move cd 1 to drawer 1")
    story.then("You move the cd 1 to the drawer 1.", ["drawer 1"], "take cd 1 from drawer 1")
    story.expect(True, "find second cd", "go to desk 1")
    story.then("You arrive at desk 1. On the desk 1, you see nothing.", ["desk 1"])
    story.expect(False, "find second cd", "go to sofa 1")
    story.then("You arrive at sofa 1. On the sofa 1, you see nothing.", ["sofa 1"])
    story.expect(False, "find second cd", "go to drawer 1")
    story.then(
        "You arrive at drawer 1. The drawer 1 is open. In it, you see a cd 1, and a pen 1.",
        ["drawer 1"],
        "take cd 1 from drawer 1",
    )
    story.expect(False, "find second cd", "go to drawer 2")
    story.then("You arrive at drawer 2. The drawer 2 is closed.", ["drawer 2"], "open drawer 2")
    story.expect(False, "find second cd", "open drawer 2")
    story.then(
        "You open the drawer 2. The drawer 2 is open. In it, you see a cd 2.", ["drawer 2"], "take cd 2 from drawer 2"
    )
    story.expect(True, "take second cd", "take cd 2 from drawer 2")
    story.then("You pick up the cd 2 from the drawer 2.", ["drawer 2"], "move cd 2 to drawer 2", holding="cd 2")
    story.expect(True, "put second cd in drawer", "go to drawer 1")


def test_the_first_of_two_is_fetched_again_when_it_is_taken_away() -> None:
    story = Transcript("put two cd in drawer.", STUDY)
    story.then("You move the cd 1 to the drawer 1.", ["drawer 1"], "take cd 1 from drawer 1", played="elsewhere")
    story.expect(True, "find second cd", "go to desk 1")
    story.then(
        "You pick up the cd 1 from the drawer 1.",
        ["drawer 1"],
        "move cd 1 to drawer 1",
        holding="cd 1",
        played="take cd 1 from drawer 1",
    )
    story.expect(True, "put cd in drawer", "move cd 1 to drawer 1")


def test_under_the_lamp() -> None:
    story = Transcript("examine the pen with the desklamp.", STUDY)
    story.expect(True, "find pen", "go to desk 1")
    story.then(
        "You arrive at desk 1. On the desk 1, you see a desklamp 1.", ["desk 1"], "use desklamp 1"
    )  # of no use without the pen
    story.expect(False, "find pen", "go to sofa 1")
    story.then("You arrive at sofa 1. On the sofa 1, you see a pen 3.", ["sofa 1"], "take pen 3 from sofa 1")
    story.expect(True, "take pen", "take pen 3 from sofa 1")
    story.then("You pick up the pen 3 from the sofa 1.", ["sofa 1"], "move pen 3 to sofa 1", holding="pen 3")
    story.expect(True, "find desklamp", "go to desk 1")
    story.then(
        "You arrive at desk 1. On the desk 1, you see a desklamp 1.",
        ["desk 1"],
        "move pen 3 to desk 1",
        "use desklamp 1",
        holding="pen 3",
    )
    story.expect(True, "use desklamp", "use desklamp 1")


def test_older_games_say_put() -> None:
    story = Transcript("put a pen in sofa.", STUDY)
    story.then(
        "You arrive at loc 3. On the sofa 1, you see nothing.",
        ["sofa 1"],
        "put pen 1 in/on sofa 1",
        holding="pen 1",
        played="go to sofa 1",
    )
    story.expect(True, "put pen in sofa", "put pen 1 in/on sofa 1")


def test_a_closed_neighbour_is_opened_from_where_it_stands_and_one_in_view_is_passed() -> None:
    room = ("cabinet 1", "cabinet 2", "cabinet 3", "cabinet 4")
    story = Transcript("put a cup in cabinet.", room)
    story.expect(True, "find cup", "go to cabinet 1")
    story.then(
        "You arrive at cabinet 1. The cabinet 1 is open. In it, you see nothing.",
        ["cabinet 1", "cabinet 2", "cabinet 3"],
        "close cabinet 1",
        "close cabinet 2",
        "open cabinet 3",
    )
    story.expect(False, "find cup", "open cabinet 3")
    story.then(
        "You open the cabinet 3. The cabinet 3 is open. In it, you see nothing.",
        ["cabinet 1", "cabinet 2", "cabinet 3"],
        "close cabinet 1",
        "close cabinet 2",
        "close cabinet 3",
    )
    story.expect(False, "find cup", "go to cabinet 4")


def test_it_looks_around_where_nothing_is_left_to_do() -> None:
    story = Transcript("put a cup in cabinet.", ("cabinet 1",))
    story.then("You arrive at cabinet 1.", ["cabinet 1"], played="go to cabinet 1")
    story.expect(True, "find cup", "look")


# A world that does not follow


def test_a_search_goes_on_from_where_it_was_thrown() -> None:
    story = Transcript("put a cup in fridge.")
    story.expect(True, "find cup", "go to countertop 1")
    story.then(
        "You arrive at cabinet 2. The cabinet 2 is open. In it, you see nothing.",
        ["cabinet 2"],
        played="go to cabinet 2",
    )
    story.expect(False, "find cup", "go to cabinet 10")
    story.then("Nothing happens.", ["cabinet 2"], played="take cup 1 from cabinet 2")
    story.expect(False, "find cup", "go to cabinet 10")
    story.then("You are not carrying anything.", ["cabinet 2"], played="inventory")
    story.expect(False, "find cup", "go to cabinet 10")
    story.then("You close the cabinet 2.", ["cabinet 2"], "open cabinet 2", played="close cabinet 2")
    story.expect(False, "find cup", "open cabinet 2")


def test_what_nobody_asked_for_is_put_down_even_in_a_closed_place() -> None:
    story = Transcript("put a cup in fridge.")
    story.expect(True, "find cup", "go to countertop 1")
    story.then("You close the cabinet 2.", ["cabinet 2"], "open cabinet 2", holding="bowl 1", played="close cabinet 2")
    story.expect(True, "drop bowl", "open cabinet 2")
    story.then(
        "You open the cabinet 2. The cabinet 2 is open. In it, you see nothing.",
        ["cabinet 2"],
        "move bowl 1 to cabinet 2",
        holding="bowl 1",
    )
    story.expect(False, "drop bowl", "move bowl 1 to cabinet 2")
    story.then("You move the bowl 1 to the cabinet 2.", ["cabinet 2"], "take bowl 1 from cabinet 2")
    story.expect(True, "find cup", "go to cabinet 10")


def test_what_was_put_down_is_treated_again() -> None:
    story = Transcript("put a cool cup in cabinet.")
    at_fridge = ("cool cup 1 with fridge 1", "move cup 1 to fridge 1")
    story.then("You pick up the cup 1 from the fridge 1.", ["fridge 1"], *at_fridge, holding="cup 1", played="take")
    story.expect(True, "cool cup", "cool cup 1 with fridge 1")
    story.then("You cool the cup 1 using the fridge 1.", ["fridge 1"], *at_fridge, holding="cup 1")
    story.expect(True, "put cup in cabinet", "go to cabinet 2")
    story.then(
        "You move the cup 1 to the fridge 1.",
        ["fridge 1"],
        "take cup 1 from fridge 1",
        played="move cup 1 to fridge 1",
    )
    story.expect(True, "take cup", "take cup 1 from fridge 1")
    story.then("You pick up the cup 1 from the fridge 1.", ["fridge 1"], *at_fridge, holding="cup 1")
    story.expect(True, "cool cup", "cool cup 1 with fridge 1")


def test_heating_undoes_cooling() -> None:
    story = Transcript("put a cool cup in cabinet.", (*KITCHEN, "microwave 1"))
    here, heat = ["microwave 1"], "heat cup 1 with microwave 1"
    story.then("You cool the cup 1 using the fridge 1.", ["fridge 1"], holding="cup 1", played="cool")
    story.expect(True, "put cup in cabinet", "go to cabinet 2")
    story.then("You heat the cup 1 using the microwave 1.", here, heat, holding="cup 1", played=heat)
    story.expect(True, "cool cup", "go to fridge 1")


def test_with_memory_it_goes_straight_to_what_it_saw_and_passes_what_it_searched() -> None:
    story = Transcript("examine the pen with the desklamp.", ("desk 1", "drawer 1", "shelf 1", "sofa 1"), memory=True)
    story.expect(True, "find pen", "go to desk 1")
    story.then("You arrive at desk 1. On the desk 1, you see nothing.", ["desk 1"])
    story.expect(False, "find pen", "go to sofa 1")
    story.then("You arrive at shelf 1. On the shelf 1, you see a desklamp 1.", ["shelf 1"], played="go to shelf 1")
    story.expect(False, "find pen", "go to drawer 1")
    story.then("You pick up the pen 1 from the drawer 1.", ["drawer 1"], holding="pen 1", played="take")
    story.expect(True, "find desklamp", "go to shelf 1")


@pytest.mark.parametrize(
    ("goal", "here", "holding", "mistakes"),
    [
        ("put a cup in fridge.", "cabinet 2", "", {f"take cup {n} from cabinet 2" for n in (1, 2, 3)}),
        ("put a cup in fridge.", "cabinet 2", "cup 2", {"move cup 2 to fridge 1"}),
        ("put a clean cup in fridge.", "cabinet 2", "cup 2", {"clean cup 2 with sinkbasin 1"}),
        ("examine the cup with the desklamp.", "cabinet 2", "cup 2", {"use desklamp 1"}),
    ],
)
def test_slips_try_to_complete_a_step_where_it_cannot_be_done(
    goal: str, here: str, holding: str, mistakes: set[str]
) -> None:
    story = Transcript(goal)
    story.then(f"You arrive at {here}.", [here], holding=holding, played=f"go to {here}")
    slips = [story.expert.slip(story.now, random.Random(seed)) for seed in range(20)]
    assert {slip.action for slip in slips if slip} == mistakes


def test_a_slip_is_in_the_words_of_the_games() -> None:
    story = Transcript("put a cup in fridge.", put_verb="put")
    story.then("You arrive at cabinet 2.", ["cabinet 2"], holding="cup 2", played="go to cabinet 2")
    slips = [story.expert.slip(story.now, random.Random(seed)) for seed in range(20)]
    assert {slip.action for slip in slips if slip} == {"put cup 2 in/on fridge 1"}


def test_there_is_no_slip_where_the_step_can_be_done() -> None:
    story = Transcript("put a cup in fridge.")
    story.then("You arrive at cabinet 2.", ["cabinet 2"], "take cup 1 from cabinet 2", played="go to cabinet 2")
    assert story.expert.slip(story.now, random.Random(0)) is None


# At play


def episodes(env: TextEnv, perturb: float = 0.0, every: int = 1, memory: bool = False) -> list[Episode]:
    return [
        demonstrate(env, task.id, perturb=perturb, expert=AlfworldExpert(memory=memory))
        for task in list(env.panel)[::every]
    ]


def won(played: Sequence[Episode]) -> float:
    return sum(episode.won for episode in played) / len(played)


@pytest.fixture(scope="module", params=list(SIZES))
def generated(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TextEnv:
    folder = tmp_path_factory.mktemp(request.param)
    write_games(folder, "train", 60, request.param)
    return hiper.envs.make("alfworld", split="train", data=folder)


@pytest.fixture(scope="module")
def valid_seen(official_games: Path) -> TextEnv:
    return hiper.envs.make("alfworld", split="valid_seen", data=official_games)


@pytest.mark.parametrize("memory", [False, True])
def test_wins_generated_games(generated: TextEnv, memory: bool) -> None:
    assert won(episodes(generated, memory=memory)) >= 0.98


def test_recovers_in_generated_games(generated: TextEnv) -> None:
    assert won(episodes(generated, perturb=0.2)) >= 0.85


@pytest.mark.parametrize("memory", [False, True])
def test_wins_official_games(valid_seen: TextEnv, memory: bool) -> None:
    played = episodes(valid_seen, memory=memory)
    assert won(played) == 1.0
    assert sum(len(episode.turns) for episode in played) / len(played) < 8.5


def test_recovers_in_official_games(valid_seen: TextEnv) -> None:
    assert won(episodes(valid_seen, perturb=0.1)) >= 0.95
    assert won(episodes(valid_seen, perturb=0.3)) >= 0.80


@pytest.mark.slow
def test_wins_official_train_games(official_games: Path) -> None:
    env = hiper.envs.make("alfworld", split="train", data=official_games)
    assert won(episodes(env)) >= 0.999


def test_an_episode_has_three_to_six_segments_by_its_type(valid_seen: TextEnv) -> None:
    segments: dict[str, Counter[int]] = defaultdict(Counter)
    for episode in episodes(valid_seen):
        task_type = valid_seen.panel[episode.task_id].type
        segments[task_type][sum(turn.switch for turn in episode.turns)] += 1
    assert {task_type: found.most_common(1)[0][0] for task_type, found in segments.items()} == {
        "look_at_obj_in_light": 4,
        "pick_and_place_simple": 3,
        "pick_clean_then_place_in_recep": 4,
        "pick_cool_then_place_in_recep": 4,
        "pick_heat_then_place_in_recep": 4,
        "pick_two_obj_and_place": 6,
    }


def test_every_action_it_chooses_is_admissible(generated: TextEnv) -> None:
    for episode in episodes(generated, perturb=0.3):
        for turn in episode.turns:
            assert turn.lapse or turn.action in (turn.admissible or ())


def test_it_knows_no_more_than_the_transcript(generated: TextEnv) -> None:
    """An expert that is only given strings, without any environment, decides the same."""
    for episode in episodes(generated, perturb=0.2):
        reader = AlfworldExpert()
        for index, turn in enumerate(turns_of(episode)):
            seen = Observation(turn.context.observation, turn.context.admissible)
            if index == 0:
                reader.reset(Start(turn.context.goal, seen))
            else:
                reader.acted(episode.turns[index - 1].action, seen)
            decision = reader.act(seen)
            if turn.target:
                assert (decision.subgoal, decision.action) == (turn.decision.subgoal, turn.decision.action)


def test_its_decisions_follow_from_what_a_prompt_shows(generated: TextEnv) -> None:
    """Equal goal, subgoal, observation and admissible actions hardly ever lead to different decisions."""
    decisions: dict[object, Counter[tuple[str, str]]] = defaultdict(Counter)
    for task in generated.panel:
        for seed in range(5):
            for turn in turns_of(demonstrate(generated, task.id, seed, perturb=0.2)):
                shown = turn.context
                if turn.target:
                    key = (shown.goal, shown.subgoal, shown.observation, shown.admissible)
                    decisions[key][turn.decision.subgoal, turn.decision.action] += 1
    turns = sum(found.total() for found in decisions.values())
    unexplained = sum(found.total() - max(found.values()) for found in decisions.values())
    assert unexplained / turns < 0.01
