"""The command line, in this process; one test in a process of its own shows that exit codes reach the shell."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
import typer
from rich.console import Console
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from hiper import __version__, cli
from hiper.analysis.proofs.proofs import Unbiased, sweep_bias, sweep_variance
from hiper.commands import verify as prove
from hiper.commands.output import write_results
from hiper.config import load_config, recipe_names
from hiper.display.console import Display
from hiper.envs.alfworld.generate import generate_game
from hiper.envs.base import Observation, Step
from hiper.envs.registry import make, names
from hiper.envs.small.corridor import CorridorEnv
from hiper.episode import read_episodes
from hiper.files import seal
from hiper.models.build import add_critic, load_policy
from hiper.runs.policies import unfinished_file
from hiper.study.definition import study_names

Hiper = Callable[..., Any]
COMMANDS: dict[str, Any] = {"": typer.main.get_command(cli.app)}
COMMANDS |= COMMANDS[""].commands
"""The program itself, and its commands by name."""


@pytest.fixture
def run_folder(tiny_run: Path, tmp_path: Path) -> Path:
    """A copy of a finished run, to be changed at will."""
    return shutil.copytree(tiny_run, tmp_path / "run")


def refused(result: Any, *parts: object) -> None:
    """One message that holds all of ``parts``, and exit code 2."""
    assert result.code == 2
    for part in parts:
        assert str(part) in result.err


# --- What works -------------------------------------------------------------------------------------------------------


def test_help_lists_the_commands(hiper: Hiper):
    result = hiper("--help")
    assert result.code == 0
    for command in ("train", "sft", "eval", "play", "recipes", "tasks", "data", "report"):
        assert command in result.out


def test_help_says_what_is_taken_where_nothing_is_said(hiper: Hiper):
    assert "[default: (one under runs/)]" in hiper("study", "--help").out
    assert "[default: (the run's own)]" in hiper("credit", "--help").out


@pytest.mark.parametrize("name", [name for name in COMMANDS if name])
def test_help_speaks_of_what_people_type(hiper: Hiper, name: str):
    """Short and long, without Python's types, in sentences."""
    result = hiper(name, "-h")
    assert result.code == 0
    assert result.out == hiper(name, "--help").out
    assert not re.search(r"<\w+", result.out)
    for parameter in COMMANDS[name].params:
        if getattr(parameter, "hidden", False):
            continue
        assert re.fullmatch(r"(?s)[A-Z].*[.]", parameter.help), parameter.name


@pytest.mark.parametrize("name", ["", "train", "eval", "study"])
def test_help_ends_with_examples(hiper: Hiper, name: str):
    examples = hiper(*[name] * bool(name), "--help").out.partition("Examples:")[2]
    assert f"hiper {name or 'train'} " in examples


def test_examples_name_what_there_is():
    """Commands, options, recipes, studies and environments."""
    first = {"train": recipe_names(), "sft": recipe_names(), "recipes": recipe_names(), "study": study_names()}
    first |= {"play": names(), "data": names()}
    examples = [line.split() for command in COMMANDS.values() for line in (command.epilog or "").splitlines()]
    checked = 0
    for words in examples:
        if words[:1] != ["hiper"] or words[1] == "COMMAND":
            continue
        command = COMMANDS[words[1]]
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known
        if words[1] in first and words[2:] and not words[2].startswith("--") and words[2] != "mine.yaml":
            assert words[2] in first[words[1]]
            checked += 1
    assert checked > 5


def test_the_version(hiper: Hiper):
    result = hiper("--version")
    assert (result.code, result.out) == (0, f"hiper {__version__}\n")


@pytest.mark.parametrize(
    ("words", "found"), [("hiper tr", "train"), ("hiper train qui", "quickstart"), ("hiper study abl", "ablations")]
)
def test_the_shell_completes(words: str, found: str):
    variables = {"_HIPER_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    ended = subprocess.run(
        [sys.executable, "-m", "hiper"], env=os.environ | variables, capture_output=True, text=True, check=False
    )
    assert ended.stdout.split() == [found]


def test_recipes(hiper: Hiper):
    lines = hiper("recipes").out.splitlines()
    assert any(line.startswith("quickstart ") and line.endswith(".") for line in lines)


def test_a_recipe_is_shown_as_it_is_written(hiper: Hiper, tmp_path: Path):
    shown = hiper("recipes", "boxes").out
    assert shown.startswith("# ")
    (tmp_path / "copy.yaml").write_text(shown)
    assert load_config(tmp_path / "copy.yaml") == load_config("boxes")
    refused(hiper("recipes", "boxs"), "did you mean 'boxes'")


def test_tasks(hiper: Hiper):
    result = hiper("tasks", "corridor", "cells=3", "--split", "held_out")
    lines = result.out.splitlines()
    assert lines[0] == "corridor/held_out/locked-3cells-start0-key0-door1\tlocked"
    assert f"corridor-3/held_out: {len(lines)} tasks, sha256 fe4548bf7efb" in result.err


