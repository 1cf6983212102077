"""Runs as far as they can be read, in the folder given and nowhere else."""

from __future__ import annotations

import gzip
import json
import math
import shutil
import time
from pathlib import Path

import pytest

from hiper.episode import read_episodes
from hiper.runs.folder import Run
from hiper.viewer.app import Library
from hiper.viewer.episodes import Lines, episode_json, prompt_json
from hiper.viewer.folder import Folder, NotFoundError
from hiper.viewer.index import Index, Worker
from hiper.viewer.indexing import COLUMNS, index_file
from hiper.viewer.reading import RunReader
from hiper.viewer.tokens import TokenTexts, find_token_texts, in_json


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_run, tmp_path / "runs" / "tiny")


def reader(run: Path) -> RunReader:
    return Library(run).run(run.name)


def indexed(index: Index) -> dict[str, object]:
    """The whole index, once it is complete."""
    for _ in range(400):
        answer: dict[str, object] = json.loads(index.answer(0))
        if answer["compared"] == answer["of"]:
            return answer
        time.sleep(0.05)
    raise AssertionError(answer)


def test_runs_are_found_below_the_folder(runs: Path):
    assert Folder(runs).runs() == ["study/tiny-seed1", "tiny-seed0"]
    assert Folder(runs / "tiny-seed0").runs() == ["tiny-seed0"]
    assert Folder(runs / "study").run_path("tiny-seed1") == runs / "study" / "tiny-seed1"


@pytest.mark.parametrize(
    "name",
    [
        "..", "../runs/tiny-seed0", "/etc", "nowhere", "", "tiny-seed0/../study/tiny-seed1", "a\0b",
        "tiny-seed0/", "./tiny-seed0", "x" * 5000,
    ],
)  # fmt: skip
def test_other_paths_are_no_runs(runs: Path, name: str):
    with pytest.raises(NotFoundError):
        Folder(runs).run_path(name)


def test_links_do_not_lead_out_of_the_folder(run: Path, tmp_path: Path):
    outside = shutil.copytree(run, tmp_path / "outside")
    folder = run.parent
    (folder / "linked").symlink_to(outside)
    (folder / "inside").symlink_to(run)
    assert Folder(folder).runs() == ["inside", "tiny"]
    with pytest.raises(NotFoundError):
        Folder(folder).run_path("linked")
    file = run / "episodes" / "iter-00001.jsonl.gz"
    for path in (file, run / "metrics.jsonl", run / "config.yaml", run / "evaluations" / "eval-00000-held_out.json"):
        path.unlink()
        path.symlink_to(outside / path.relative_to(run))
    read = reader(run)
    assert "iter-00001" not in [f.name for f in read.episode_files()]
    assert read.metrics() == ([], [])
    assert read.settings()[2] == ["config.yaml is missing"]
    assert [iteration for iteration, _, _ in read.evaluations()[0]] == [1, 2]


def test_a_summary_is_what_the_files_say(run: Path):
    told = reader(run).summary()
    metrics, card = Run.open(run).iteration_metrics(), Run.open(run).evaluations()["held_out"][-1].overall
    assert (told["state"], told["iteration"], told["iterations"]) == ("finished", 2, 2)
    assert told["success"] == metrics[-1]["success/all"]
    assert told["trend"] == [record["success/all"] for record in metrics]
    assert told["held_out"] == [
        {"split": "held_out", "iteration": 2, "success": card.success, "low": card.interval[0],
         "high": card.interval[1], "episodes": card.episodes}
    ]  # fmt: skip


