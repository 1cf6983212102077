"""Definitions are read whole, or refused with what is wrong; those that ship are valid."""

from __future__ import annotations

from pathlib import Path

import pytest

from hiper.analysis.comparison.settings import differing, flat
from hiper.config import load_config
from hiper.errors import UserError
from hiper.study.definition import load_study, points_of, study_names, trials_of
from hiper.study.jobs import Job, jobs_of

STUDY = """\
name: mini
recipe: tiny.yaml
settings: {rollout.episodes: 8}
seeds: [4, 7]
methods:
  hiper: {}
  grpo:
    settings: {advantages: {type: grpo}, rollout.group_size: 2}
"""


ON_TRAIN = ", settings: {evaluation.splits: [train]}"


@pytest.fixture
def folder(tiny_recipe: Path, tmp_path: Path) -> Path:
    (tmp_path / "tiny.yaml").write_text(tiny_recipe.read_text())
    return tmp_path


def planned(folder: Path, text: str, threads: int | None = None) -> list[Job]:
    (folder / "mini.yaml").write_text(text)
    return jobs_of(load_study(str(folder / "mini.yaml")), folder / "out", threads)


def config_of(job: Job) -> object:
    """The settings that its command gives, read back from the command itself."""
    _, recipe, *settings, _, _ = job.command().arguments
    return load_config(recipe, settings)


def test_one_warm_start_per_seed_that_all_begin_from(folder: Path):
    jobs = planned(folder, STUDY)
    assert [job.name for job in jobs] == [
        *("warm-start-seed4", "hiper-seed4", "grpo-seed4"),
        *("warm-start-seed7", "hiper-seed7", "grpo-seed7"),
    ]
    warm, hiper, other = jobs[:3]
    assert warm.command().arguments[0] == "sft"
    assert warm.config.warm_start.tasks == 100
    assert hiper.needs == other.needs == warm
    for run in (hiper, other):
        assert run.command().arguments[0] == "train"
        assert run.config == config_of(run)
        assert run.config.model.path == str(warm.folder)
        assert (run.config.warm_start.tasks, run.config.seed, run.config.rollout.episodes) == (0, 4, 8)
    assert differing([flat(hiper.config), flat(jobs[4].config)]) == ["seed", "model.path"]
    assert (other.config.name, other.config.advantages.type) == ("grpo", "grpo")


def test_settings_of_the_command_line_are_of_every_run(folder: Path):
    (folder / "mini.yaml").write_text(STUDY)
    study = load_study(str(folder / "mini.yaml"), ["env.cells=4", "rollout.episodes=12"])
    for job in jobs_of(study, folder / "out"):
        assert (job.config.env.options["cells"], job.config.rollout.episodes) == (4, 12)
    with pytest.raises(UserError, match=r"'rollout' is not of the form"):
        load_study(str(folder / "mini.yaml"), ["rollout"])


@pytest.mark.parametrize("setting", ["seed=7", "name=other", "advantages.gamma=0.5"])
def test_settings_of_the_command_line_are_checked_like_the_files(folder: Path, setting: str):
    (folder / "mini.yaml").write_text(STUDY)
    with pytest.raises(UserError, match=f"'{setting.partition('=')[0]}'"):
        load_study(str(folder / "mini.yaml"), [setting])


def test_threads_are_of_every_process(folder: Path):
    jobs = planned(folder, STUDY, threads=3)
    assert {job.config.training.threads for job in jobs} == {job.command().threads for job in jobs} == {3}


def test_a_method_with_prompts_of_its_own_has_a_warm_start_of_its_own(folder: Path):
    own = """\
  flat:
    warm_start: own
    settings: {advantages: {type: turn-gae}, prompt.template: terse-act}
"""
    jobs = planned(folder, STUDY.partition("  grpo:")[0] + own)
    names = ["warm-start-seed4", "hiper-seed4", "warm-start-flat-seed4", "flat-seed4"]
    assert [job.name for job in jobs[:4]] == names
    assert jobs[3].needs is jobs[2]
    assert jobs[2].config.prompt.template == "terse-act"