def test_train_reports(hiper: Hiper, tiny_recipe: Path, tmp_path: Path):
    out = tmp_path / "run"
    result = hiper("train", tiny_recipe, "training.iterations=1", "warm_start.epochs=1", "--out", out)
    assert result.code == 0
    for part in ("held out", "held out, after 0", "1/1", "held out, after 1", "where everything is", "report.md"):
        assert part in result.out
    for file in ("config.yaml", "metrics.jsonl", "report.md", "curve.png", "tensorboard", "warm-start/hiper.yaml"):
        assert (out / file).exists()
    AutoModelForCausalLM.from_pretrained(out / "checkpoints" / "iter-00001" / "policy")


def test_resuming_a_finished_run_says_so(hiper: Hiper, run_folder: Path):
    result = hiper("train", "--resume", run_folder)
    assert result.code == 0
    assert "nothing is left to do" in result.out


def test_resuming_makes_up_for_a_missing_evaluation(hiper: Hiper, run_folder: Path):
    card = run_folder / "evaluations" / "eval-00002-held_out.json"
    before = json.loads(card.read_text())
    card.unlink()
    assert hiper("train", "--resume", run_folder).code == 0
    assert json.loads(card.read_text())["outcomes"] == before["outcomes"]


def test_report(hiper: Hiper, run_folder: Path):
    (run_folder / "report.md").unlink(missing_ok=True)
    result = hiper("report", run_folder)
    assert result.code == 0
    assert "tiny, seed 0" in result.out
    assert (run_folder / "report.md").exists()


def test_credit_shows_and_writes_what_estimators_say(hiper: Hiper, run_folder: Path):
    result = hiper("credit", run_folder, "--iteration", 1)
    assert result.code == 0
    assert "Rank correlation" in result.out
    assert json.loads((run_folder / "credit.json").read_text())["iteration"] == 1
    assert (run_folder / "credit.png").exists()
    result = hiper("credit", run_folder, "--iteration", 9)
    assert result.code == 2
    assert "no episodes of iteration 9; there are 1 to 2" in result.err


def test_verify_fails_where_a_claim_does(hiper: Hiper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    checks = [Unbiased("HAE, termination-value", 1, 0.5, claimed=True)]
    monkeypatch.setattr(prove, "check_unbiased", lambda: checks)
    monkeypatch.setattr(prove, "sweep_variance", lambda: sweep_variance((2, 3), (0.8, 0.5), (0.0, 0.5, 1.0), (0,)))
    monkeypatch.setattr(prove, "sweep_bias", lambda: sweep_bias((0.0, 1.0), (0.0, 1.0), (0,)))
    result = hiper("verify", "--out", tmp_path / "proofs")
    assert result.code == 2
    assert "not unbiased, though it is claimed to be: HAE, termination-value" in result.err
    assert (tmp_path / "proofs" / "verify.json").exists()  # what was found is kept
    assert hiper("verify", "--run", tmp_path / "none").code == 2
    alone = hiper("verify", "--iteration", "1")
    assert alone.code == 2
    assert "name the run with --run" in alone.err


def test_eval_writes_a_card(hiper: Hiper, tiny_run: Path, tmp_path: Path):
    out = tmp_path / "evaluation"
    result = hiper("eval", tiny_run, "--episodes", 5, "--temperature", 0, "--seed", 3, "--out", out)
    assert result.code == 0
    card = json.loads((out / "held_out.json").read_text())
    assert card["panel"]["tasks"] == card["outcomes"]["all"]["episodes"] == 5
    assert len(card["panel"]["sha256"]) == 64
    assert card["sampling"] == {"temperature": 0.0, "max_tokens": 24, "choose": "anything"}
    assert (card["seed"], card["environment"]["name"], card["environment"]["version"]) == (3, "corridor", "1")
    assert card["template"].startswith("terse-")
    assert card["checkpoint"].endswith("checkpoints/iter-00002/policy")
    cards = tiny_run / "evaluations"
    trained, begun = (json.loads((cards / f"eval-0000{n}-held_out.json").read_text()) for n in (2, 0))
    assert card["weights_sha256"] == trained["weights_sha256"] != begun["weights_sha256"]
    assert card["command"].startswith("hiper eval")
    assert {"hiper", "seconds", "date", "history_window"} <= set(card)
    episodes = list(read_episodes(out / "held_out.jsonl.gz"))
    assert sum(episode.won for episode in episodes) == card["outcomes"]["all"]["won"]
    won = {episode.task_id: str(int(episode.won)) for episode in episodes}
    panel = make("corridor", split="held_out", cells=3, max_turns=6).panel.subset(5)
    assert card["outcomes"]["all"]["won_by_task"] == "".join(won[task.id] for task in panel)


def test_eval_says_why_turns_were_invalid(hiper: Hiper, tiny_run: Path, tmp_path: Path):
    """One token is too few for a response."""
    cut = hiper("eval", tiny_run, "--episodes", 3, "rollout.max_response_tokens=1", "--out", tmp_path / "cut")
    assert "invalid turns: cut off 100.0%" in cut.out
    outcome = json.loads((tmp_path / "cut" / "held_out.json").read_text())["outcomes"]["all"]
    assert outcome["invalid"] == {"cut_off": 1.0}


def test_eval_chooses_among_admissible_actions_and_training_does_not(hiper: Hiper, tiny_run: Path, tmp_path: Path):
    pytest.importorskip("llguidance")
    hot = ("--episodes", 8, "--temperature", 4)
    free = hiper("eval", tiny_run, *hot, "--out", tmp_path / "free")
    chosen = hiper("eval", tiny_run, *hot, "sampler.choose=admissible", "--out", tmp_path / "chosen")
    assert (free.code, chosen.code) == (0, 0)
    cards = [json.loads((tmp_path / name / "held_out.json").read_text()) for name in ("free", "chosen")]
    assert [card["sampling"]["choose"] for card in cards] == ["anything", "admissible"]
    assert sum(cards[0]["outcomes"]["all"]["invalid"].values()) > 0.5
    assert set(cards[1]["outcomes"]["all"]["invalid"]) <= {"cut_off"}
    refused = hiper("train", tiny_run / "config.yaml", "sampler.choose=admissible", "--dry-run")
    assert refused.code == 2
    assert "sampler.choose=admissible is for playing and evaluating" in refused.err


def test_an_interrupted_eval_says_what_is_missing(
    hiper: Hiper, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    step, steps = CorridorEnv.step, 0

    def interrupt(self: CorridorEnv, action: str) -> Step:
        nonlocal steps
        steps += 1
        if steps == 10:
            raise KeyboardInterrupt
        return step(self, action)

    monkeypatch.setattr(CorridorEnv, "step", interrupt)
    result = hiper("eval", tiny_run, "--out", tmp_path)
    assert result.code == 130
    assert "stopped: held_out was not finished" in result.out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)], ids=["INT", "TERM", "HUP"]
)
def test_a_stopped_evaluation_keeps_the_splits_that_are_done(
    hiper: Hiper, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, code: int
):
    """It stops at the next turn, although the signal comes twice. The same command plays what is left."""
    step, steps = CorridorEnv.step, 0

    def stopping(self: CorridorEnv, action: str) -> Step:
        nonlocal steps
        if "held_out" in self.panel.name:
            steps += 1
            if steps == 5:
                os.kill(os.getpid(), number)
                if number != signal.SIGINT:
                    os.kill(os.getpid(), number)
        return step(self, action)

    before = signal.signal(number, signal.SIG_DFL if number != signal.SIGINT else signal.default_int_handler)
    command = ("eval", tiny_run, "--episodes", 8, "evaluation.splits=[train,held_out]", "--out", tmp_path)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(CorridorEnv, "step", stopping)
            result = hiper(*command)
    finally:
        signal.signal(number, before)
    assert (result.code, steps) == (code, 5)
    assert "stopped: held_out was not finished, so none of its results are written" in result.out
    assert sorted(file.name for file in tmp_path.iterdir()) == ["train.json", "train.jsonl.gz"]
    assert "give the same command again for what is left" in result.out
    result = hiper(*command)
    assert result.code == 0
    assert "train is done already" in result.out
    assert (tmp_path / "held_out.json").exists()


