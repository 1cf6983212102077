from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hiper.envs import EndReason, Observation, check_env, make
from hiper.envs.webshop import env as env_module
from hiper.envs.webshop import sources
from hiper.envs.webshop.catalogue import ProductReader
from hiper.envs.webshop.env import SEARCH, WebshopEnv
from hiper.envs.webshop.generate import write_files
from hiper.envs.webshop.product import Instruction
from hiper.envs.webshop.shop import Shop
from hiper.envs.webshop.sources import open_shop
from hiper.errors import UserError


@pytest.fixture(scope="module")
def shop(make_product) -> Shop:
    """Every goal, in whatever split, is a red mug in one of its sizes."""
    ask = (Instruction("Find me soft mugs", ("soft",)),)
    mugs = [
        make_product(f"B00000000{number}", attributes=("soft",), instructions=ask, options={"size": tuple("abc")})
        for number in range(5)
    ]
    return Shop.of("mugs", [*mugs, make_product("B0000LAMP", title="Lamp", options={"size": ("[a]", "A", "", "b\nc")})])


@pytest.fixture
def begin(shop) -> Callable[..., WebshopEnv]:
    def begun(**options) -> WebshopEnv:
        env = WebshopEnv(shop, **options)
        env.reset(env.panel.tasks[0].id)
        return env

    return begun


def wanted(env: WebshopEnv) -> tuple[str, str]:
    """The product and the size that the task asks for."""
    goal = env._goal
    ((_, size),) = goal.options
    return f"click[{goal.product.asin}]", f"click[{size}]"


def test_the_contract_is_kept(shop, generated_shop) -> None:
    check_env(WebshopEnv(shop, "test"))
    check_env(WebshopEnv(generated_shop), tasks=10)


def test_the_contract_is_kept_by_the_official_shop(official_shop) -> None:
    check_env(WebshopEnv(official_shop, "validation"), tasks=10)


def test_a_perfect_purchase_pays(begin) -> None:
    env = begin()
    product, size = wanted(env)
    for action in ("search[mugs]", product, size):
        step = env.step(action)
        assert (step.reward, step.terminated, step.truncated, step.info.score) == (0.0, False, False, 0.0)
        assert step.info.end is None
    step = env.step("click[buy now]")
    assert (step.reward, step.terminated, step.truncated) == (10.0, True, False)
    assert (step.info.won, step.info.end, step.info.score) == (True, EndReason.WON, 1.0)
    assert step.info.parts == {"type": 1.0, "attributes": 1.0, "price": 1.0, "options": 1.0}
    with pytest.raises(RuntimeError, match="call reset first"):
        env.step("search[mugs]")


def test_any_other_purchase_ends_without_reward_but_with_a_score(begin) -> None:
    env = begin(reward=3.0)
    for action in ("search[mugs]", wanted(env)[0]):
        env.step(action)
    step = env.step("click[buy now]")
    assert (step.reward, step.terminated, step.info.won, step.info.end) == (0.0, True, False, EndReason.LOST)
    assert step.info.score == pytest.approx(2 / 3)
    env.reset(env.panel.tasks[0].id)
    for action in ("search[mugs]", *wanted(env)):
        env.step(action)
    assert env.step("click[buy now]").reward == 3.0


def test_time_runs_out(begin) -> None:
    env = begin(max_turns=2)
    env.step("search[mugs]")
    step = env.step("click[nonsense]")
    assert (step.terminated, step.truncated, step.info.end, step.info.score) == (False, True, EndReason.TURN_LIMIT, 0.0)
    with pytest.raises(RuntimeError, match="call reset first"):
        env.step("click[back to search]")


def test_fifteen_turns_unless_told_otherwise(begin) -> None:
    assert begin().max_turns == 15
    with pytest.raises(UserError, match="max_turns is 0"):
        begin(max_turns=0)


