from __future__ import annotations

import json

import pytest
from tokenizers import Tokenizer
from tokenizers.decoders import Metaspace as MetaspaceDecoder
from tokenizers.models import Unigram
from tokenizers.pre_tokenizers import Metaspace
from transformers import AutoTokenizer, PreTrainedTokenizerFast, Qwen2Config

from hiper.envs.base import Decision
from hiper.errors import UserError
from hiper.plan_execute.parse import SWITCH_WORDS, TAGS, parse_response
from hiper.plan_execute.tokenizer import (
    UNK,
    build_subword_tokenizer,
    build_word_tokenizer,
    encode_response,
    encode_text,
    is_subword,
    is_word_level,
    load_tokenizer,
    round_trip,
    text_encoder,
)

TEXTS = ["go to cabinet 1-6 drawer 12 .", "put a clean apple in fridge : it's there, see", "put apple 1 in/on desk 1"]


@pytest.fixture(scope="module")
def tokenizer():
    return build_word_tokenizer(TEXTS)


def words(tokenizer, text):
    return tokenizer.convert_ids_to_tokens(encode_text(tokenizer, text))


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("go to cabinet 3", ["go", "to", "cabinet", "3"]),
        ("cabinet 1-6", ["cabinet", "1", "-", "6"]),
        ("in/on desk 1", ["in/on", "desk", "1"]),
        ("it's there, see:", ["it's", "there", ",", "see", ":"]),
        ("<switch>KEEP</switch>\n<subgoal>go</subgoal>", ["<switch>", "KEEP", "</switch>", "<subgoal>", "go", TAGS[3]]),
        ("keep cabinet12", [UNK, UNK]),
        ("go\n\n  to\t", ["go", "to"]),
        ("", []),
    ],
)
def test_words(tokenizer, text, tokens):
    assert words(tokenizer, text) == tokens


def test_sizes_are_words_and_are_written_as_they_were_read():
    """A shop's search knows "3x-large", and not "3 x-large"."""
    text = "men's 3x-large size 7.5 wi-fi u.s 20x24in 6.7x4ft black137"
    tokenizer = build_word_tokenizer([text])
    assert words(tokenizer, text) == text.split()
    assert round_trip(tokenizer, text) == text
    listed = build_word_tokenizer(["$ 6.7 . cabinet 1-6 , 4-pack 1."])
    assert words(listed, "1-6 1. 6.7 .") == ["1", "-", "6", "1", ".", "6.7", "."]


def test_tags_switch_words_and_numbers_are_known_unseen():
    tokenizer = build_word_tokenizer(["shelf 7"], extra_words=["fork"])
    for word in (*TAGS, *SWITCH_WORDS, *map(str, range(8)), "fork"):
        assert words(tokenizer, word) == [word]
    assert words(tokenizer, "8") == [UNK]


@pytest.mark.parametrize("text", ["हिन्दी पढ़ो", "cafe\u0301 noir", "12 m²", "nai\u0308ve\ufe0f way"])
def test_words_of_any_script_are_known_once_seen(text):
    """Whatever Python makes of accents and vowel signs that stand alone."""
    tokenizer = build_word_tokenizer([text])
    assert UNK not in words(tokenizer, text)


def test_large_numbers_do_not_bring_along_all_smaller_ones():
    assert len(build_word_tokenizer(["$ 1000000"])) < 20


def test_the_vocabulary_depends_on_the_words_alone():
    one, other = build_word_tokenizer(TEXTS), build_word_tokenizer(reversed([*TEXTS, *TEXTS]))
    assert one.get_vocab() == other.get_vocab()
    assert sorted(one.get_vocab().values()) == list(range(len(one)))


def test_subwords_spell_what_is_rare_and_never_seen():
    """The word that is everywhere is one token; no token goes beyond a word; nothing in ASCII is unknown."""
    texts = ["find the red lamp"] * 50 + ["find the christmas lamp", "take wood grain 12x16in"]
    tokenizer = build_subword_tokenizer(texts, 115)
    assert len(tokenizer) == 115
    assert words(tokenizer, "find the lamp") == ["\u2581find", "\u2581the", "\u2581lamp"]
    for text in ("find the goo6658 lamp", "christmasgoo4 |~ 20x24in", "SWITCH <subgoal> x </subgoal>", "it's a%b"):
        assert UNK not in words(tokenizer, text)
        assert not any("\u2581" in token[1:] for token in words(tokenizer, text))
    assert UNK in words(tokenizer, "caf\u00e9")
    assert round_trip(tokenizer, "find the goo6658  12x16in lamp") == "find the goo6658 12x16in lamp"
    assert encode_text(tokenizer, "find\n\n lamp") == encode_text(tokenizer, "find lamp")


