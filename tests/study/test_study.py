"""A whole study on a corridor: what fails, what is interrupted, what is done, and how they compare."""

from __future__ import annotations

import json
import os
import re
import signal
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import StringIO
from pathlib import Path
from threading import Thread

import pytest
from rich.console import Console

from helpers.made import Ended, make_card, outcome
from hiper import cli
from hiper.commands import study as command
from hiper.commands.study import plan_study, run_study
from hiper.display.console import Display
from hiper.errors import UserError
from hiper.launch.local import Command, Launch, local_processes
from hiper.runs.folder import Evaluated, Run
from hiper.runs.records import pack
from hiper.study.definition import load_study, trials_of
from hiper.study.jobs import jobs_of
from hiper.study.tuning import choose_settings

STUDY = """\
name: mini
recipe: tiny.yaml
settings:
  warm_start.epochs: 2
  rollout.episodes: 4
  training.iterations: 1
  evaluation: {splits: [held_out], splits_if_present: [nowhere], every: 0, final_tasks: 6}
seeds: [0, 1]
methods:
  hiper: {}
  grpo:
    settings: {advantages: {type: grpo}, rollout.group_size: 2}
  broken:  # credit for plans, and prompts that ask for none: told when the parts are put together
    warm_start: own
    settings: {prompt.template: terse-act}
"""


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Jobs are done by the very commands, but in this process, to be fast. Gives the names of those begun."""
    begun = []

    def launch(job: Command, log: Path) -> Ended:
        begun.append(job.name)
        log.parent.mkdir(parents=True, exist_ok=True)
        try:
            cli.app(job.arguments, standalone_mode=False)
        except UserError as error:
            log.write_text(f"hiper: {error}\n")
            return Ended(2)
        return Ended(0)

    @contextmanager
    def none(folder: Path) -> Iterator[Launch]:
        yield launch

    monkeypatch.setattr(command, "local_processes", none)
    return begun


@pytest.fixture
def definition(tiny_recipe: Path, tmp_path: Path) -> Path:
    (tmp_path / "tiny.yaml").write_text(tiny_recipe.read_text())
    file = tmp_path / "mini.yaml"
    file.write_text(STUDY)
    return file


def shown(definition: Path, folder: Path) -> str:
    """What a study says."""
    out = StringIO()
    display = Display("hiper study mini.yaml", Console(file=out, width=160))
    try:
        run_study(load_study(str(definition)), folder, display)
    except UserError as error:
        out.write(f"refused: {error}")
    return out.getvalue()


def plan(definition: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What a dry run of a study says."""
    plan_study(load_study(str(definition)), folder, Display(console=Console(file=StringIO(), width=160)))
    return capsys.readouterr().out