def test_eval_gives_what_training_gave(hiper: Hiper, tiny_run: Path, tmp_path: Path):
    """The same weights, panel, seed and temperature: the evaluation after training, again."""
    card = json.loads((tiny_run / "evaluations" / "eval-00002-held_out.json").read_text())
    assert hiper("eval", tiny_run, "--seed", card["seed"], "--out", tmp_path).code == 0
    assert json.loads((tmp_path / "held_out.json").read_text())["outcomes"] == card["outcomes"]


def test_eval_of_a_checkpoint_on_another_split_and_environment(hiper: Hiper, tiny_run: Path, tmp_path: Path):
    checkpoint = tiny_run / "checkpoints" / "iter-00001"
    assert hiper("eval", checkpoint, "--split", "train", "--episodes", 2, "--out", tmp_path).code == 0
    assert (tmp_path / "train.json").exists()
    elsewhere = ["--env", "alfworld", "env.data=generated", "env.games=2", "env.size=tiny", "env.max_turns=2"]
    roomy = ["prompt.max_tokens=400"]
    assert hiper("eval", checkpoint, *elsewhere, *roomy, "--split", "valid_seen", "--out", tmp_path).code == 0
    assert json.loads((tmp_path / "valid_seen.json").read_text())["environment"]["name"] == "alfworld"


@pytest.fixture
def plain_model(tiny_run: Path, tmp_path: Path) -> Path:
    """The folder of a model as Hugging Face knows it: without settings, template and checksums of this project."""
    folder = shutil.copytree(tiny_run / "checkpoints" / "iter-00002" / "policy", tmp_path / "plain")
    for file in ("hiper.yaml", "template.yaml", "SHA256SUMS"):
        (folder / file).unlink()
    return folder


def test_eval_of_a_plain_model(hiper: Hiper, tiny_run: Path, plain_model: Path, tmp_path: Path):
    """Under the policy's settings it plays as the policy does."""
    same = ["env.cells=3", "env.max_turns=6", "prompt.template=terse", "prompt.max_tokens=90"]
    same += ["rollout.max_response_tokens=24", "rollout.slots=4", "training.threads=1", "--split", "held_out"]
    result = hiper("eval", plain_model, "--env", "corridor", *same, "--out", tmp_path / "out")
    assert result.code == 0
    card = json.loads((tmp_path / "out" / "held_out.json").read_text())
    trained = json.loads((tiny_run / "evaluations" / "eval-00002-held_out.json").read_text())
    for key in ("weights_sha256", "environment", "panel", "template", "sampling"):
        assert card[key] == trained[key]
    assert card["checkpoint"] == str(plain_model)
    assert len(list(read_episodes(tmp_path / "out" / "held_out.jsonl.gz"))) == card["panel"]["tasks"]
    by_eye = ("--agent", plain_model, "--auto", "--split", "held_out")
    refused(hiper("play", "corridor", *by_eye, "cells=3"), "512 positions")
    roomy = ("cells=3", "prompt.max_tokens=90", "rollout.max_response_tokens=24")
    refused(hiper("play", "corridor", *by_eye, *roomy), "no chat template", "such as terse")
    assert "turn 1 of " in hiper("play", "corridor", *by_eye, *roomy, "prompt.template=terse").out