FLAT = """\
  ppo:
    warm_start: flat
    settings: {advantages: {type: turn-gae}, prompt.template: terse-act}
  grpo:
    warm_start: flat
    settings: {advantages: {type: grpo}, rollout.group_size: 2, prompt.template: terse-act}
"""


def test_methods_that_name_a_warm_start_share_it(folder: Path):
    jobs = planned(folder, STUDY.partition("  grpo:")[0] + FLAT)
    names = ["warm-start-seed4", "hiper-seed4", "warm-start-flat-seed4", "ppo-seed4", "grpo-seed4"]
    assert [job.name for job in jobs[:5]] == names
    assert len(jobs) == 10
    warm, ppo, grpo = jobs[2:5]
    assert ppo.needs is grpo.needs is warm
    assert (warm.config.prompt.template, warm.config.seed) == ("terse-act", 4)
    assert ppo.config.model.path == grpo.config.model.path == str(warm.folder)
    assert grpo.config.warm_start.tasks == 0
    alone = load_study(str(folder / "mini.yaml"), methods=["grpo"])
    assert [job.folder for job in jobs_of(alone, folder / "out")][:2] == [warm.folder, grpo.folder]


def test_tuning_trials_share_a_warm_start_that_has_a_name(folder: Path):
    tuning = f"tuning: {{seeds: [9], grid: {{learner.lr: [1.0e-3, 2.0e-3]}}{ON_TRAIN}}}\nmethods:"
    (folder / "mini.yaml").write_text((STUDY.partition("  grpo:")[0] + FLAT).replace("methods:", tuning))
    study = load_study(str(folder / "mini.yaml"))
    assert study.tuning is not None
    jobs = jobs_of(trials_of(study, study.tuning), folder / "out")
    assert [job.name for job in jobs if job.warm_start] == ["warm-start-seed9", "warm-start-flat-seed9"]
    assert len(jobs) == 2 + 3 * 2


def test_a_named_warm_start_is_the_same_for_all(folder: Path):
    (folder / "mini.yaml").write_text(
        STUDY.partition("  grpo:")[0]
        + FLAT.replace("rollout.group_size: 2,", "rollout.group_size: 2, warm_start.epochs: 3,")
    )
    with pytest.raises(UserError, match=r"'grpo': warm_start.epochs: not as in the .* that method 'ppo' and others"):
        load_study(str(folder / "mini.yaml"))


@pytest.mark.parametrize(
    ("written", "meant"),
    [("shred", "did you mean 'shared'"), ("owm", "did you mean 'own'"), ("flt", "did you mean 'flat'")],
)
def test_a_warm_start_that_one_method_alone_names_is_refused(folder: Path, written: str, meant: str):
    alone = f"  gigpo: {{warm_start: {written}, settings: {{prompt.template: terse-act}}}}\n"
    (folder / "mini.yaml").write_text(STUDY.partition("  grpo:")[0] + FLAT + alone)
    with pytest.raises(UserError, match=f"'gigpo': no other method has 'warm_start: {written}'; {meant}"):
        load_study(str(folder / "mini.yaml"))


