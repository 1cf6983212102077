"""Every command of the pages is run as it is printed, or stands here with the reason why it is not.

``SHORT`` names what is appended to a command so that it ends in seconds. Nothing else of it is changed: a shell splits
it into words, and later words override earlier ones.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from hiper import cli
from hiper.config import load_config
from hiper.study.definition import study_names

ROOT = Path(__file__).parents[2]
PAGES = (
    *("README.md", "CONTRIBUTING.md", "results/README.md"),
    *(
        str(page.relative_to(ROOT))
        for folder in ("docs", "docs/how-to")
        for page in sorted((ROOT / folder).glob("*.md"))
    ),
)
COMMAND = re.compile(r"(\w+=\S+ )*(hiper|make|pip|python|pytest|tar|torchrun) ")
PLACEHOLDER = re.compile(r"\b(RECIPE|RUN|POLICY|ENV|STUDY)\b|\[")
Hiper = Callable[..., Any]

TRAIN = (
    "env.games=16 env.max_turns=12 warm_start.tasks=2 warm_start.epochs=1 warm_start.imperfect.epochs=0 "
    "rollout.episodes=8 rollout.max_response_tokens=16 training.iterations=1 evaluation.final_tasks=2 "
    "evaluation.every=0"
)
COURIER = (
    "warm_start.tasks=20 warm_start.turns=200 warm_start.imperfect.turns=100 rollout.episodes=8 "
    "training.iterations=1 evaluation.final_tasks=4"
)

SHORT: dict[str, str] = {
    "hiper train quickstart seed=1 learner.lr=1e-4": TRAIN,
    "hiper train quickstart advantages='{type: turn-gae, gamma: 0.95, bootstrap_truncated: true}' "
    "--out runs/ppo-turn": TRAIN,
    "hiper train quickstart advantages='{type: gigpo}' rollout.group_size=8 learner.critic_warmup_iterations=0 "
    "--out runs/gigpo": TRAIN,
    "hiper train quickstart advantages='{type: grpo, scale: false}' rollout.group_size=8 rollout.dynamic_sampling=3 "
    "learner.critic_warmup_iterations=0 --out runs/grpo": f"{TRAIN} rollout.episodes=16 rollout.dynamic_sampling=1",
    "PYTHONPATH=. hiper train quickstart advantages='{type: my_credit:MonteCarlo, gamma: 0.9}' --out runs/mine": TRAIN,
    "hiper train quickstart rollout.group_size=8 --out runs/in-groups": f"{TRAIN} training.iterations=4",
    "PYTHONPATH=. hiper train boxes 'env={name: couriers:Courier}' name=courier warm_start.turns=10000": COURIER,
    "WANDB_MODE=offline hiper train quickstart 'training.trackers=[tensorboard,wandb]'": TRAIN,
    "hiper play alfworld data=generated size=tiny max_turns=20 --agent expert": "--auto",
    "hiper play webshop data=generated --agent expert": "--auto",
    "hiper play alfworld data=generated chores=2 --agent expert": "--auto",
    "hiper train quickstart seed=1 --dry-run": "--out runs/not-yet",
    "hiper tasks alfworld chores=3 --split valid_seen": "data=generated --split valid_unseen",
    "PYTHONPATH=. hiper play couriers:Courier --agent expert": "--auto",
    "hiper eval results/alfworld-nano/policy": "env.data=generated env.games=8 --episodes 2 --out cards/alfworld",
    "hiper train quickstart --out runs/first": TRAIN,
    "hiper train --resume runs/first": "",
    "hiper train quickstart warm_start.shipped=false": TRAIN,
    "hiper eval runs/quickstart-seed0 --episodes 100 --temperature 0": "--episodes 2 --out cards/greedy",
    "hiper play alfworld data=generated size=tiny max_turns=20 --agent runs/first": "--auto",
    "hiper play alfworld data=generated size=tiny max_turns=20 --agent runs/quickstart-seed0": "--auto",
    "hiper train quickstart prompt.template=mine.yaml --out runs/my-prompt": TRAIN,
    "hiper train quickstart --out runs/hiper-0": TRAIN,
    "hiper train quickstart advantages='{type: grpo}' rollout.group_size=8 learner.critic_warmup_iterations=0 "
    "name=grpo --out runs/grpo-0": TRAIN,
    "hiper study mine.yaml --dry-run": "",
    "PYTHONPATH=. hiper train quickstart training.trackers='[tensorboard, my_tracker:Csv]' --out runs/tracked": TRAIN,
    "hiper eval results/alfworld-nano/policy --seed 1": "env.data=generated env.games=8 --episodes 2 --out cards/again",
    "hiper train quickstart --dry-run": "env.games=16",
    "hiper eval results/webshop-nano/policy": "env.data=generated --episodes 2 --out cards/webshop",
    "hiper play alfworld --agent results/alfworld-nano/policy": "data=generated games=8 --auto",
    "hiper compare results/official-games/records.tar.xz --out /tmp/official-games": "--out official",
    "hiper compare results/horizon/records.tar.xz/env.boxes=6 --out /tmp/six-boxes": "--out six-boxes",
    "hiper compare results/ablations/records.tar.xz/runs/hiper-seed{0,1,2} --out /tmp/hiper-alone": "--out alone",
}
"""What is appended to a command."""

LEFT_OUT: dict[str, str] = {
    "pip install 'hiper[viewer]'": "installs over the network; `make test` has what it installs",
    "hiper view runs/quickstart-seed0 --export page.html --episodes iter-00003/17,eval-00014-valid_unseen/0": (
        "a run of four minutes; tests/viewer/test_command.py exports pages"
    ),
    "make quickstart": "four minutes",
    "make test": "these are the tests",
    "make setup": "installs an environment over the network",
    "make check": "checks that stand beside the tests in .ci/run",
    "make docs": "tests/docs/test_website.py builds the site",
    "make reference": "writes into the repository; another test compares what it would write",
    "hiper eval Qwen/Qwen2.5-0.5B-Instruct --env alfworld env.data=generated env.size=tiny --episodes 20": "the hub",
    "hiper eval Qwen/Qwen2.5-0.5B-Instruct --env alfworld prompt.template=alfworld/chat sampler.choose=admissible": (
        "the hub"
    ),
    "hiper eval ~/models/base --env webshop prompt.template=webshop/terse rollout.slots=16 --split test "
    "--temperature 0.7": "a model of the reader's own",
    "hiper train quickstart --processes 2 --launcher ray": "half a minute; tests/launch/test_ray.py runs the like",
    "make fuzz": "minutes; `make test` does a part of it",
    "hiper train alfworld-nano env.chores=3 env.max_turns=null": "hours, on official games",
    "hiper train alfworld-qwen2.5-1.5b env.data=generated --dry-run > mine.yaml": "reads a model's config from the hub",
    "pip install .": "installs over the network; `make test-wheel` does it",
    "hiper train alfworld-qwen2.5-1.5b model.path=Qwen/Qwen3-1.7B "
    "prompt.chat_template_args='{enable_thinking: false}' --out runs/qwen3": "a GPU, and a model from the hub",
    "hiper train alfworld-qwen2.5-1.5b model.path=Qwen/Qwen3-1.7B prompt.thinking='{credit: none}' "
    "rollout.max_response_tokens=2048 --out runs/qwen3-thinking": "a GPU, and a model from the hub",
    "PYTHONPATH=. hiper train alfworld-qwen2.5-1.5b 'env={name: couriers:Courier}' name=courier "
    "prompt.template=instruct evaluation.splits=[held_out]": "a GPU, and a model from the hub",
    "hiper eval runs/alfworld-nano-seed0 --split valid_unseen": "a run of an hour, on official games",
    "hiper train alfworld-nano env.data=/data/json_2.1.1.tar.xz": "an hour, on official games",
    "hiper data alfworld --get games": "downloads official games",
    "hiper data webshop --get small": "downloads official products",
    "hiper train alfworld-nano": "an hour, on official games",
    "hiper play alfworld data=generated size=tiny --agent Qwen/Qwen2.5-0.5B-Instruct": "the hub",
    "hiper study mine.yaml --jobs 2": "hours",
    "hiper train alfworld-qwen2.5-1.5b 'learner.lora={rank: 16, alpha: 32}' learner.lr=1e-5": "needs a GPU",
    "hiper train alfworld-qwen2.5-7b-lora": "needs a GPU",
    "hiper train alfworld-qwen2.5-7b --processes 8 learner.sharding=fsdp sampler.type=vllm": "needs eight GPUs",
    "hiper train quickstart --processes 2 learner.sharding=fsdp 'sampler={copy_weights: true}'": "minutes; "
    "tests/launch/test_sharded_runs.py trains so",
    "hiper train quickstart --processes 2": "tests/launch/test_together.py trains in two processes",
    "torchrun --nnodes 2 --nproc-per-node 4 --rdzv-backend c10d --rdzv-endpoint FIRST_MACHINE:29500 "
    "-m hiper train RECIPE --out /shared/run": "two machines",
    "hiper engine install": "installs 3.5 GB; `make test-engines` does it",
    "hiper train alfworld-nano sampler.type=vllm": "an engine; tests/rollout/samplers/test_engine.py trains with one",
    "hiper eval runs/alfworld-nano-seed0 sampler.type=vllm": "an engine, and a run of half an hour",
    "hiper study ablations --jobs 2 --threads 1": "many hours",
    "hiper study ablations --methods hiper,flat-credit --seeds 0,1": "hours",
    "hiper study mine.yaml learner.epochs=1 --out runs/mine": "a file of the reader's own",
}
"""Why a command is not run."""


def blocks(page: str, language: str = "") -> list[str]:
    """The fenced blocks of a page in a language."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [body for name, body in re.findall(r"^```(\w*)\n(.*?)^```", text, re.M | re.S) if name == language]