def test_time_to_go_counts_iterations_and_evaluations(run: Path):
    shutil.rmtree(run / "checkpoints")
    settings = (run / "config.yaml").read_text().replace("  iterations: 2", "  iterations: 12")
    (run / "config.yaml").write_text(settings)
    records = [{"iteration": n, "success/all": 0.5, "time/iteration": 10.0 * n} for n in (1, 2)]
    records.append(
        {"iteration": 2, "eval/held_out/success": 0.5, "eval/held_out/turns": 3.0, "eval/held_out/seconds": 4.0}
    )
    (run / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    told = reader(run).summary()
    assert told["state"] == "training"
    # Ten iterations of 15 s, and an evaluation of 4 s after each of them and at the end.
    assert told["seconds_left"] == pytest.approx(10 * 15 + 11 * 4)


def test_damage_leaves_the_rest(run: Path):
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join([lines[0], "{broken\n", *lines[1:], '{"iteration": 3, "succ']))
    (run / "evaluations" / "eval-00001-held_out.json").write_text("{}")
    (run / "config.yaml").write_text("name: [")
    file = run / "episodes" / "iter-00001.jsonl.gz"
    text = gzip.decompress(file.read_bytes()).split(b"\n")
    file.write_bytes(gzip.compress(b"\n".join([*text[:3], b'{"version": 1}', *text[4:]])))
    (run / "episodes" / "iter-00002.jsonl.gz").write_bytes(
        (run / "episodes" / "iter-00002.jsonl.gz").read_bytes()[:-200]
    )
    read = reader(run)
    told = read.summary()
    assert told["iteration"] == 2
    assert any("line 2" in note for note in told["notes"])
    assert any("eval-00001" in note for note in told["notes"])
    assert any("config.yaml" in note for note in told["notes"])
    assert not any(str(run.parent) in note for note in told["notes"])  # where it lies is nobody's business in exports
    assert [iteration for iteration, _, _ in read.evaluations()[0]] == [0, 2]
    listed = index_file(None, read.episode_file("iter-00001"))
    assert [row[0] for row in listed["rows"]] == [0, 1, 2, *range(4, 16)]
    assert "episode 3 cannot be read" in listed["note"]
    lines_of = Lines()
    assert lines_of.episode(read.episode_file("iter-00001"), 4).turns
    with pytest.raises(NotFoundError, match="damaged"):
        lines_of.episode(read.episode_file("iter-00001"), 3)
    with pytest.raises(NotFoundError, match="readable"):
        lines_of.episode(read.episode_file("iter-00001"), 99)
    cut = index_file(None, read.episode_file("iter-00002"))
    assert 0 < len(cut["rows"]) < 16
    assert "its end is missing" in cut["note"]


def test_rewards_that_are_no_numbers_leave_the_rest(run: Path):
    file = run / "episodes" / "iter-00002.jsonl.gz"
    records = [json.loads(line) for line in gzip.decompress(file.read_bytes()).splitlines()]
    for number, reward in ((0, math.nan), (1, math.inf), (2, -math.inf)):
        records[number]["turns"][0]["reward"] = reward
    records[3]["turns"] = []
    file.write_bytes(gzip.compress("".join(json.dumps(record) + "\n" for record in records).encode()))
    library = Library(run)
    read = library.run(run.name).episode_file("iter-00002")
    listed = json.loads(in_json(index_file(Run.open(run).config, read)))
    rows = [dict(zip(COLUMNS, row, strict=True)) for row in listed["rows"]]
    assert [row["n"] for row in rows] == list(range(16))
    assert [row["return"] is None for row in rows] == [True] * 3 + [False] * 13
    assert [row["apart"] is None for row in rows] == [True] * 4 + [False] * 12
    assert listed["note"] is None
    assert json.loads(in_json(library.episode(run.name, "iter-00002", 0)))["turns"][0]["reward"] is None
    for number in range(4):
        with pytest.raises(NotFoundError, match="no credit"):
            library.credit_of(run.name, "iter-00002", number, {})
    assert "decisions" in library.credit_of(run.name, "iter-00002", 4, {})["estimators"][0]


def test_what_cannot_be_read_is_noted(run: Path):
    (run / "metrics.jsonl").unlink()
    (run / "metrics.jsonl").mkdir()
    assert reader(run).metrics() == ([], ["metrics.jsonl cannot be read: Is a directory"])


def test_a_link_in_a_ring_hides_no_run(run: Path):
    (run.parent / "a-ring").symlink_to("a-ring")
    (run.parent / "nowhere").symlink_to("/nonexistent/place")
    (run / "metrics.jsonl").unlink()
    (run / "metrics.jsonl").symlink_to("metrics.jsonl")
    assert [told["id"] for told in Library(run.parent).runs()["runs"]] == ["tiny"]