def test_a_study(definition: Path, in_this_process: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = tmp_path / "out"
    planned = plan(definition, folder, capsys)
    assert f"# writes to {folder}, which is new" in planned
    assert "# study: 10 jobs, of which 0 are done already" in planned
    assert not folder.exists()
    (tmp_path / "planned.yaml").write_text(planned)
    assert load_study(str(tmp_path / "planned.yaml")) == load_study(str(definition))
    said = shown(definition, folder)
    good = [f"{name}-seed{seed}" for seed in (0, 1) for name in ("warm-start", "hiper", "grpo", "warm-start-broken")]
    assert in_this_process == good

    # What failed is told at the end, after what came of the rest.
    before, _, failures = said.partition("refused: ")
    assert failures.startswith("4 of 10 failed")
    for seed in (0, 1):
        assert f"warm-start-broken-seed{seed}: hiper: advantages.type 'hae' credits switches" in failures
        assert f"broken-seed{seed}: not begun, as warm-start-broken-seed{seed} failed" in failures
    assert "against hiper, on the same tasks and seeds" in before

    # Each run that is done says what it came to, and the time to go once a job of each kind has been done.
    success = Run.open(folder / "runs" / "hiper-seed0").evaluations()["held_out"][-1].overall.success
    assert re.search(rf"2/10 hiper-seed0 done in [\d.]+ s, held_out {success:.1%}; about \d.* to go\n", before)
    assert re.search(r"1/10 warm-start-seed0 done in [\d.]+ s; time to go unknown\n", before)
    tree = json.loads((folder / "comparison.json").read_text())
    assert [(r["method"], r["seeds"]) for r in tree["results"]["held_out"]] == [("hiper", [0, 1]), ("grpo", [0, 1])]
    assert (folder / "comparison.png").exists()

    # All runs of a seed began from the same policy.
    cards = {
        name: json.loads(Run.open(folder / "runs" / name).card(0, "held_out").read_text())["weights_sha256"]
        for name in ("hiper-seed0", "grpo-seed0", "hiper-seed1", "grpo-seed1")
    }
    assert cards["hiper-seed0"] == cards["grpo-seed0"] != cards["hiper-seed1"] == cards["grpo-seed1"]

    # The same command tries again what failed, and leaves alone what is done; a method may be dropped or added.
    in_this_process.clear()
    definition.write_text(
        STUDY.partition("  broken:")[0] + "  rloo: {settings: {advantages: {type: rloo}, rollout.group_size: 2}}\n"
    )
    planned = plan(definition, folder, capsys)
    for part in ("study: 8 jobs, of which 6 are done already", "rloo-seed0 begins", "rloo-seed1 begins"):
        assert part in planned
    assert "hiper-seed0 begins" not in planned
    assert in_this_process == []
    again = shown(definition, folder)
    assert "refused" not in again
    assert "8/8 rloo-seed1 done in " in again
    assert in_this_process == ["rloo-seed0", "rloo-seed1"]

    # What is there is not taken for what it is not, and the definition beside it stays the one it was made under.
    in_this_process.clear()
    kept = (folder / "study.yaml").read_text()
    definition.write_text(definition.read_text().replace("rollout.episodes: 4", "rollout.episodes: 6"))
    said = shown(definition, folder)
    assert "runs/hiper-seed0 was made under other settings (rollout.episodes)" in said
    definition.write_text(definition.read_text().replace("warm_start.epochs: 2", "warm_start.epochs: 3"))
    assert "warm-starts/seed0 was made under other settings (warm_start.epochs)" in shown(definition, folder)
    assert in_this_process == []
    assert (folder / "study.yaml").read_text() == kept


def test_a_part_of_a_study_is_completed_in_the_same_folder(
    definition: Path, in_this_process: list[str], tmp_path: Path
):
    folder = tmp_path / "out"
    definition.write_text(STUDY.partition("  broken:")[0])
    study = ["study", str(definition), "--out", str(folder)]
    cli.app([*study, "--seeds", "3", "--methods", "grpo"], standalone_mode=False)
    assert in_this_process == ["warm-start-seed3", "grpo-seed3"]
    in_this_process.clear()
    cli.app([*study, "--seeds", "3,1"], standalone_mode=False)
    assert in_this_process == ["hiper-seed3", "warm-start-seed1", "hiper-seed1", "grpo-seed1"]
    tree = json.loads((folder / "comparison.json").read_text())
    assert [(r["method"], r["seeds"]) for r in tree["results"]["held_out"]] == [("hiper", [1, 3]), ("grpo", [1, 3])]


def test_unpacked_records_are_continued_with_further_seeds(
    definition: Path, in_this_process: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    made, folder = tmp_path / "made", tmp_path / "out"
    definition.write_text(STUDY.partition("  broken:")[0])
    study = ["study", str(definition), "--out"]
    cli.app([*study, str(made), "--seeds", "0"], standalone_mode=False)
    runs = [Run.open(made / "runs" / f"{name}-seed0") for name in ("hiper", "grpo")]
    pack(runs, made, tmp_path / "records.tar.xz")
    with tarfile.open(tmp_path / "records.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    # The warm start that their runs began from is not packed, and not needed.
    capsys.readouterr()
    cli.app([*study, str(folder), "--seeds", "0", "--dry-run"], standalone_mode=False)
    assert "study: 3 jobs, of which 3 are done already" in capsys.readouterr().out
    in_this_process.clear()
    cli.app([*study, str(folder)], standalone_mode=False)
    assert in_this_process == ["warm-start-seed1", "hiper-seed1", "grpo-seed1"]
    tree = json.loads((folder / "comparison.json").read_text())
    assert [(r["method"], r["seeds"]) for r in tree["results"]["held_out"]] == [("hiper", [0, 1]), ("grpo", [0, 1])]

    # A record without the last card is made anew, and so is the warm start that it needs.
    Run.open(folder / "runs" / "grpo-seed0").card(1, "held_out").unlink()
    in_this_process.clear()
    cli.app([*study, str(folder)], standalone_mode=False)
    assert in_this_process == ["warm-start-seed0", "grpo-seed0"]
    assert Run.open(folder / "runs" / "grpo-seed0").finished


def test_each_method_is_studied_with_what_did_best_for_it(
    definition: Path, in_this_process: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = tmp_path / "out"
    tuning = """\
tuning:
  seeds: [8, 9]
  settings: {evaluation.splits: [train], evaluation.splits_if_present: [], training.iterations: 1}
  grid: {learner.lr: [1.0e-3, 2.0e-3], learner.clip: [0.1]}
"""
    definition.write_text(STUDY.partition("  broken:")[0].replace("[0, 1]", "[0]") + tuning)
    success = {("hiper", 0.002): 0.6, ("grpo", 0.001): 0.5, ("grpo", 0.002): 0.5}

    evaluations = Run.evaluations

    def judged(run: Run) -> dict[str, list[Evaluated]]:
        if "tuning" not in run.path.parts:
            return evaluations(run)
        name, config = run.config.name.split("-")[0], run.config
        assert config.evaluation.splits == ("train",)
        last = evaluations(run)["train"][-1]
        told = success.get((name, config.learner.lr), 0.1)
        overall = replace(last.overall, success=told, interval=(0.0, 1.0))
        return {"train": [replace(last, card=replace(last.card, outcomes={"all": overall}))]}

    monkeypatch.setattr(Run, "evaluations", judged)
    said = shown(definition, folder)
    assert "refused" not in said
    trials = [f"{method}-trial{number}" for method in ("hiper", "grpo") for number in (0, 1)]
    seeds = [[f"warm-start-seed{seed}", *(f"{trial}-seed{seed}" for trial in trials)] for seed in (8, 9)]
    assert in_this_process == [*seeds[0], *seeds[1], "warm-start-seed0", "hiper-seed0", "grpo-seed0"]
    assert (
        "tuned      hiper: learner.lr=0.001 learner.clip=0.1 10.0%, learner.lr=0.002 learner.clip=0.1 60.0% (taken)"
        in said
    )
    runs = {name: Run.open(folder / "runs" / f"{name}-seed0").config for name in ("hiper", "grpo")}
    assert [(runs[name].learner.lr, runs[name].learner.clip) for name in runs] == [(0.002, 0.1), (0.001, 0.1)]
    assert runs["hiper"].evaluation.splits == ("held_out",)
    tree = json.loads((folder / "tuning" / "tuning.json").read_text())
    assert [trial["success"] for trial in tree["trials"]] == [0.1, 0.6, 0.5, 0.5]
    assert tree["taken"]["hiper"] == {"learner.lr": 0.002, "learner.clip": 0.1}

    # The same command leaves alone what is done.
    in_this_process.clear()
    assert "refused" not in shown(definition, folder)
    assert in_this_process == []

    # What else is set otherwise is told before anything is done, and the definition stays as it was.
    kept = (folder / "study.yaml").read_text()
    definition.write_text(definition.read_text().replace("  training.iterations: 1\n", "  training.iterations: 2\n"))
    said = shown(definition, folder)
    assert said.startswith("refused: ")
    assert "runs/hiper-seed0 was made under other settings (training.iterations)" in said
    assert (folder / "study.yaml").read_text() == kept


TUNING = """\
tuning:
  seeds: [8]
  settings: {evaluation.splits: [train], evaluation.splits_if_present: []}
"""


def test_a_trial_that_diverges_has_lost(definition: Path, in_this_process: list[str], tmp_path: Path):
    folder = tmp_path / "out"
    grid = "  grid: {learner.lr: [1.0e+30, 1.0e-3]}\n"
    definition.write_text(STUDY.partition("  grpo:")[0].replace("[0, 1]", "[0]") + TUNING + grid)
    said = shown(definition, folder)
    assert "refused" not in said
    assert "tuned      hiper: learner.lr=1e+30 0.0% (diverged), learner.lr=0.001 " in said
    assert Run.open(folder / "runs" / "hiper-seed0").config.learner.lr == 0.001
    trials = json.loads((folder / "tuning" / "tuning.json").read_text())["trials"]
    assert [trial["diverged"] for trial in trials] == [1, 0]

    # It would only diverge again.
    in_this_process.clear()
    assert "refused" not in shown(definition, folder)
    assert in_this_process == []


def test_a_method_that_cannot_be_tuned_leaves_the_others_alone(
    definition: Path, in_this_process: list[str], tmp_path: Path
):
    folder = tmp_path / "out"
    definition.write_text(STUDY.replace("[0, 1]", "[0]") + TUNING + "  grid: {learner.lr: [1.0e-3]}\n")
    before, _, failures = shown(definition, folder).partition("refused: ")
    assert failures.startswith("2 of 8 failed")
    assert "broken-trial0-seed8: not begun, as warm-start-broken-trial0-seed8 failed" in failures
    assert "note: broken is missing: it is not tuned yet" in before
    assert "against hiper, on the same tasks and seeds" in before
    assert "broken-seed0" not in in_this_process


def test_a_run_that_diverges_is_missing_and_the_reference_stays(
    definition: Path, in_this_process: list[str], tmp_path: Path
):
    """The first method's first seed fails, and yet the others are compared with it."""
    folder = tmp_path / "out"
    definition.write_text(STUDY.partition("  broken:")[0])
    study = ["study", str(definition), "--out", str(folder)]
    cli.app([*study, "--methods", "grpo"], standalone_mode=False)
    lr = Run.open(folder / "runs" / "grpo-seed0").config.learner.lr
    definition.write_text(definition.read_text().replace("hiper: {}", "hiper: {settings: {learner.lr: 1.0e+30}}"))
    with pytest.raises(UserError, match="hiper-seed0: hiper: the policy's probabilities are NaN"):
        cli.app([*study, "--methods", "hiper", "--seeds", "0"], standalone_mode=False)
    config = folder / "runs" / "hiper-seed0" / "config.yaml"
    config.write_text(config.read_text().replace("1.0e+30", str(lr)))
    definition.write_text(STUDY.partition("  broken:")[0])
    in_this_process.clear()

    before, _, failures = shown(definition, folder).partition("refused: ")
    assert in_this_process == ["hiper-seed1"]
    assert failures.startswith("1 of 6 failed")
    assert "note: hiper-seed0 is missing: the policy's probabilities are NaN" in before
    assert "note: methods differ in seeds (hiper: 1; grpo: 0, 1)" in before
    assert "against hiper, on the same tasks and seeds" in before


def test_a_sweep_is_the_study_at_each_value(definition: Path, in_this_process: list[str], tmp_path: Path):
    folder = tmp_path / "out"
    study = STUDY.partition("  broken:")[0].replace("[0, 1]", "[0]")
    definition.write_text(study + "sweep: {setting: env.cells, values: [3, 5]}\n")
    said = shown(definition, folder)
    assert "refused" not in said
    assert in_this_process == 2 * ["warm-start-seed0", "hiper-seed0", "grpo-seed0"]

    points = {cells: folder / f"env.cells={cells}" for cells in (3, 5)}
    assert all(Run.open(p / "runs" / "grpo-seed0").config.env.options["cells"] == c for c, p in points.items())
    tree = json.loads((folder / "sweep.json").read_text())
    assert tree["setting"] == "env.cells"
    for cells, point in points.items():
        results = json.loads((point / "comparison.json").read_text())["results"]["held_out"]
        assert tree["success"]["held_out"][str(cells)] == {
            r["method"]: {key: r[key] for key in ("before", "success", "interval")}
            | {"paired": r["paired"] and {key: r["paired"][key] for key in ("difference", "interval", "p")}}
            for r in results
        }
        assert tree["success"]["held_out"][str(cells)]["grpo"]["paired"] is not None
    assert (folder / "sweep.png").stat().st_size > 10_000
    document = (folder / "sweep.md").read_text()
    assert "](sweep.png)" in document
    for cells, of in tree["success"]["held_out"].items():
        assert f"| {cells} | {of['hiper']['before']:.1%} |" in document
    rows = [line for line in said.splitlines() if line.startswith("│ env.cells") or line.startswith(("│ 3 ", "│ 5 "))]
    assert len(rows) == 4
    for row, shown_row in zip((3, 5, 3, 5), rows, strict=True):
        assert shown_row.startswith(f"│ {row} ")
    of = tree["success"]["held_out"]
    assert all(f"{of[row.split()[1]]['hiper']['success']:.1%} [" in row for row in rows[:2])
    assert all(f"{100 * of[row.split()[1]]['grpo']['paired']['difference']:+.1f}" in row for row in rows[2:])

    # The same command leaves alone what is done, and a further value costs no more than itself.
    in_this_process.clear()
    definition.write_text(definition.read_text().replace("[3, 5]", "[3, 4, 5]"))
    assert "refused" not in shown(definition, folder)
    assert in_this_process == ["warm-start-seed0", "hiper-seed0", "grpo-seed0"]


def test_a_sweep_tells_where_something_failed(definition: Path, in_this_process: list[str], tmp_path: Path):
    definition.write_text(STUDY.replace("[0, 1]", "[0]") + "sweep: {setting: env.cells, values: [3, 5]}\n")
    before, _, failures = shown(definition, tmp_path / "out").partition("refused: ")
    assert failures.startswith("4 of 10 failed")
    assert "warm-start-broken-seed0 (env.cells=3): hiper: " in failures
    assert "broken-seed0 (env.cells=5): not begun" in failures
    assert "success before, and after" in before


@pytest.mark.slow
def test_a_study_in_processes_is_interrupted_and_continued(definition: Path, tmp_path: Path):
    folder, log = tmp_path / "out", tmp_path / "out" / "logs" / "hiper-seed3.log"
    alone = STUDY.partition("  grpo:")[0].replace("[0, 1]", "[3]")
    definition.write_text(alone.replace("training.iterations: 1", "training.iterations: 20"))
    out = StringIO()
    display = Display("hiper study mini.yaml", Console(file=out, width=160))

    def press_ctrl_c() -> None:
        until = time.monotonic() + 300
        while not (log.exists() and " 2/20 " in log.read_text()) and time.monotonic() < until:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    thread = Thread(target=press_ctrl_c)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        run_study(load_study(str(definition)), folder, display)
    thread.join()
    assert "Continue with:\n  hiper study mini.yaml\n" in out.getvalue()
    assert "interrupted; saved up to iter-000" in log.read_text()
    run = Run.open(folder / "runs" / "hiper-seed3")
    assert not run.finished
    assert not (folder / "comparison.json").exists()

    run_study(load_study(str(definition)), folder, display)
    assert run.finished
    assert "continuing from" in log.read_text()
    assert [r["iteration"] for r in run.metrics() if "policy/loss" in r] == list(range(1, 21))
    assert (folder / "comparison.json").exists()


def test_what_a_killed_study_left_running_keeps_others_out(tmp_path: Path):
    folder = tmp_path / "out"
    sleeper = Command("sleeper", ("train", "quickstart", "--out", str(folder / "sleeper")))
    with local_processes(folder) as launch:
        left_over = launch(sleeper, folder / "log")
    with pytest.raises(UserError, match="a process is at work in"), local_processes(folder):
        pass
    left_over.send_signal(signal.SIGKILL)
    while left_over.poll() is None:
        time.sleep(0.01)
    with local_processes(folder):
        pass


# --- What makes one trial better than another -------------------------------------------------------------------------


TUNED_STUDY = """\
name: mini
recipe: tiny.yaml
settings: {evaluation.splits: [test]}
seeds: [0]
methods:
  hiper: {}
tuning:
  seeds: [8, 9]
  settings: {evaluation.splits: [valid, easy]}
  grid: {learner.lr: [1.0e-3, 2.0e-3, 3.0e-3]}
"""
SUCCESS = {
    "valid": {("trial0", 8): 0.2, ("trial0", 9): 0.4, ("trial1", 8): 0.3, ("trial1", 9): 0.5},
    "easy": {("trial0", 8): 0.9, ("trial0", 9): 0.9},
}
"""After the last iteration; 0.1 where nothing is said."""


def test_success_after_training_on_the_first_split_named_over_all_seeds(tiny_recipe: Path, tmp_path: Path):
    (tmp_path / "tiny.yaml").write_text(tiny_recipe.read_text())
    (tmp_path / "mini.yaml").write_text(TUNED_STUDY)
    study = load_study(str(tmp_path / "mini.yaml"))
    assert study.tuning is not None
    for job in jobs_of(trials_of(study, study.tuning), tmp_path):
        if not job.warm_start:
            run = Run.create(job.folder, job.config)
            run.save_settings()
            for split, success in SUCCESS.items():
                after = success.get((run.config.name.removeprefix("hiper-"), run.config.seed), 0.1)
                put_card(run, 0, split, 1 - after)
                put_card(run, run.config.training.iterations, split, after)

    best = choose_settings(study, study.tuning, tmp_path, Display("", Console(file=StringIO())))
    assert best.methods["hiper"].settings == {"learner.lr": 0.002}


def put_card(run: Run, iteration: int, split: str, success: float) -> None:
    won = round(10 * success)
    card = make_card({"all": outcome("1" * won + "0" * (10 - won))})
    card.write(run.card(iteration, split))