@cache
def commands(page: str) -> tuple[str, ...]:
    """The commands of a page, each on one line without its comment."""
    found = []
    for block in blocks(page):
        lines = re.sub(r" *\\\n *", " ", block).splitlines()
        found += [re.sub(r"\s+# .*", "", line) for line in lines if COMMAND.match(line)]
        if found and COMMAND.match(lines[0]) and not any(map(PLACEHOLDER.search, lines)):
            assert all(map(COMMAND.match, lines)), f"{page}: a block of commands holds something else: {block}"
    return tuple(found)


def words(command: str) -> list[str]:
    """The words of a command as bash reads them, without settings of its environment."""
    command = re.sub(r" > \S+$", "", command)
    script = f"for word in {command}; do printf '%s\\0' \"$word\"; done"
    told = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    found = told.stdout.split("\0")[:-1]
    while re.match(r"\w+=", found[0]):
        found.pop(0)
    return found


def is_synopsis(command: str) -> bool:
    """Whether a command has places to fill in."""
    return bool(PLACEHOLDER.search(re.sub(r"'[^']*'|\S+=\S+", "", re.split(" {3,}", command)[0])))


ALL = {command for page in PAGES for command in commands(page)}


def test_there_are_some():
    assert len(ALL) > 40
    assert {page for page in PAGES if commands(page)} >= {"README.md", "docs/credit.md", "results/README.md"}


