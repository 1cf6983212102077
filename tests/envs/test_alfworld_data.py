"""Where games come from, and what a user is told when they are not as they should be."""

from __future__ import annotations

import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hiper.envs
from helpers import kitchen
from hiper.envs.alfworld import AlfworldEnv, open_split, parse_game
from hiper.envs.alfworld.generate import generate_game, write_games
from hiper.envs.alfworld.library import official_panels
from hiper.envs.alfworld.sources import TASK_TYPES
from hiper.errors import UserError

TASK = "pick_and_place_simple-Apple-None-Cabinet-1"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Six generated games of each of two splits, laid out as the official data."""
    folder = tmp_path / "data"
    for split in ("train", "valid_unseen"):
        write_games(folder / "json_2.1.1", split, 6, "tiny")
    return folder


def one_game(folder: Path, content: str | bytes, task: str = TASK) -> Path:
    file = folder / "train" / task / "trial_1" / "game.tw-pddl"
    file.parent.mkdir(parents=True)
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


def pack(folder: Path, archive: Path, mode: str) -> Path:
    with tarfile.open(archive, mode) as tar:  # type: ignore[call-overload]
        for file in sorted(folder.rglob("*.tw-pddl"), reverse=True):
            tar.add(file, "./" + str(file.relative_to(folder)))
    return archive


class TestSources:
    @pytest.mark.parametrize(("name", "mode"), [("a.tar", "w"), ("a.tar.gz", "w:gz"), ("a.tar.xz", "w:xz")])
    def test_archives_and_folders_are_the_same_panel(self, data: Path, tmp_path: Path, name: str, mode: str) -> None:
        unpacked = open_split("train", data)
        packed = open_split("train", pack(data, tmp_path / name, mode))
        assert packed.panel == unpacked.panel
        assert packed.panel.hash == unpacked.panel.hash
        for task in packed.panel:
            assert packed.game(task.id).contents == unpacked.game(task.id).contents

    def test_the_release_folder_may_be_left_out(self, data: Path) -> None:
        assert open_split("train", data / "json_2.1.1").panel == open_split("train", data).panel

    def test_task_ids_name_split_folder_and_trial(self, data: Path) -> None:
        panel = open_split("valid_unseen", data).panel
        for task in panel:
            split, folder, trial = task.id.split("/")
            assert split == "valid_unseen"
            assert folder.startswith(task.type + "-")
            assert trial
        assert set(panel.types()) == set(TASK_TYPES)

    def test_default_folder_and_variable(self, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ALFWORLD_DATA", str(data))
        assert len(open_split("train").panel) == 6
        monkeypatch.delenv("ALFWORLD_DATA")
        monkeypatch.setenv("HOME", str(data.parent))
        (data.parent / ".cache").mkdir()
        data.rename(data.parent / ".cache" / "alfworld")
        assert len(open_split("train").panel) == 6

    def test_changed_content_changes_the_hash(self, data: Path) -> None:
        before = open_split("train", data).panel.hash
        file = next(data.rglob("train/**/*.tw-pddl"))
        file.write_text(file.read_text() + "\n")
        assert open_split("train", data).panel.hash != before

    def test_a_smaller_number_of_games(self, data: Path) -> None:
        few, more = (open_split("train", data, games=count).panel for count in (2, 4))
        assert len(few) == 2
        assert {task.id for task in few} <= {task.id for task in more}
        with pytest.raises(UserError, match="has 6 tasks; 7 were asked for"):
            open_split("train", data, games=7)

    def test_generated_games_need_no_data(self) -> None:
        env = hiper.envs.make("alfworld", split="valid_unseen", data="generated", games=12, size="tiny")
        assert set(env.panel.types()) == set(TASK_TYPES)
        for task in env.panel:
            assert env.reset(task.id).observation.admissible

    def test_only_the_official_panel_is_called_official(self, data: Path) -> None:
        assert open_split("train", data).official is False
        assert open_split("valid_unseen", data).official is None
        assert {name: panel["tasks"] for name, panel in official_panels().items()} == {
            "alfworld/train": 3553,
            "alfworld/valid_seen": 140,
        }


class TestWhatTheBenchmarkLeavesOut:
    def test_unsolvable_movable_and_sliced(self, data: Path) -> None:
        split = data / "json_2.1.1"
        one_game(split, json.dumps(kitchen.game_data() | {"solvable": False}))
        one_game(split, "never read", "pick_and_place_with_movable_recep-Apple-Bowl-Cabinet-1")
        one_game(split, "never read", "pick_and_place_simple-AppleSliced-None-Cabinet-1")
        assert len(open_split("train", data).panel) == 6

    def test_nothing_left(self, tmp_path: Path) -> None:
        one_game(tmp_path, json.dumps(kitchen.game_data() | {"solvable": False}))
        with pytest.raises(UserError, match=r"no playable game \(1 are marked unsolvable or unsupported\)"):
            open_split("train", tmp_path)


class TestBadData:
    def test_missing_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(UserError, match=r"nowhere.*alfworld-download"):
            open_split("train", tmp_path / "nowhere")
        monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path / "gone"))
        with pytest.raises(UserError, match=r"ALFWORLD_DATA says.*gone.*does not exist"):
            open_split("train")

    def test_missing_split(self, data: Path, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"no split 'test'.*valid_unseen"):
            open_split("test", data)
        with pytest.raises(UserError, match=r"no split 'test' \(it holds train, valid_unseen\)"):
            open_split("test", pack(data, tmp_path / "a.tar", "w"))

    def test_a_split_is_one_folder(self, data: Path) -> None:
        """Ids of tasks are made of its name."""
        (data / "nested" / "train").mkdir(parents=True)
        with pytest.raises(UserError, match="has no split 'nested/train'"):
            open_split("nested/train", data)

    def test_empty_folder(self, tmp_path: Path) -> None:
        (tmp_path / "train").mkdir()
        with pytest.raises(UserError, match=r"no playable game \(there is no TASK/TRIAL/game.tw-pddl in it\)"):
            open_split("train", tmp_path)

    def test_not_an_archive(self, tmp_path: Path) -> None:
        file = tmp_path / "games.tar"
        file.write_text("no archive")
        with pytest.raises(UserError, match=r"games.tar' is no complete tar archive"):
            open_split("train", file)

    @pytest.mark.parametrize(("name", "mode"), [("a.tar", "w"), ("a.tar.gz", "w:gz"), ("a.tar.xz", "w:xz")])
    def test_truncated_archive(self, data: Path, tmp_path: Path, name: str, mode: str) -> None:
        archive = pack(data, tmp_path / name, mode)
        archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
        with pytest.raises(UserError, match=f"{name}' is no complete tar archive .*fetch it again"):
            open_split("train", archive)

    @pytest.mark.parametrize("size", [0.5, 1.0])
    def test_zip_archives_are_the_same_panel(self, data: Path, tmp_path: Path, size: float) -> None:
        archive = tmp_path / "json_2.1.2_tw-pddl.zip"
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
            for file in sorted(data.rglob("*.tw-pddl")):
                packed.write(file, file.relative_to(data))
        archive.write_bytes(archive.read_bytes()[: int(size * archive.stat().st_size)])
        if size == 1.0:
            assert open_split("train", archive).panel == open_split("train", data).panel
        else:
            with pytest.raises(UserError, match=r"is no complete tar archive or zip archive .*fetch it again"):
                open_split("train", archive)

    @pytest.mark.parametrize(
        ("name", "kind", "link", "message"),
        [
            (f"train/{TASK}/t/game.tw-pddl", tarfile.LNKTYPE, "nowhere", "a link to what is not in the archive"),
            (f"train/{TASK}/t/game.tw-pddl", tarfile.SYMTYPE, "nowhere", "a link to what is not in the archive"),
            (f"train/{TASK}/t/game.tw-pddl", tarfile.SYMTYPE, "game.tw-pddl", "links lead in a ring|a link to what"),
            (f"train/{TASK}/t/game.tw-pddl", tarfile.CHRTYPE, "", "is no file"),
            (f"train/{TASK}/t/game.tw-pddl", tarfile.DIRTYPE, "", "is no file"),
            (f"../{TASK}/t/game.tw-pddl", tarfile.REGTYPE, "", "is no place of a game"),
            (f"{TASK}/t/game.tw-pddl", tarfile.REGTYPE, "", "is no place of a game"),
        ],
    )
    def test_odd_members_are_named(
        self, data: Path, tmp_path: Path, name: str, kind: bytes, link: str, message: str
    ) -> None:
        archive = pack(data, tmp_path / "a.tar", "w")
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, link
        with tarfile.open(archive, "a") as tar:
            tar.addfile(member)
        with pytest.raises(UserError, match=message):
            open_split("train", archive)

    def test_a_game_that_is_there_twice_is_named(self, data: Path, tmp_path: Path) -> None:
        archive = pack(data, tmp_path / "a.tar", "w")
        file = next(data.rglob("train/**/*.tw-pddl"))
        with tarfile.open(archive, "a") as tar:
            tar.add(file, str(file.relative_to(data)))
        with pytest.raises(UserError, match="twice"):
            open_split("train", archive)

    def test_what_follows_a_damaged_header_is_not_passed_over(self, data: Path, tmp_path: Path) -> None:
        archive = pack(data, tmp_path / "a.tar", "w")
        with tarfile.open(archive) as tar:
            third = tar.getmembers()[2].offset
        content = bytearray(archive.read_bytes())
        content[third : third + 8] = b"damaged!"
        archive.write_bytes(content)
        with pytest.raises(UserError, match="is no complete tar archive"):
            open_split("train", archive)

    def test_a_game_of_gigabytes_is_refused_unread(self, data: Path, tmp_path: Path) -> None:
        member = tarfile.TarInfo(f"train/{TASK}/trial_1/game.tw-pddl")
        member.size = 2 << 30
        archive = tmp_path / "a.tar"
        archive.write_bytes(member.tobuf())
        with pytest.raises(UserError, match="has more than 16 MiB, which is too much for a game"):
            open_split("train", archive)

    def test_a_web_page_is_no_archive(self, tmp_path: Path) -> None:
        archive = tmp_path / "a.zip"
        archive.write_text("<html>" * 1000)
        with pytest.raises(UserError, match="looks like a web page"):
            open_split("train", archive)

    def test_unknown_task_type(self, tmp_path: Path) -> None:
        one_game(tmp_path, json.dumps(kitchen.game_data()), "juggle-Apple-None-Cabinet-1")
        with pytest.raises(UserError, match=r"'juggle-Apple-None-Cabinet-1' should begin with a task type"):
            open_split("train", tmp_path)

    def test_mixed_dialects(self, data: Path) -> None:
        text = json.dumps(kitchen.game_data())
        one_game(data / "json_2.1.1", text.replace("move {o} to {r}", "put {o} in/on {r}"))
        with pytest.raises(UserError, match=r"mixes two generations of data.*put X in/on Y.*move X to Y"):
            open_split("train", data)

    def test_unknown_task(self, data: Path) -> None:
        env = AlfworldEnv(open_split("train", data))
        with pytest.raises(UserError, match="no task 'train/x' in panel 'alfworld/train'"):
            env.reset("train/x")


def change(**values: Any) -> Callable[[dict[str, Any]], object]:
    return lambda data: data | values


def change_problem(old: str, new: str) -> Callable[[dict[str, Any]], object]:
    return lambda data: data | {"pddl_problem": data["pddl_problem"].replace(old, new)}


class TestBadGameFiles:
    @pytest.mark.parametrize(
        ("spoil", "message"),
        [
            (lambda data: [data], "holds a JSON list, not a game"),
            (lambda data: {k: v for k, v in data.items() if k != "grammar"}, "key 'grammar' is missing"),
            (lambda data: {k: v for k, v in data.items() if k != "solvable"}, "key 'solvable' is missing"),
            (change(pddl_problem=7), "key 'pddl_problem' is not a text"),
            (change(solvable=False), "marked as unsolvable"),
            (change(pddl_domain="(define (domain x))"), "rule of action 'look' is 'nothing'"),
            (change(grammar="grammar"), "no task sentence"),
            (change_problem("(:init", "(:start"), "lacks '\\(:objects' or, after it, '\\(:init'"),
            (change_problem("(:objects", "(:things"), "lacks '\\(:objects'"),
            (
                change_problem("(openable Fridge_bar_1)", "(openable Fridge_bar_7)"),
                "'fridge_bar_7' is in an init",
            ),
            (change_problem("(openable Fridge_bar_1)", "(holds agent1 Bowl_bar_1)"), "'\\(holds agent1 bowl_bar_1\\)'"),
            (change_problem("(openable Fridge_bar_1)", "(openable)"), "'\\(openable fridge|'\\(openable\\)|openable"),
            (change_problem("(openable Fridge_bar_1)", "(openable Bowl_bar_1)"), "'bowl_bar_1' is of two sorts"),
            (change_problem("(atLocation agent1 loc_bar_1)", ""), "0 agents"),
            (
                change_problem("(openable Fridge_bar_1)", "(receptacleAtLocation Fridge_bar_1 loc_bar_1)"),
                "at two locations",
            ),
            (change_problem("(exists (?r - receptacle)", "(forall (?r - receptacle)"), "goal is of a shape"),
            (change_problem("(:init", "(:init receptacleType Fridge_bar_1 FridgeType)"), "brackets .* not in pairs"),
            (change_problem("(:objects", "(a (:objects"), "brackets .* not in pairs"),
            (lambda game: game | {"pddl_domain": "(:action " * 100_000}, "a list of 100,000 actions"),
            (lambda game: game | {"grammar": game["grammar"] + " " * 4_000_000}, "too much for a game"),
        ],
    )
    def test_the_message_names_file_and_fault(
        self, spoil: Callable[[dict[str, Any]], object], message: str, tmp_path: Path
    ) -> None:
        with pytest.raises(UserError, match=rf"kitchen.json: .*{message}"):
            parse_game(json.dumps(spoil(kitchen.game_data())), "kitchen.json")

    @pytest.mark.parametrize("content", ["", "no json", json.dumps(kitchen.game_data())[:5000], b"\xff\xfe\x00"])
    def test_broken_files_are_named_when_they_are_opened(self, content: str | bytes, tmp_path: Path) -> None:
        write_games(tmp_path, "train", 6, "tiny")
        file = one_game(tmp_path, content)
        with pytest.raises(UserError, match=rf"{file}: not a complete JSON text.*1 of the 7 games cannot be played"):
            open_split("train", tmp_path)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("[" * 100_000, "nested too deep"),
            ("<!DOCTYPE html><html>not found</html>", "looks like a web page"),
            ('{"a": ' + "9" * 10_000 + "}", "not a complete JSON text"),
            ('{"solvable": true, "pddl_domain": "' + "x" * 100_000, "not a complete JSON text"),
        ],
    )
    def test_what_is_no_game_is_told_in_a_short_message(self, content: str, message: str, tmp_path: Path) -> None:
        one_game(tmp_path, content)
        with pytest.raises(UserError, match=message) as caught:
            open_split("train", tmp_path)
        assert len(str(caught.value)) < 500

    def test_a_long_fact_is_quoted_shortly(self) -> None:
        data = kitchen.game_data()
        data["pddl_problem"] = data["pddl_problem"].replace("(openable Fridge_bar_1)", f"({'holds ' * 20_000})")
        with pytest.raises(UserError, match="is not one the engine knows") as caught:
            parse_game(json.dumps(data), "kitchen.json")
        assert len(str(caught.value)) < 500

    @pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
    def test_a_byte_order_mark_is_read_over(self, tmp_path: Path, encoding: str) -> None:
        text = json.dumps(kitchen.game_data())
        one_game(tmp_path, text.encode(encoding))
        assert open_split("train", tmp_path).game(f"train/{TASK}/trial_1") is not None
        assert parse_game("\ufeff" + text, "kitchen.json").objects

    def test_what_lies_under_a_games_name_must_be_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "train" / TASK / "trial_1" / "game.tw-pddl").mkdir(parents=True)
        with pytest.raises(UserError, match="should be a game's file"):
            open_split("train", tmp_path)

    @pytest.mark.parametrize("solvable", [None, False, "missing"])
    def test_games_that_alfworld_leaves_out_are_left_out_and_counted(
        self, solvable: object, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        write_games(tmp_path, "train", 6, "tiny")
        game = kitchen.game_data() | {"solvable": solvable}
        if solvable == "missing":
            del game["solvable"]
        one_game(tmp_path, json.dumps(game))
        assert len(open_split("train", tmp_path).panel.tasks) == 6
        assert "left out 1 games" in caplog.text

    def test_a_foreign_rule_is_refused(self) -> None:
        data = kitchen.game_data()
        spoiled = data["pddl_domain"].replace("(not (holdsAny ?a))", "(holdsAny ?a)", 1)
        assert spoiled != data["pddl_domain"]
        with pytest.raises(UserError, match="which the engine does not know"):
            parse_game(json.dumps(data | {"pddl_domain": spoiled}), "game")


class TestEnvironment:
    def test_win_on_the_last_turn_is_terminated(self, data: Path) -> None:
        library = open_split("train", data)
        task = library.panel.tasks[0]
        plan = library.game(task.id).walkthrough
        env = AlfworldEnv(library, max_turns=len(plan))
        env.reset(task.id)
        steps = [env.step(command) for command in plan]
        assert all(step.reward == 0 and not step.terminated and not step.truncated for step in steps[:-1])
        last = steps[-1]
        assert (last.terminated, last.truncated, last.reward, last.info.won) == (True, False, 10.0, True)
        with pytest.raises(RuntimeError, match="over"):
            env.step("look")

    def test_too_late_is_truncated(self, data: Path) -> None:
        library = open_split("train", data)
        task = library.panel.tasks[0]
        plan = library.game(task.id).walkthrough
        env = AlfworldEnv(library, max_turns=len(plan) - 1, reward=1.0)
        env.reset(task.id)
        last = [env.step(command) for command in plan[:-1]][-1]
        assert (last.terminated, last.truncated, last.reward) == (False, True, 0.0)
        assert last.info.end is not None
        assert last.info.end.value == "turn_limit"

    def test_the_goal_is_the_sentence_of_the_opening(self) -> None:
        env = hiper.envs.make("alfworld", data="generated", games=6, size="tiny")
        for task in env.panel:
            start = env.reset(task.id)
            assert start.observation.text.endswith(f"\n\nYour task is to: {start.goal}")

    @pytest.mark.parametrize("games", [0, -1, 100_001, 10**12])
    def test_so_many_games_cannot_be_generated(self, games: int) -> None:
        with pytest.raises(UserError, match=r"generated games were asked for; ask for 1 to 100,000"):
            hiper.envs.make("alfworld", data="generated", games=games)

    def test_a_thousand_games_run_side_by_side(self) -> None:
        env = hiper.envs.make("alfworld", data="generated", games=10, size="tiny")
        running = [env.spawn() for _ in range(1000)]
        for number, one in enumerate(running):
            one.reset(env.panel.tasks[number % 10].id)
        texts = [one.step("look").observation.text for one in running]
        assert set(texts) == {"You are in the middle of a room. Looking quickly around you, you see nothing."}


def test_walkthroughs_win(data: Path) -> None:
    env = hiper.envs.make("alfworld", data="generated", games=60)
    for task in env.panel:
        env.reset(task.id)
        game = parse_game(generate_game("train", int(task.id[-5:])).text, "game")
        assert [env.step(command) for command in game.walkthrough][-1].info.won