def test_subwords_depend_on_the_texts_alone():
    texts = [f"find the {color} lamp {n}" for n in range(30) for color in ("red", "green", "reddish", "greenish")]
    one, other = build_subword_tokenizer(texts, 120), build_subword_tokenizer(iter([*texts[60:], *texts[:60]]), 120)
    assert one.get_vocab() == other.get_vocab()
    assert sorted(one.get_vocab().values()) == list(range(120))
    assert build_subword_tokenizer(texts, 200, ["\u00e9"]).get_vocab().get("\u00e9") is not None


def test_subwords_are_encoded_alike_by_the_fast_encoder():
    tokenizer = build_subword_tokenizer(TEXTS, 200)
    for text in (*TEXTS, "wood grain4goo3989  it's\t<subgoal>go</subgoal>", ""):
        assert text_encoder(tokenizer)(text) == encode_text(tokenizer, text)
    assert is_subword(tokenizer)
    assert not is_subword(build_word_tokenizer(TEXTS))
    assert not is_word_level(tokenizer)


def test_subwords_come_back_from_their_folder(tmp_path):
    tokenizer = build_subword_tokenizer(TEXTS, 200)
    tokenizer.save_pretrained(tmp_path)
    again = load_tokenizer(tmp_path)
    assert is_subword(again)
    assert [again.encode(text) for text in TEXTS] == [tokenizer.encode(text) for text in TEXTS]
    assert round_trip(again, TEXTS[2]) == TEXTS[2]


@pytest.mark.parametrize("text", ["go to cabinet 3", "put a clean apple in fridge", "put apple 1 in/on desk 1"])
def test_actions_come_back(tokenizer, text):
    assert tokenizer.decode(encode_text(tokenizer, text)) == text
    assert round_trip(tokenizer, text) == text


@pytest.mark.parametrize(
    ("text", "read"),
    [("go to sofa 1", f"go to {UNK} 1"), ("apple[1]", f"apple {UNK} 1 {UNK}"), ("see  there", "see there")],
)
def test_what_does_not_come_back(tokenizer, text, read):
    assert round_trip(tokenizer, text) == read


@pytest.mark.parametrize("load", [AutoTokenizer.from_pretrained, load_tokenizer])
def test_a_directory_like_any_other(tokenizer, tmp_path, load):
    """Loads beside a Qwen2 model's config, too, whose own tokenizer is of another kind; and so does a copy."""
    tokenizer.save_pretrained(tmp_path)
    for folder in (tmp_path, tmp_path / "copy"):
        Qwen2Config().save_pretrained(folder)
        loaded = load(folder)
        assert loaded.get_vocab() == tokenizer.get_vocab()
        assert (loaded.pad_token, loaded.eos_token, loaded.unk_token) == ("<pad>", "<eos>", "<unk>")
        assert loaded.padding_side == "left"
        for text in [*TEXTS, "<action>go to cabinet 3</action>", "unseen"]:
            assert encode_text(loaded, text) == encode_text(tokenizer, text) == loaded.encode(text)
        assert loaded.decode(encode_text(loaded, "put a clean apple in fridge")) == "put a clean apple in fridge"
        loaded.save_pretrained(tmp_path / "copy")