def test_a_plain_model_needs_an_environment(hiper: Hiper, plain_model: Path, tmp_path: Path):
    refused(hiper("eval", plain_model), plain_model, "plain model", "--env alfworld")
    refused(hiper("eval", "Qwen/Qwen2.5-0.5B-Instruct"), "plain model", "--env")
    refused(hiper("eval", tmp_path / "none", "--env", "corridor"), "neither a run", "nor a folder or a name")
    refused(hiper("eval", plain_model, "--env", "corridor", "learner.lr=1"), "learner.lr has no effect")


def test_a_dry_run_shows_settings_that_can_be_run(hiper: Hiper, tiny_recipe: Path, tmp_path: Path):
    out = tmp_path / "run"
    result = hiper("train", tiny_recipe, "seed=3", "--out", out, "--dry-run")
    assert result.code == 0
    assert not out.exists()
    (tmp_path / "shown.yaml").write_text(result.out)
    assert load_config(tmp_path / "shown.yaml") == load_config(tiny_recipe, ["seed=3"])
    for part in (f"# writes to {out}, which is new", "40,320 parameters", "512 positions", "# tasks, held_out: 13 of"):
        assert part in result.out
    refused(hiper("train", tiny_recipe, "prompt.max_tokens=600", "--out", out, "--dry-run"), "512 positions")
    refused(hiper("train", tiny_recipe, "env.cels=3", "--out", out, "--dry-run"), "no option 'cels'")
    assert not out.exists()


def test_the_outlined_model_is_the_model_that_is_built(hiper: Hiper, tiny_recipe: Path, tiny_run: Path):
    model = f"model.path={tiny_run / 'warm-start'}"
    for critic, heads in (("shared", 0), ("own", 40_320)):
        said = hiper("train", tiny_recipe, model, f"model.critic={critic}", "--out", "none", "--dry-run").out
        policy, added = re.findall(r"([\d,]+) parameters, critic ([\d,]+) more", said)[0]
        assert policy == "40,320"
        config = load_config(tiny_recipe, [model, f"model.critic={critic}"])
        built = add_critic(load_policy(tiny_run / "warm-start", config.model), config.model)
        assert sum(p.numel() for p in built.parameters()) == 40_320 + int(added.replace(",", ""))
        assert int(added.replace(",", "")) >= heads


def test_a_dry_run_tells_what_is_there_already(hiper: Hiper, tiny_recipe: Path, run_folder: Path, tmp_path: Path):
    refused(hiper("train", tiny_recipe, "--out", run_folder, "--dry-run"), "there is a run in", "--resume")
    assert "nothing is left to do" in hiper("train", "--resume", run_folder, "--dry-run").out
    shutil.rmtree(run_folder / "checkpoints" / "iter-00002")
    before = sorted(run_folder.rglob("*"))
    assert "from iter-00001, of 2 iterations" in hiper("train", "--resume", run_folder, "--dry-run").out
    assert sorted(run_folder.rglob("*")) == before
    cloned = tmp_path / "cloned"
    assert f"writes to {cloned}, which is new" in hiper("sft", tiny_recipe, "--out", cloned, "--dry-run").out
    unfinished_file(cloned).touch()
    assert f"continues the warm start in {cloned}" in hiper("sft", tiny_recipe, "--out", cloned, "--dry-run").out
    assert not cloned.exists()


def test_paths_may_begin_at_home(hiper: Hiper, tiny_recipe: Path, run_folder: Path, monkeypatch: pytest.MonkeyPatch):
    """Everywhere a path is given: the shell expands ~ only at the beginning of a word."""
    home = run_folder.parent
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    shutil.copy(tiny_recipe, home / "mine.yaml")
    (home / "mine-too.yaml").write_text("extends: ~/base.yaml\nname: mine\nversion: 1\n")
    shutil.copy(run_folder / "checkpoints" / "iter-00002" / "policy" / "template.yaml", home / "base.yaml")
    assert hiper("report", "~/run").code == 0
    assert hiper("credit", "~/run", "--out", "~/credit").code == 0
    assert (home / "credit" / "credit.json").exists()
    assert hiper("eval", "~/run", "--episodes", 1, "--out", "~/card").code == 0
    assert (home / "card" / "held_out.json").exists()
    model = "model.path=~/run/warm-start"
    given = ("~/mine.yaml", model, "prompt.template=~/mine-too.yaml", "training.iterations=0", "warm_start.tasks=0")
    assert hiper("train", *given, "--out", "~/new").code == 0
    assert (home / "new" / "config.yaml").exists()
    assert hiper("train", "--resume", "~/new").code == 0
    assert hiper("play", "corridor", "--agent", "~/run", "--auto").code == 0
    refused(hiper("train", "~nobody-at-all/mine.yaml"), "neither a shipped recipe nor a YAML file")
    assert not Path("~").exists()