def test_without_a_warm_start_runs_begin_as_their_recipe_says(folder: Path):
    jobs = planned(folder, STUDY.replace("rollout.episodes: 8", "warm_start.tasks: 0").partition("  grpo:")[0])
    assert [job.name for job in jobs] == ["hiper-seed4", "hiper-seed7"]
    assert jobs[0].config.model.path is None


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("recipe: tiny.yaml", "recipe: quickstrat", "did you mean 'quickstart'?"),
        ("rollout.group_size", "rollout.group_sise", "method 'grpo': .*did you mean 'rollout.group_size'?"),
        ("rollout.group_size: 2", "learner.lr: 1", "method 'grpo': .*set rollout.group_size to 2 or more"),
        ("seeds", "sedes", "unknown key 'sedes'; did you mean 'seeds'?"),
        ("hiper: {}", "hiper: {setings: {}}", "unknown key 'methods.hiper.setings'; did you mean 'settings'?"),
        ("[4, 7]", "[4, 4]", "seeds: a seed is named twice"),
        ("[4, 7]", "[]", "seeds: "),
        ("name: mini", "name: mini/maxi", "name: "),
        ("rollout.episodes: 8", "seed: 8", "'seed' is no setting of a study"),
        ("rollout.group_size: 2", "name: x", "'name' is no setting of a study"),
        ("methods:", "tuning: {seeds: [4], grid: {learner.lr: [1]}}\nmethods:", "4 is a seed of the study itself"),
        ("methods:", "tuning: {seeds: [1, 1], grid: {learner.lr: [1]}}\nmethods:", "tuning.seeds: a seed is named tw"),
        ("methods:", "tuning: {seeds: [1], grid: {learner.lr: [1]}}\nmethods:", "held_out: tune on another split"),
        (
            "methods:",
            f"tuning: {{seeds: [1], grid: {{learner.clop: [1]}}{ON_TRAIN}}}\nmethods:",
            "did you mean 'learner.clip'",
        ),
        ("methods:", f"tuning: {{seeds: [1], grid: {{}}{ON_TRAIN}}}\nmethods:", "tuning.grid: "),
        ("methods:", "sweep: {setting: seed, values: [1, 2]}\nmethods:", "'seed' is no setting of a study"),
        ("methods:", "sweep: {setting: learner.lr, values: [1]}\nmethods:", "sweep.values: "),
        (
            "methods:",
            "sweep: {setting: rollout.group_size, values: [2, 4]}\nmethods:",
            "'grpo' sets 'rollout.group_size'",
        ),
        ("methods:", "sweep: {setting: learner.clop, values: [1, 2]}\nmethods:", "did you mean 'learner.clip'"),
        (
            "methods:",
            f"tuning: {{seeds: [1], grid: {{seed: [1]}}{ON_TRAIN}}}\nmethods:",
            "'seed' is no setting of a study",
        ),
        (
            "methods:",
            "tuning: {seeds: [1], grid: {learner.lr: [1]}, settings: {name: x}}\nmethods:",
            "'name' is no setting",
        ),
        ("methods:", "sweep: {setting: learner.lr, values: [0.5, 0.5]}\nmethods:", "two values are the same"),
        ("methods:", "sweep: {setting: env.name, values: [a/b, a_b]}\nmethods:", "two values are the same"),
        (
            "methods:",
            "sweep: {setting: rollout.episodes, values: [2, 4]}\nmethods:",
            "settings of all runs hold 'rollout.ep",
        ),
        (
            "methods:",
            f"tuning: {{seeds: [1], grid: {{rollout.episodes: [4]}}{ON_TRAIN}}}\nmethods:",
            "settings of all runs hold 'rollout.episodes', which tuning.grid varies",
        ),
        ("rollout.episodes: 8", "advantages.gamma: 0.5", "'advantages.gamma' would not reach method 'grpo'"),
        # A section and a setting in it, of which one would undo the other.
        (
            "methods:",
            "sweep: {setting: advantages.gamma, values: [0.9, 1.0]}\nmethods:",
            "'grpo' sets 'advantages' itself, while sweep.setting varies 'advantages.gamma'",
        ),
        (
            "methods:",
            "sweep: {setting: rollout, values: [a, b]}\nmethods:",
            "'grpo' sets 'rollout.group_size' itself, while sweep.setting varies 'rollout'",
        ),
        (
            "methods:",
            f"tuning: {{seeds: [1], grid: {{advantages.gamma: [0.9]}}{ON_TRAIN}}}\nmethods:",
            "'grpo' sets 'advantages' itself, while tuning.grid varies 'advantages.gamma'",
        ),
        (
            "methods:",
            f"tuning: {{seeds: [1], grid: {{rollout: [{{group_size: 4}}]}}{ON_TRAIN}}}\nmethods:",
            "'grpo' sets 'rollout.group_size' itself, while tuning.grid varies 'rollout'",
        ),
        (
            "grpo:\n    settings: {advantages: {type: grpo}, rollout.group_size: 2}",
            f"other: {{}}\ntuning: {{seeds: [1], grid: {{rollout: [{{slots: 4}}]}}{ON_TRAIN}}}",
            "settings of all runs hold 'rollout.episodes', which tuning.grid varies",
        ),
        (
            "methods:",
            "sweep: {setting: learner.lr, values: [1, 2]}\ntuning: {seeds: [1], grid: {learner.lr: [1]}}\nmethods:",
            "tuning.grid varies 'learner.lr', while sweep.setting varies 'learner.lr'",
        ),
        (
            "methods:",
            "tuning: {seeds: [1], grid: {learner.lr: [1]}, settings: {advantages.gamma: 0.5}}\nmethods:",
            "'advantages.gamma' would not reach method 'grpo', .* leave it out of tuning.settings",
        ),
        (
            "methods:",
            "tuning: {seeds: [1], grid: {learner: [{lr: 1}]}, settings: {learner.clip: 0.1}}\nmethods:",
            "tuning: its settings hold 'learner.clip', which its grid varies",
        ),
        # The tiny recipe reports success on held_out.
        (
            "rollout.episodes: 8",
            f"evaluation.splits_if_present: [train]}}\ntuning: {{seeds: [1], grid: {{learner.lr: [1]}}{ON_TRAIN}",
            "reports success on train: tune on another split",
        ),
        (
            "methods:",
            "tuning: {seeds: [1], grid: {learner.lr: [1]}, settings: {evaluation: {splits: [train], "
            "splits_if_present: [held_out]}}}\nmethods:",
            "reports success on held_out: tune on another split",
        ),
        ("hiper: {}", "hiper: {settings: {env.cells: 4}}", "env.cells: methods are compared on the same tasks"),
        ("hiper: {}", "hiper: {settings: {prompt.template: instruct}}", "method 'hiper': prompt.template: not as in"),
        ("hiper: {}", "hiper: {settings: {warm_start.epochs: 1}}", "warm_start.epochs: .*warm_start: own"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_begun(folder: Path, old: str, new: str, said: str):
    with pytest.raises(UserError, match=said):
        planned(folder, STUDY.replace(old, new))
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    ("own", "tuned"),
    [
        ("training.iterations: 20", "training.iterations: 6"),
        ("training.iterations: 20", "training: {iterations: 6}"),
        ("training: {iterations: 20}", "training: {iterations: 6}"),
    ],
)
def test_all_methods_are_tuned_with_as_much(folder: Path, own: str, tuned: str):
    settings = f"{{evaluation.splits: [train], {tuned}}}"
    tuning = f"tuning: {{seeds: [1], grid: {{learner.lr: [1, 2]}}, settings: {settings}}}\n"
    (folder / "mini.yaml").write_text(STUDY.replace("hiper: {}", f"hiper: {{settings: {{{own}}}}}") + tuning)
    study = load_study(str(folder / "mini.yaml"))
    assert study.tuning is not None
    trials = jobs_of(trials_of(study, study.tuning), folder / "out" / "tuning")
    assert [(job.name, job.config.training.iterations) for job in trials] == [
        ("warm-start-seed1", 6),
        *((f"{method}-trial{number}-seed1", 6) for method in ("hiper", "grpo") for number in (0, 1)),
    ]
    assert [job.config.learner.lr for job in trials[1:]] == [1, 2, 1, 2]
    runs = [job.config for job in jobs_of(study, folder / "out") if not job.warm_start]
    assert [run.training.iterations for run in runs if run.name == "hiper"] == [20, 20]