def test_files_are_believed_without_the_entry_for_auto_tokenizer(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    Qwen2Config().save_pretrained(tmp_path)
    file = tmp_path / "tokenizer_config.json"
    file.write_text(json.dumps({k: v for k, v in json.loads(file.read_text()).items() if k != "auto_map"}))
    assert words(load_tokenizer(tmp_path), "go to") == ["go", "to"]


def test_a_qwen2_tokenizer_loads_as_one(bpe_tokenizer, tmp_path):
    bpe_tokenizer.save_pretrained(tmp_path)
    Qwen2Config().save_pretrained(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert type(loaded) is type(bpe_tokenizer)
    assert loaded.chat_template == bpe_tokenizer.chat_template
    text = "<|im_start|>user\nfind a mug ☕<|im_end|>"
    assert encode_text(loaded, text) == encode_text(bpe_tokenizer, text)


def test_no_tokenizer_there(tmp_path):
    with pytest.raises(UserError, match="no tokenizer can be loaded"):
        load_tokenizer(tmp_path)


def test_encode_text_adds_and_cuts_nothing(bpe_tokenizer):
    text = "<|im_start|>user\nfind a mug ☕"
    ids = encode_text(bpe_tokenizer, text)
    assert ids == bpe_tokenizer.encode(text, add_special_tokens=False)
    assert bpe_tokenizer.decode(ids) == text
    bpe_tokenizer.backend_tokenizer.enable_truncation(3)
    try:
        assert encode_text(bpe_tokenizer, text) == ids
    finally:
        bpe_tokenizer.backend_tokenizer.no_truncation()


PADDING = {"direction": "Left", "pad_to_multiple_of": None, "pad_id": 1, "pad_type_id": 0, "pad_token": "<eos>"}
TRUNCATION = {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}


@pytest.mark.parametrize(
    "used",
    [
        {"padding": {"strategy": {"Fixed": 24}, **PADDING}},
        {"padding": {"strategy": "BatchLongest", **PADDING, "pad_to_multiple_of": 8}},
        {"truncation": TRUNCATION},
        {"padding": {"strategy": {"Fixed": 24}, **PADDING}, "truncation": TRUNCATION},
    ],
)
def test_padding_and_truncation_of_saved_files_have_no_effect(tokenizer, tmp_path, used):
    """A tokenizer that was used with them and then saved keeps them in its file."""
    tokenizer.save_pretrained(tmp_path)
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | used))
    raw = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    decision = Decision(True, "put apple", "go to cabinet 3")
    for loaded in (load_tokenizer(tmp_path), raw):
        assert text_encoder(loaded)("put apple in desk 1") == encode_text(tokenizer, "put apple in desk 1")
        assert encode_text(loaded, "put apple in desk 1") == encode_text(tokenizer, "put apple in desk 1")
        assert encode_response(loaded, decision) == encode_response(tokenizer, decision)


@pytest.mark.parametrize(
    ("part", "content", "added"),
    [
        ("normalizer", {"type": "Prepend", "prepend": "put apple "}, "put apple"),
        ("normalizer", {"type": "Replace", "pattern": {"Regex": "$"}, "content": " see"}, "see"),
    ],
)
def test_a_tokenizer_that_adds_words_is_refused(tokenizer, tmp_path, part, content, added):
    tokenizer.save_pretrained(tmp_path)
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {part: content}))
    with pytest.raises(UserError, match=f"adds '{added}' to every text; remove that from the normalizer"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("prepend", ["always", "first"])
def test_a_blank_before_every_text_is_no_addition(tmp_path, prepend):
    """SentencePiece's tokenizers put one before the first word, and their models are trained so."""
    words = ["\u2581", "\u2581go", "\u2581look", "\u2581take", "\u2581it", "\u25811", "\u25812", "<s>", "<unk>"]
    core = Tokenizer(Unigram([(word, -1.0) for word in words], unk_id=8))
    core.pre_tokenizer = Metaspace(prepend_scheme=prepend)
    core.decoder = MetaspaceDecoder(prepend_scheme=prepend)
    PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<s>", unk_token="<unk>").save_pretrained(tmp_path)
    assert encode_text(load_tokenizer(tmp_path), "go 1") == [1, 5]


@pytest.mark.parametrize(
    "text", [*TEXTS, "\ngo<action>to\u00a0cabinet 1-6\t</action> <eos> x<eos>.", "unseen, it's", " ", ""]
)
@pytest.mark.parametrize("name", ["word", "bpe"])
def test_the_fast_encoder_agrees(tokenizer, bpe_tokenizer, name, text):
    chosen = {"word": tokenizer, "bpe": bpe_tokenizer}[name]
    encode = text_encoder(chosen)
    assert encode(text) == encode(text) == encode_text(chosen, text)


@pytest.mark.parametrize("name", ["word", "bpe"])
def test_responses_read_back_as_the_decision(tokenizer, bpe_tokenizer, name):
    chosen = {"word": tokenizer, "bpe": bpe_tokenizer}[name]
    decision = Decision(switch=True, subgoal="put apple in fridge", action="go to cabinet 3")
    ids = encode_response(chosen, decision)
    assert ids[-1] == chosen.eos_token_id
    assert ids.count(chosen.eos_token_id) == 1
    parsed = parse_response(chosen.decode(ids[:-1]), previous_subgoal=None, accepts={"go to cabinet 3"}.__contains__)
    assert parsed.invalid is None
    assert parsed.decision == decision


def test_a_word_level_response_is_short(tokenizer):
    decision = Decision(switch=False, subgoal="put apple", action="go to cabinet 3")
    assert words(tokenizer, tokenizer.decode(encode_response(tokenizer, decision))) == [
        "<switch>", "KEEP", "</switch>",
        "<subgoal>", "put", "apple", "</subgoal>",
        "<action>", "go", "to", "cabinet", "3", "</action>",
        "<eos>",
    ]  # fmt: skip