def test_sft_saves_a_policy_that_eval_and_train_read(hiper: Hiper, tiny_recipe: Path, tmp_path: Path):
    cloned = tmp_path / "cloned"
    result = hiper("sft", tiny_recipe, "warm_start.epochs=2", "--out", cloned)
    assert result.code == 0
    assert f"hiper eval {cloned}" in result.out
    assert hiper("eval", cloned, "--episodes", 2, "--out", tmp_path / "evaluation").code == 0
    settings = [f"model.path={cloned}", "warm_start.tasks=0", "training.iterations=0"]
    assert hiper("train", tiny_recipe, *settings, "--out", tmp_path / "run").code == 0
    refused(hiper("sft", tiny_recipe, "--out", cloned), cloned, "exists already", "warm_start.epochs=2")
    weights = (cloned / "model.safetensors").stat().st_mtime_ns
    (tmp_path / "cloned.unfinished").touch()  # as a kill right after the last save leaves it
    again = hiper("sft", tiny_recipe, "warm_start.epochs=2", "training.iterations=7", "--out", cloned)
    assert again.code == 0
    assert "is done already" in again.out
    assert f"hiper eval {cloned}" in again.out
    assert (cloned / "model.safetensors").stat().st_mtime_ns == weights
    assert not (tmp_path / "cloned.unfinished").exists()
    refused(hiper("sft", tiny_recipe, "--out", tmp_path), tmp_path, "exists already")
    refused(hiper("sft", tiny_recipe, "warm_start.tasks=0", "--out", tmp_path / "new"), "warm_start.tasks is 0")


def test_numbers_are_words_where_actions_are_free(hiper: Hiper, monkeypatch: pytest.MonkeyPatch):
    """Where none are listed, a number means itself."""
    monkeypatch.setattr(CorridorEnv, "_observe", lambda *_: Observation("Say a number."))
    result = hiper("play", "corridor", "cells=3", stdin="42\nq\n")
    assert "there are actions" not in result.out
    assert "42" in result.out


def test_play_by_hand(hiper: Hiper):
    task = "corridor/train/unlocked-5cells-start1-key3-door2"
    result = hiper("play", "corridor", "--task", task, stdin="9\n: find the door\n2\n\nopen door\n")
    assert result.code == 0
    for part in (task, "1 go left", "there are actions 1 to 2", "SWITCH  find the door", "KEEP", "won after 2 turns"):
        assert part in result.out
    assert re.search(r"turn 1 of (\d+) > (.|\n)*turn 2 of \1  KEEP  find the door\n> open door", result.out)


def test_a_typo_costs_no_turn(hiper: Hiper):
    """Actions like it are offered; only what is meant as it is said is played."""
    task = "corridor/train/unlocked-5cells-start1-key3-door2"
    result = hiper("play", "corridor", "--task", task, stdin="open\ngo rihgt\ndance\n! dance\ngo right\nopen door\n")
    assert result.code == 0
    said = result.out
    assert "'go rihgt' is no action here, and no turn was spent\n  2 go right" in said
    assert "'open' is no action here" in said
    assert "> dance  [not possible here]" in said
    assert "won after 3 turns" in said
    assert len(re.findall(r"turn 1 of \d+ > ", said)) == 4


def test_what_a_player_gets_wrong_is_said_and_what_it_came_to(hiper: Hiper):
    shop = ("webshop", "data=generated", "products=24", "--seed", 3)
    result = hiper(
        "play", *shop, stdin="dress shirts\n! click[buy now\nsearch[dress shirts]\n3\nbuy now\nclick[buy now]\n"
    )
    assert result.code == 0
    assert "'dress shirts' is no action here, and no turn was spent\n    search[dress shirts]" in result.out
    assert result.out.count("[not possible here]") == 1
    assert re.search(r"'buy now' is no action here, and no turn was spent\n +\d+ click\[buy now\]", result.out)
    assert re.search(r"lost after 4 turns\nscore 0\.\d{3}: type \d\.\d\d, attributes .*, options ", result.out)


@pytest.mark.parametrize(
    "world",
    [("webshop", "data=generated"), ("alfworld", "data=generated", "size=tiny", "games=3"), ("boxes",), ("corridor",)],
)
def test_a_game_fits_80_columns(hiper: Hiper, monkeypatch: pytest.MonkeyPatch, world: tuple[str, ...]):
    monkeypatch.setenv("COLUMNS", "80")
    played = hiper("play", *world, "--agent", "expert", "--auto").out
    by_hand = hiper("play", *world, stdin="1\nshoes for my grandmother who likes red ones\n2\n3\n1\n4\n2\n").out
    for said in (played, by_hand):
        assert max(len(line) for line in said.splitlines() if "/train/" not in line) <= 80  # ids stay whole
        assert re.search(r"turn 1 of \d+  (SWITCH|KEEP)", said)