def test_other_seeds_and_some_of_the_methods(folder: Path):
    source = str(folder / "mini.yaml")
    tuning = f"tuning: {{seeds: [1], grid: {{learner.lr: [1]}}{ON_TRAIN}}}\n"
    (folder / "mini.yaml").write_text(STUDY + "  other: {}\n" + tuning)
    whole, part = load_study(source), load_study(source, seeds=["0", "7"], methods=["other", "hiper"])
    assert (part.seeds, list(part.methods)) == ((0, 7), ["hiper", "other"])  # whom others are compared with stays first
    assert load_study(source, methods=["grpo"]).seeds == whole.seeds
    assert whole.tuning is not None
    trials = jobs_of(trials_of(whole, whole.tuning), folder)
    assert all(job in trials for job in jobs_of(trials_of(part, whole.tuning), folder))
    assert all(job in jobs_of(whole, folder) for job in jobs_of(part, folder) if job.name.endswith("seed7"))
    with pytest.raises(UserError, match="study 'mini' has no method 'hipre'; did you mean 'hiper'"):
        load_study(source, methods=["grpo", "hipre"])
    with pytest.raises(UserError, match="1 is a seed of the study itself"):
        load_study(source, seeds=["0", "1"])
    with pytest.raises(UserError, match=r"mini\.yaml: seeds\.1: a whole number is needed \(given: 'one'\)$"):
        load_study(source, seeds=["0", "one"])
    with pytest.raises(UserError, match=r"'seeds' is no setting of a study's runs: .*--seeds"):
        load_study(source, ["seeds=[0]"])