def test_what_stands_here_stands_on_a_page():
    assert set(SHORT) | set(LEFT_OUT) <= ALL
    assert not set(SHORT) & set(LEFT_OUT)
    long = {
        command for command in ALL if re.search(r"\bhiper (train|sft|study) ", command) and not is_synopsis(command)
    }
    assert long <= set(SHORT) | set(LEFT_OUT), "shorten it, or say why it is left out"


@pytest.mark.parametrize("command", sorted(command for command in ALL - LEFT_OUT.keys() if is_synopsis(command)))
def test_a_synopsis_names_a_command_and_its_options(command: str, hiper: Hiper):
    name = command.split()[1]
    assert name in {info.name or info.callback.__name__ for info in cli.app.registered_commands if info.callback}
    shown = hiper(name, "--help").out
    for option in re.findall(r"--[\w-]+", command):
        assert option in shown, option


@pytest.mark.parametrize("command", sorted(command for command in LEFT_OUT if "hiper" in command or "make" in command))
def test_what_is_left_out_would_begin(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    program, *rest = words(command)
    if program == "make":
        subprocess.run(["make", "--dry-run", *rest], cwd=ROOT, check=True, capture_output=True)
    elif rest[0] == "train":
        monkeypatch.chdir(tmp_path)
        load_config(rest[1], [word for word in rest[2:] if "=" in word])
    elif rest[0] == "study":
        assert rest[1] in study_names() or rest[1].endswith(".yaml")


@pytest.mark.parametrize("page", [page for page in PAGES if set(commands(page)) - set(LEFT_OUT)])
def test_commands_run_as_they_are_printed(page: str, hiper: Hiper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """One after the other, in an empty folder with the page's first code in the files it names; then its other code."""
    (tmp_path / "results").symlink_to(ROOT / "results")
    (tmp_path / "home").mkdir()
    for variable in ("HOME", "ALFWORLD_DATA", "WEBSHOP_DATA"):
        monkeypatch.setenv(variable, str(tmp_path / "home"))
    codes = blocks(page, "python")
    for file in re.findall(r"`(\w+\.(?:py|yaml))`", (ROOT / page).read_text(encoding="utf-8")):
        if saved := blocks(page, "yaml") if file.endswith(".yaml") else codes:
            (tmp_path / file).write_text(saved.pop(0))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    for command in commands(page):
        if command in LEFT_OUT or is_synopsis(command):
            continue
        program, *rest = words(f"{command} {SHORT.get(command, '')}")
        for variable, value in re.findall(r"(\w+)=(\S+) ", command.partition(program)[0]):
            if variable != "PYTHONPATH":  # this process has its path already
                monkeypatch.setenv(variable, value)
        if program == "python":
            subprocess.run(
                [sys.executable, *rest], check=True, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
            )
            continue
        assert program == "hiper", command
        done = hiper(*rest, stdin="q\n")
        assert done.code == 0, f"{command}\n{done.out}\n{done.err}"
        for said in SAYS.get(command, ()):
            assert said in done.out + done.err, command
    if page == "README.md":
        return  # tests/test_readme.py runs its Python
    if "runs/quickstart-seed0" in "".join(codes):
        (tmp_path / "runs" / "quickstart-seed0").symlink_to(next((tmp_path / "runs").iterdir()))
    for code in codes:
        exec(code, {})


SAYS = {
    "PYTHONPATH=. hiper tasks couriers:Courier --split held_out": ("112 tasks",),
    "PYTHONPATH=. hiper play couriers:Courier --agent expert": ("won after",),
    "PYTHONPATH=. hiper train boxes 'env={name: couriers:Courier}' name=courier warm_start.turns=10000": (
        "held_out: ",
    ),
    "PYTHONPATH=. hiper credit runs/mine": ("MonteCarlo",),
    "hiper credit runs/in-groups --iteration 4": ("GiGPO",),
    "hiper compare results/official-games/records.tar.xz --out /tmp/official-games": ("91.9%", "78.8%"),
}
"""What a command says, by the page beside it."""