def test_the_shop_is_laid_out_for_people(hiper: Hiper, monkeypatch: pytest.MonkeyPatch):
    """A line for each product, with its price and its title, and for each option; nothing of the original's marks."""
    monkeypatch.setenv("COLUMNS", "80")
    said = hiper("play", "webshop", "data=generated", stdin="search[dress shirts]\n3\nq\n").out
    assert "[SEP]" not in said
    assert re.search(r"Results, page 1: \d+ products found\n", said)
    found = re.findall(r"^ *\d+ click\[(b0\w+)\]  \$\d+\.\d\d  \w.+$", said, re.MULTILINE)
    assert len(found) == 10
    assert re.search(rf"\nProduct {found[0].upper()}, \$\d+\.\d\d\n\w.+\n• \w+: \w+", said)
    played = hiper("play", "webshop", "data=generated", "--agent", "expert", "--auto").out
    assert re.search(r"^  click\[b0\w+\]  \$\d+\.\d\d  \w", played, re.MULTILINE)
    assert "You bought" in played


@pytest.mark.parametrize("stdin", ["q\n", "2\n"])
def test_leaving_a_game(hiper: Hiper, stdin: str):
    result = hiper("play", "corridor", stdin=stdin)
    assert result.code == 0
    assert "quit after" in result.out


def test_the_expert_plays(hiper: Hiper):
    result = hiper("play", "corridor", "--agent", "expert", "--auto")
    assert "SWITCH  find the" in result.out
    assert "won after" in result.out
    waiting = hiper("play", "corridor", "--agent", "expert", stdin="\n" * 20)
    assert "won after" in waiting.out


def test_a_checkpoint_plays_where_it_was_trained(hiper: Hiper, tiny_run: Path):
    result = hiper("play", "corridor", "--agent", tiny_run, "--auto", "--seed", 1)
    assert result.code == 0
    assert "corridor-3/held_out" in result.out
    assert any(end in result.out for end in ("won after", "lost after", "out of turns after"))


# --- What users get wrong ---------------------------------------------------------------------------------------------


def test_train_needs_one_thing_to_do(hiper: Hiper, tmp_path: Path):
    refused(hiper("train"), "--resume")
    refused(hiper("train", "quickstart", "--resume", tmp_path), "--resume")
    refused(hiper("train", "--resume", tmp_path, "--out", tmp_path), "leave out --out")
    refused(hiper("train", "learner.lr=1", "seed=2", "--resume", tmp_path), "leave out learner.lr=1 seed=2")


def test_a_place_that_cannot_be_written_to(hiper: Hiper, tiny_recipe: Path):
    for command in ("train", "sft"):
        result = hiper(command, tiny_recipe, "--out", "/proc/run")
        refused(result, "cannot write /proc/run", "choose another folder")


def test_an_evaluation_is_not_written_over_another(hiper: Hiper, tiny_run: Path, tmp_path: Path):
    assert hiper("eval", tiny_run, "--episodes", 2, "--out", tmp_path).code == 0
    refused(hiper("eval", tiny_run, "--episodes", 3, "--out", tmp_path), "held_out.json", "choose another folder")
    refused(hiper("eval", tiny_run, "cells=4"), "settings: unknown key 'cells'", "env.cells")


@pytest.mark.parametrize("command", ["train", "sft"])
def test_recipes_and_settings_are_checked_first(hiper: Hiper, command: str, tmp_path: Path):
    refused(hiper(command, "quikstart"), "'quikstart'", "did you mean 'quickstart'")
    refused(hiper(command, tmp_path / "none.yaml"), "neither a shipped recipe nor a YAML file")
    out = tmp_path / "run"
    refused(
        hiper(command, "quickstart", "learner.clop=0.1", "--out", out), "learner.clop", "did you mean 'learner.clip'"
    )
    refused(hiper(command, "quickstart", "learner.clip=high", "--out", out), "learner.clip", "number", "'high'")
    refused(hiper(command, "quickstart", "training.iterations=-1", "--out", out), "training.iterations", "-1")
    refused(hiper(command, "quickstart", "learner.clip", "--out", out), "dotted.key=value")
    assert not out.exists()


@pytest.mark.parametrize(
    ("setting", "parts"),
    [
        ("env.name=my_envs:Echo", ["'my_envs:Echo' cannot be imported", "my_envs"]),
        ("env.name=coridor", ["there is no environment 'coridor'", "did you mean 'corridor'"]),
        ("env.cels=4", ["no option 'cels'", "did you mean 'cells'"]),
        ("env.cells=many", ["option 'cells'", "a whole number", "'many'"]),
        ("env.train_split=practice", ["no split 'practice'", "train, held_out"]),
        ("prompt.template=fancy", ["'fancy' is neither a shipped template", "terse"]),
        ("model.path=/no/such/model", ["/no/such/model"]),
        ("training.device=abacus", ["training.device=abacus"]),
    ],
)
def test_a_run_that_cannot_begin_leaves_nothing(
    hiper: Hiper, tiny_recipe: Path, tmp_path: Path, setting: str, parts: list[str]
):
    refused(hiper("train", tiny_recipe, setting, "--out", tmp_path / "run"), *parts)
    assert not (tmp_path / "run").exists()