def test_a_setting_for_all_runs_that_would_miss_a_method_is_refused(folder: Path):
    source = str(folder / "mini.yaml")
    (folder / "mini.yaml").write_text(STUDY)
    assert load_study(source, ["learner.lr=1"]).settings["learner.lr"] == 1
    message = r"'rollout\.group_size' would not reach method 'grpo', which sets 'rollout\.group_size' itself"
    with pytest.raises(UserError, match=message):
        load_study(source, ["rollout.group_size=4"])
    assert load_study(source, ["rollout.group_size=4"], methods=["hiper"]).settings["rollout.group_size"] == 4


def test_a_run_whose_settings_are_gone_is_not_taken_for_one_of_other_settings(folder: Path):
    job = planned(folder, STUDY)[1]
    job.folder.mkdir(parents=True)
    (job.folder / "config.yaml").write_text("")
    with pytest.raises(UserError, match=r"hiper-seed4/config\.yaml is empty or damaged"):
        job.check()


def test_an_unknown_study():
    with pytest.raises(UserError, match="did you mean 'generated-games'"):
        load_study("generated-game")


@pytest.mark.parametrize(
    ("name", "methods", "seeds"),
    [
        ("generated-games", 7, 5),
        ("official-games", 4, 3),
        ("ablations", 10, 5),
        ("horizon", 3, 10),
        ("credit", 6, 10),
        ("as-published", 5, 5),
    ],
)
def test_studies_that_ship(name: str, methods: int, seeds: int, tmp_path: Path):
    assert name in study_names()
    study = load_study(name)
    assert (study.name, len(study.methods), len(study.seeds)) == (name, methods, seeds)
    points = points_of(study)
    assert set(points) == {"horizon": {"1", "2", "4", "6"}}.get(name, {""})
    for point in points.values():
        _on_equal_terms(jobs_of(point, tmp_path), methods * seeds)


def _on_equal_terms(jobs: list[Job], count: int):
    runs = [job for job in jobs if not job.warm_start]
    assert len(runs) == count
    assert all(run.needs is not None and run.needs.config.seed == run.config.seed for run in runs)
    # Equal terms: as many episodes and updates for all.
    budgets = {
        (c.training.iterations, c.rollout.episodes, c.learner.epochs, c.learner.minibatch_turns, c.evaluation)
        for c in (run.config for run in runs)
    }
    assert len(budgets) == 1


def test_the_methods_of_the_study_on_generated_games(tmp_path: Path):
    runs = [job.config for job in jobs_of(load_study("generated-games"), tmp_path) if job.name.endswith("-seed0")]
    estimators = {c.name: c.advantages.type for c in runs if c.warm_start.tasks == 0}
    assert estimators == {
        "hiper": "hae",
        "hiper-value-gap": "hae",
        "ppo-turn": "turn-gae",
        "ppo-token": "token-gae",
        "grpo": "grpo",
        "rloo": "rloo",
        "gigpo": "gigpo",
    }