def test_a_run_deleted_meanwhile_is_left_out(run: Path, monkeypatch: pytest.MonkeyPatch):
    library = Library(run.parent)
    monkeypatch.setattr(Folder, "runs", lambda _: ["deleted", "tiny"])
    assert [told["id"] for told in library.runs()["runs"]] == ["tiny"]
    assert list(library.stamps(None)) == ["tiny"]
    assert library.stamps("deleted") == {}


def test_the_index_has_a_row_for_every_episode(run: Path):
    worker = Worker()
    read = reader(run)
    try:
        answer = indexed(Index(read, worker))
        again = indexed(Index(read, worker))  # from the cache
    finally:
        worker.close()
    files = {file["name"]: file for file in answer["files"]}  # type: ignore[attr-defined]
    assert files.keys() == {f.name for f in read.episode_files()}
    assert {f["name"]: f["rows"] for f in again["files"]} == {name: f["rows"] for name, f in files.items()}  # type: ignore[attr-defined]
    for n, episode in enumerate(read_episodes(run / "episodes" / "iter-00002.jsonl.gz")):
        row = dict(zip(COLUMNS, files["iter-00002"]["rows"][n], strict=True))
        assert (row["n"], row["task_id"], row["won"], row["turns"]) == (
            n,
            episode.task_id,
            episode.won,
            len(episode.turns),
        )
        assert row["seed"] == str(episode.seed)
        assert row["invalid"] == sum(t.invalid is not None for t in episode.turns)
        assert row["switches"] == sum(t.boundary for t in episode.turns) - 1
        assert 0 <= row["apart"] <= 1
        assert 0 <= row["apart_turn"] < len(episode.turns)


def test_the_index_follows_a_run_that_grows(run: Path, tmp_path: Path):
    late = run / "episodes" / "iter-00002.jsonl.gz"
    kept = late.read_bytes()
    late.unlink()
    worker = Worker()
    index = Index(reader(run), worker)
    try:
        before = indexed(index)
        late.write_bytes(kept)
        after = indexed(index)
        new = json.loads(index.answer(before["sequence"]))  # type: ignore[arg-type]
    finally:
        worker.close()
    assert len(after["files"]) == len(before["files"]) + 1  # type: ignore[arg-type]
    assert [file["name"] for file in new["files"]] == ["iter-00002"]


def test_a_worker_that_ends_is_started_again(run: Path):
    worker = Worker()
    read = reader(run)
    file = read.episode_file("iter-00001")
    try:
        first = worker.read(run, file, True)
        assert worker._process is not None
        worker._process.kill()
        worker._process.wait()
        assert worker.read(run, file, True) == first
    finally:
        worker.close()


def test_tokens_are_the_response(run: Path):
    texts = find_token_texts(run / "checkpoints" / "iter-00002" / "policy")
    assert isinstance(texts, TokenTexts)
    episode = next(read_episodes(run / "episodes" / "iter-00002.jsonl.gz"))
    shown = episode_json(episode, texts)
    for turn, told in zip(episode.turns, shown["turns"], strict=True):
        assert len(told["tokens"]) == len(turn.response_ids)
        assert "".join(told["tokens"]).removesuffix(" <eos>") == turn.text
        assert len(told["series"]["logprob/token"]) == len(turn.response_ids)
        assert len(told["series"]["entropy/token"]) == len(turn.response_ids)
        assert min(told["series"]["entropy/token"]) >= 0
    prompt = prompt_json(episode.turns[0], texts)
    assert len(prompt["tokens"]) == len(episode.turns[0].prompt_ids)
    assert episode.goal.split()[0] in "".join(prompt["tokens"])


def test_without_a_tokenizer_tokens_are_numbers(run: Path):
    episode = next(read_episodes(run / "episodes" / "iter-00002.jsonl.gz"))
    shown = episode_json(episode, None)
    assert shown["decoded"] is False
    assert shown["turns"][0]["tokens"] == [f"{i} " for i in episode.turns[0].response_ids]