def test_games_that_are_missing_empty_or_broken(hiper: Hiper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path / "nowhere"))
    refused(hiper("tasks", "alfworld"), tmp_path / "nowhere", "alfworld-download", "ALFWORLD_DATA")
    refused(hiper("tasks", "alfworld", f"data={tmp_path / 'gone'}"), tmp_path / "gone", "no such file or folder")
    refused(hiper("tasks", "alfworld", f"data={tmp_path}"), tmp_path, "no split 'train'")
    (tmp_path / "train").mkdir()
    refused(hiper("tasks", "alfworld", f"data={tmp_path}"), tmp_path, "holds no playable game")
    split = tmp_path / "generated-tiny" / "train"
    (split / "pick_and_place_simple-Mug-None-Shelf-1").mkdir(parents=True)
    refused(hiper("tasks", "alfworld", f"data={split}"), "looks like a split itself", f"'{split.parent}'")
    (tmp_path / "games.tar").write_bytes(b"no archive")
    refused(hiper("tasks", "alfworld", f"data={tmp_path / 'games.tar'}"), tmp_path / "games.tar", "tar archive")


@pytest.mark.parametrize("text", ["", "{half", "[]", '{"pddl_problem": "(define"}'])
def test_a_broken_game_is_named(hiper: Hiper, tmp_path: Path, text: str):
    game = generate_game("train", 0, "tiny")
    file = tmp_path / game.task_id / "game.tw-pddl"
    file.parent.mkdir(parents=True)
    file.write_text(text or game.text[:2000])
    refused(hiper("play", "alfworld", f"data={tmp_path / 'generated-tiny'}", "--agent", "expert", "--auto"), file)


def test_games_marked_unsolvable_are_not_played(hiper: Hiper, tmp_path: Path):
    game = generate_game("train", 0, "tiny")
    file = tmp_path / game.task_id / "game.tw-pddl"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(json.loads(game.text) | {"solvable": False}))
    result = hiper("tasks", "alfworld", f"data={tmp_path / 'generated-tiny'}")
    refused(result, tmp_path, "holds no playable game (1 are marked unsolvable or unsupported)")


def test_a_prompt_longer_than_allowed(hiper: Hiper, tiny_recipe: Path, tmp_path: Path):
    begin = ("train", tiny_recipe, "prompt.max_tokens=20", "prompt.history_window=1", "--out")
    result = hiper(*begin, tmp_path / "a", "prompt.overflow=drop_history")
    refused(result, "turn 1 of 'fetch the key", "the prompt has 28 tokens, 20 are allowed", "prompt.max_tokens")
    small = ("warm_start.tasks=4", "warm_start.epochs=1", "training.iterations=1", "rollout.episodes=4")
    assert hiper(*begin, tmp_path / "b", "prompt.overflow=shorten", *small).code == 0
    records = map(json.loads, (tmp_path / "b" / "metrics.jsonl").read_text().splitlines())
    assert [record["prompt/cut"] for record in records if "prompt/cut" in record] == [1.0]  # counted: all of them were


def test_an_existing_run_is_not_overwritten(hiper: Hiper, tiny_recipe: Path, run_folder: Path):
    result = hiper("train", tiny_recipe, "--out", run_folder)
    refused(result, run_folder, f"hiper train --resume {run_folder}", "--out")


@pytest.mark.parametrize(
    "arguments", [("train", "--resume", "{}"), ("report", "{}"), ("eval", "{}"), ("play", "corridor", "--agent", "{}")]
)
def test_a_folder_that_is_no_run(hiper: Hiper, tmp_path: Path, arguments: tuple[str, ...]):
    refused(hiper(*(argument.format(tmp_path) for argument in arguments)), tmp_path)


def test_unknown_tasks_splits_environments_and_counts(hiper: Hiper, tiny_run: Path, tmp_path: Path):
    refused(hiper("play", "corridor", "--task", "corridor/train/nowhere"), "no task 'corridor/train/nowhere'", "panel")
    refused(hiper("play", "coridor"), "did you mean 'corridor'")
    refused(hiper("tasks", "corridor", "--split", "test"), "no split 'test'")
    refused(hiper("eval", tiny_run, "--split", "test", "--out", tmp_path), "no split 'test'")
    refused(hiper("eval", tiny_run, "--episodes", 10_000, "--out", tmp_path), "10000 episodes were asked for")
    refused(hiper("eval", tiny_run, "--temperature", "-1"), "--temperature")


def test_damaged_weights_are_named(hiper: Hiper, run_folder: Path, tmp_path: Path):
    weights = run_folder / "checkpoints" / "iter-00002" / "policy" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    refused(hiper("eval", run_folder, "--out", tmp_path / "e"), weights.parent)


def test_weights_of_another_architecture_are_named(hiper: Hiper, run_folder: Path, tmp_path: Path):
    policy = run_folder / "checkpoints" / "iter-00002" / "policy"
    config = json.loads((policy / "config.json").read_text())
    for change in ({"num_hidden_layers": 3}, {"hidden_size": 32}, {"model_type": "no such type"}):
        (policy / "config.json").write_text(json.dumps(config | change))
        refused(hiper("eval", run_folder, "--out", tmp_path / "e"), policy)
    assert not (tmp_path / "e").exists()