def test_what_can_be_done_is_listed(begin) -> None:
    env = begin()
    assert env.reset(env.panel.tasks[0].id).observation.admissible == (SEARCH,)
    found = env.step("search[lamp]").observation
    assert found.admissible == ("click[back to search]", "click[next >]", "click[b0000lamp]")
    item = env.step("click[B0000LAMP]").observation
    assert item.admissible is not None
    # Of the lamp's sizes, "[a]", "" and "b\nc" cannot be named in a click, and "A" is understood as "a".
    assert [action for action in item.admissible if "size" in action or len(action) < 10] == []
    assert item.admissible[-1] == "click[buy now]"


@pytest.mark.parametrize(
    ("action", "accepted"),
    [
        ("search[anything]", True),
        ("click[back to search]", True),
        ("click[Buy Now] please", True),
        *((odd, False) for odd in ("search[]", "SEARCH[x]", "click[B0ZZZZZZZZ]", "click[buy now", "buy now", "")),
    ],
)
def test_what_counts_as_understood(begin, action: str, accepted: bool) -> None:
    seen = Observation("", ("click[back to search]", "click[buy now]"))
    assert begin().accepts(action, seen) == accepted


@pytest.mark.parametrize("odd", ["", "SEARCH[mugs]", "click[buy now", "search[]", "click[B0ZZZZZZZZ]", "click[search]"])
def test_what_is_not_understood_costs_a_turn_and_changes_nothing(begin, odd: str) -> None:
    env = begin()
    before = env.step("search[mugs]")
    after = env.step(odd)
    assert after.observation == before.observation
    assert not env.accepts(odd, before.observation)


def test_the_instruction_need_not_be_repeated(shop) -> None:
    env = WebshopEnv(shop, repeat_instruction=False)
    start = env.reset(env.panel.tasks[0].id)
    assert start.goal.startswith("Find me soft mugs with size: ")
    assert start.observation.text == "WebShop [SEP] Search"
    assert env.step("search[lamp]").observation.text.startswith("Back to Search [SEP] Page 1 (Total results: 1)")


def test_panels(shop, generated_shop) -> None:
    env = WebshopEnv(shop, "train")
    assert env.panel.name == "mugs/train"
    assert env.panel.tasks[0].id.startswith("mugs/train/0000")
    assert env.panel.types() == ["garden"]
    assert env.official is None
    assert WebshopEnv(shop, "train", nouns="words").panel.hash == env.panel.hash
    first = WebshopEnv(generated_shop, tasks=7)
    assert [task.id for task in first.panel] == [task.id for task in WebshopEnv(generated_shop).panel][:7]
    with pytest.raises(UserError, match="no task 'mugs/train/9'"):
        env.reset("mugs/train/9")


def test_other_contents_make_other_panels(make_product) -> None:
    """What else is sold, too: it competes in every search."""
    ask = (Instruction("Find me soft mugs", ("soft",)),)
    mug = make_product(instructions=ask, options={"size": tuple("abcde")})
    alone, beside = (Shop.of("mugs", products) for products in ([mug], [mug, make_product("B2")]))
    assert WebshopEnv(alone).panel.tasks[0].id == WebshopEnv(beside).panel.tasks[0].id
    assert WebshopEnv(alone).panel.hash != WebshopEnv(beside).panel.hash


def test_official_panels_are_frozen(official_shop) -> None:
    for split, count in (("test", 500), ("validation", 999), ("train", 5408)):
        env = WebshopEnv(official_shop, split, nouns="words")
        assert len(env.panel) == count
        assert env.official is True
        assert WebshopEnv(official_shop, split, nouns="words", tasks=count - 1).official is False
        # The same tasks, but what the reward looks at is shown.
        assert WebshopEnv(official_shop.showing_attributes(), split, nouns="words").official is False


def test_recorded_episodes(official_shop, recorded) -> None:
    """Through the environment: texts, what is listed, rewards and scores."""
    envs = [WebshopEnv(official_shop, split, max_turns=100, nouns="words") for split in ("test", "validation", "train")]
    known = {task.id.rpartition("/")[2]: (env, task.id) for env in envs for task in env.panel}
    for episode in recorded["episodes"]:
        env, task_id = known[f"{episode['goal_index']:07d}"]
        start = env.reset(task_id)
        assert start.goal == episode["goal"]["instruction_text"]
        seen = start.observation
        for step in episode["steps"]:
            if step["action"] is not None:
                played = env.step(step["action"])
                seen = played.observation
                assert (played.info.score, played.terminated) == (step["reward"], step["done"])
                assert played.reward == 10.0 * (step["reward"] == 1.0)
            assert seen.text == step["observation"]
            clicks = [f"click[{label}]" for label in step["available"]["clickables"] if label != "search"]
            assert seen.admissible == ((SEARCH,) if step["available"]["has_search_bar"] else tuple(clicks))


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder like that of the official files, with 60 products in each catalogue."""
    for file in write_files(tmp_path, 60):
        small = file.with_name(f"{file.stem}_1000.json")
        small.write_bytes(file.read_bytes())
    asins = [item["asin"] for item in json.loads((tmp_path / "items_shuffle.json").read_text())]
    said = {"instruction": "I want it.", "instruction_attributes": ["soft"], "instruction_options": []}
    (tmp_path / "items_human_ins.json").write_text(json.dumps({asin: [said] for asin in asins}))
    return tmp_path


def test_shops_by_setting(files: Path, monkeypatch) -> None:
    monkeypatch.setenv("WEBSHOP_DATA", str(files))
    small = make("webshop", split="test")
    assert isinstance(small, WebshopEnv)
    assert small.panel.name == "webshop-small/test"
    assert small.official is False
    assert make("webshop", products=30, human=True).panel.name == "webshop-small-30-human/train"
    human = make("webshop", human=True)
    assert human.reset(human.panel.tasks[0].id).goal.startswith("I want it, and price lower than ")
    generated = make("webshop", data="generated", products=60)
    assert generated.panel.name == "webshop-generated-60-seed0/train"
    # The files hold the same products: the same goals are drawn from them.
    same = make("webshop")
    assert [task.digest for task in generated.panel] == [task.digest for task in same.panel]
    shown = make("webshop", show_attributes=True)
    start = shown.reset(shown.panel.tasks[0].id)
    found = shown.step(f"search[{start.goal}]").observation.admissible
    assert found is not None
    item = shown.step(found[-1]).observation.admissible
    assert item is not None
    assert "click[attributes]" in item


def test_a_large_shop_is_made_once_and_kept_beside_its_files(files: Path, monkeypatch) -> None:
    monkeypatch.setattr(sources, "_LARGE", 10)
    in_memory = open_shop(files, "full", products=10)
    assert not (files / "hiper-webshop-full-10").exists()
    made = open_shop(files, "full", products=40)
    folder = files / "hiper-webshop-full-40"
    assert {"products.bin", "document_P.npy", "order_G.npy"} <= {file.name for file in folder.iterdir()}
    monkeypatch.setattr(sources, "_read", lambda *_: pytest.fail("read again"))
    kept = open_shop(files, "full", products=40)
    monkeypatch.undo()
    other = open_shop(files, "small", products=40)
    for shop in (made, kept):
        assert shop.products.fingerprint == other.products.fingerprint != in_memory.products.fingerprint
        assert shop.search("find me something soft") == other.search("find me something soft")
        assert len(shop.goals) == len(other.goals)
    hashes = {WebshopEnv(shop).panel.tasks[3].digest for shop in (made, kept, other)}
    assert len(hashes) == 1


def test_a_large_shop_is_made_anew_when_its_files_change(files: Path, monkeypatch) -> None:
    monkeypatch.setattr(sources, "_LARGE", 10)
    before = open_shop(files, "full")
    items = files / "items_shuffle.json"
    items.write_text(items.read_text().replace('"name": "', '"name": "New '))
    after = open_shop(files, "full")
    assert after.products[0].title == f"New {before.products[0].title}"
    # So is one that was damaged.
    kept = files / "hiper-webshop-full"
    (kept / "kind_P.npy").unlink()
    assert open_shop(files, "full").search("new") == after.search("new")
    (kept / "products.bin").write_bytes((kept / "products.bin").read_bytes()[:-1])
    last = len(after.products) - 1
    assert open_shop(files, "full").products[last] == after.products[last]


def test_of_several_that_open_a_large_shop_one_makes_it(files: Path, monkeypatch) -> None:
    monkeypatch.setattr(sources, "_LARGE", 10)
    read, made, read_files = threading.Barrier(3), list[Path](), sources._read

    def remember(paths: list[Path], count: int | None) -> ProductReader:
        made.append(paths[0])
        return read_files(paths, count)

    def open_it(_: int) -> Shop:
        read.wait()
        return open_shop(files, "full")

    monkeypatch.setattr(sources, "_read", remember)
    with ThreadPoolExecutor(3) as pool:
        shops = list(pool.map(open_it, range(3)))
    assert len(made) == 1
    assert len({shop.products.fingerprint for shop in shops}) == 1
    assert sorted(path.name for path in files.iterdir() if "full" in path.name) == [
        ".hiper-webshop-full.hiper-lock",
        "hiper-webshop-full",
    ]


def test_millions_of_goals_are_not_taken_by_chance(generated_shop: Shop, monkeypatch) -> None:
    monkeypatch.setattr(env_module, "MOST_UNASKED", 20)
    with pytest.raises(UserError, match=r"has [0-9,]+ goals; say how many to play: tasks=20"):
        WebshopEnv(generated_shop)
    assert len(WebshopEnv(generated_shop, tasks=21).panel) == 21


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"data": "/nowhere"}, r"there is no '/nowhere/items_shuffle_1000.json'; `hiper data webshop` says how"),
        ({"catalogue": "medium", "data": "generated"}, "no WebShop catalogue 'medium'"),
        ({"human": True, "data": "generated"}, "are official data"),
        ({"catalogue": "full", "data": "generated"}, "are official data"),
        ({"reward": float("nan")}, "option 'reward': a finite number is needed"),
        ({"catalogue": "medium"}, "no WebShop catalogue 'medium'; there are small and full"),
        ({"products": 0}, "products is 0"),
        ({"products": 10**9, "data": "generated"}, "sells at most 100,000"),
        ({"tasks": 0}, "tasks is 0"),
        ({"split": "valid"}, "no split 'valid'"),
        ({"nouns": "all"}, "no noun tagger 'all'"),
        ({"product": 5}, "no option 'product'; did you mean 'products'"),
    ],
)
def test_settings_that_cannot_be_met(files: Path, monkeypatch, options, complaint: str) -> None:
    monkeypatch.setenv("WEBSHOP_DATA", str(files))
    with pytest.raises(UserError, match=complaint):
        make("webshop", **options)


def test_data_that_is_not_there(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("WEBSHOP_DATA", str(tmp_path / "none"))
    with pytest.raises(
        UserError, match=r"none/items_shuffle_1000.json' \(WEBSHOP_DATA names another folder\); .*data=gen"
    ):
        make("webshop")


def test_swapped_files_are_told(files: Path) -> None:
    items, attributes = files / "items_shuffle_1000.json", files / "items_ins_v2_1000.json"
    items.rename(files / "x")
    attributes.rename(items)
    (files / "x").rename(attributes)
    with pytest.raises(UserError, match=r"items_ins_v2_1000.json' should hold a JSON object.*two files swapped\?"):
        open_shop(files)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_large_shop_needs_room_beside_its_files(files: Path, monkeypatch) -> None:
    monkeypatch.setattr(sources, "_LARGE", 10)
    files.chmod(0o500)
    with pytest.raises(UserError, match=r"cannot write .* link the files into a folder that can be written to"):
        open_shop(files, "full")