@pytest.mark.parametrize("file", ["heads.safetensors", "trainer.pt"])
def test_a_damaged_checkpoint_is_named(hiper: Hiper, run_folder: Path, file: str):
    checkpoint = run_folder / "checkpoints" / "iter-00002"
    (run_folder / "evaluations" / "eval-00002-held_out.json").unlink()
    (checkpoint / file).write_bytes((checkpoint / file).read_bytes()[:100])
    refused(hiper("train", "--resume", run_folder), checkpoint, "damaged")
    (checkpoint / file).unlink()
    refused(hiper("train", "--resume", run_folder), checkpoint)


def test_a_critic_of_another_architecture_is_named(hiper: Hiper, run_folder: Path):
    checkpoint = run_folder / "checkpoints" / "iter-00002"
    (run_folder / "evaluations" / "eval-00002-held_out.json").unlink()
    heads = load_file(checkpoint / "heads.safetensors")
    save_file({name: torch.zeros(2, 2) for name in heads}, checkpoint / "heads.safetensors")
    seal(checkpoint)
    refused(hiper("train", "--resume", run_folder), checkpoint, "another architecture")


def test_a_damaged_settings_file_is_named(hiper: Hiper, run_folder: Path):
    (run_folder / "config.yaml").write_text("learner: {clop: 3}")
    refused(hiper("train", "--resume", run_folder), run_folder / "config.yaml", "learner.clop")
    (run_folder / "config.yaml").write_text("learner: [")
    refused(hiper("report", run_folder), run_folder / "config.yaml")


def test_a_place_that_cannot_be_written(hiper: Hiper, tiny_recipe: Path, tmp_path: Path):
    (tmp_path / "file").touch()
    refused(hiper("train", tiny_recipe, "--out", tmp_path / "file" / "run"), "cannot write", tmp_path / "file")


def test_a_full_disk_ends_a_run_with_its_checkpoint_intact(
    hiper: Hiper, tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out = tmp_path / "run"
    saved: list[Path] = []

    def save_once(tensors: dict[str, torch.Tensor], path: Path) -> None:
        if saved:
            raise OSError(errno.ENOSPC, "No space left on device")
        saved.append(path)
        save_file(tensors, path)

    with monkeypatch.context() as full:
        full.setattr("hiper.learner.checkpoint.save_file", save_once)
        result = hiper("train", tiny_recipe, "warm_start.epochs=1", "--out", out)
    refused(result, out / "checkpoints" / "iter-00001", "No space left", f"hiper train --resume {out}")
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["iter-00000"]
    assert hiper("train", "--resume", out).code == 0
    assert (out / "checkpoints" / "iter-00002").exists()


def test_an_interrupted_run_says_how_to_go_on_and_does(hiper: Hiper, tiny_recipe: Path, tmp_path: Path):
    out = tmp_path / "run"

    def interrupt() -> None:
        while not (out / "checkpoints" / "iter-00001").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    settings = ("warm_start.epochs=1", "evaluation.every=0", "training.checkpoint_every=1")
    Thread(target=interrupt, daemon=True).start()
    result = hiper("train", tiny_recipe, *settings, "training.iterations=500", "--out", out)
    assert result.code == 130
    assert "stopping at the next safe point" in result.out
    assert f"hiper train --resume {out}" in result.out
    done = max(int(path.name.removeprefix("iter-")) for path in (out / "checkpoints").iterdir())
    shorter = (out / "config.yaml").read_text().replace("iterations: 500", f"iterations: {done + 1}")
    (out / "config.yaml").write_text(shorter)
    result = hiper("train", "--resume", out)
    assert result.code == 0
    assert f"continuing from {out / 'checkpoints'}/iter-{done:05d}" in result.out
    assert (out / "evaluations" / f"eval-{done + 1:05d}-held_out.json").exists()


def test_exit_codes_reach_the_shell():
    command = [sys.executable, "-m", "hiper", "train", "quikstart"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("hiper: 'quikstart' is neither")
    assert len(ended.stderr.splitlines()) == 1


# --- Results become files whole, the figure last, and it is said where they are ---------------------------------------


def write(folder: Path, value: float, document: str | None = None) -> tuple[list[str], str]:
    """The files that were there when the figure was drawn, and what was said."""
    screen = StringIO()
    before: list[str] = []

    def draw(path: Path) -> None:
        before.extend(sorted(file.name for file in folder.iterdir()))
        path.write_bytes(b"figure")

    write_results(folder, "x", Display(console=Console(file=screen, width=200)), {"é": value}, draw, document)
    return before, screen.getvalue()


def test_the_figure_comes_last(tmp_path: Path):
    before, said = write(tmp_path, 0.5, "# x\n")
    assert before == ["x.json", "x.md"]
    assert json.loads((tmp_path / "x.json").read_text()) == {"é": 0.5}
    assert (tmp_path / "x.md").read_text() == "# x\n"
    assert (tmp_path / "x.png").read_bytes() == b"figure"
    assert said.strip() == f"written: {tmp_path / 'x'}.md, .json, .png"


def test_there_may_be_no_document(tmp_path: Path):
    before, said = write(tmp_path, 0.5)
    assert before == ["x.json"]
    assert said.strip() == f"written: {tmp_path / 'x'}.json, .png"


def test_nan_is_never_written(tmp_path: Path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write(tmp_path, float("nan"))
    assert list(tmp_path.iterdir()) == []
