from __future__ import annotations

import random

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from hiper.advantages import TokenKind
from hiper.config import ThinkingConfig
from hiper.envs.base import Decision
from hiper.plan_execute.parse import parse_response
from hiper.plan_execute.spans import TokenReader, TokenText, _IncrementalDecoder, low_index, token_kinds
from hiper.plan_execute.tokenizer import build_subword_tokenizer, build_word_tokenizer, encode_response, encode_text

OTHER, SWITCH, SUBGOAL, ACTION, THINKING = TokenKind

RESPONSES = [
    "<switch>KEEP</switch><subgoal>find a mug</subgoal><action>go to cabinet 3</action>",
    "<switch>SWITCH</switch>\n<subgoal>heat the mug</subgoal>\n<action>open fridge 1</action>",
    "<think>the mug, I think</think> <switch> KEEP </switch>\n\n<subgoal> find </subgoal> <action> go </action> done.",
    "<switch>KEEP</switch><subgoal>☕ find the «mug» 🍎👩‍🍳 é́</subgoal><action>go to café 🍎</action>",
    "🍎🍎 <switch>KEEP</switch>🍎<subgoal>杯子を探す</subgoal>🍎<action>go</action>🍎",
    "<switch>KEEP</switch><subgoal></subgoal><action>go</action>",  # invalid, and still three whole blocks
    "<switch>KEEP</switch><subgoal>find a mug</subgoal><action>go to cab",
    "no blocks at all",
    "",
]


@pytest.fixture(scope="module")
def word_tokenizer() -> PreTrainedTokenizerFast:
    return build_word_tokenizer(RESPONSES)


@pytest.fixture(scope="module")
def metaspace_tokenizer() -> PreTrainedTokenizerFast:
    """In the manner of SentencePiece with byte fallback: neither word-level nor byte-level."""
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *map(chr, range(33, 127)), "▁"]
    pieces += ["▁find", "▁the", "▁mug", "▁go", "▁to", "▁cabinet", "><", "switch", "subgoal", "action", ">K", "</"]
    core = Tokenizer(models.Unigram([(piece, -1.0 / len(piece)) for piece in pieces], unk_id=0, byte_fallback=True))
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    core.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(), decoders.Fuse()])
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", eos_token="<0x00>")


@pytest.fixture(scope="module")
def subword_tokenizer() -> PreTrainedTokenizerFast:
    return build_subword_tokenizer(RESPONSES, 200)


@pytest.fixture(params=["word_tokenizer", "subword_tokenizer", "bpe_tokenizer", "metaspace_tokenizer"])
def tokenizer(request):
    return request.getfixturevalue(request.param)


def analyse(tokenizer, ids, include_tags=True):
    tokens = TokenReader(tokenizer).read(ids, ended=ids[-1:] == [tokenizer.eos_token_id])
    parsed = parse_response(tokens.text, previous_subgoal="find a mug")
    return tokens, parsed, token_kinds(tokens, parsed, include_tags), low_index(tokens, parsed)


def test_word_level_by_hand(word_tokenizer):
    ids = encode_response(word_tokenizer, Decision(switch=False, subgoal="find a mug", action="go to cabinet 3"))
    tokens, parsed, kinds, low = analyse(word_tokenizer, ids)
    assert tokens.text == "<switch> KEEP </switch> <subgoal> find a mug </subgoal> <action> go to cabinet 3 </action>"
    assert parsed.invalid is None
    assert kinds.dtype == np.int8
    assert kinds.tolist() == [SWITCH] * 3 + [SUBGOAL] * 5 + [ACTION] * 7  # the last ends the response
    assert low == 7  # "</subgoal>"
    _, _, kinds, _ = analyse(word_tokenizer, ids, include_tags=False)
    assert kinds.tolist() == [0, SWITCH, 0, 0, SUBGOAL, SUBGOAL, SUBGOAL, 0, 0, ACTION, ACTION, ACTION, ACTION, 0, 0]


def test_byte_level_by_hand(bpe_tokenizer):
    pieces = {
        "<": SWITCH, "switch": SWITCH, ">KEEP": SWITCH, "</": SWITCH,
        "switch ": SWITCH, "><": SWITCH,  # straddles two blocks: the first has it
        "subgoal": SUBGOAL, ">find": SUBGOAL, "Ġa": SUBGOAL, "Ġmug": SUBGOAL, "</ ": SUBGOAL, "subgoal ": SUBGOAL,
        ">< ": SUBGOAL,  # completes </subgoal>
        "action": ACTION, ">go": ACTION, "Ġto": ACTION, "Ġcabinet": ACTION, "Ġ": ACTION, "3": ACTION,
        "</  ": ACTION, "action ": ACTION, ">": ACTION, "<|im_end|>": ACTION,
    }  # fmt: skip
    ids = bpe_tokenizer.convert_tokens_to_ids([piece.strip() for piece in pieces])
    tokens, parsed, kinds, low = analyse(bpe_tokenizer, ids)
    assert tokens.text == RESPONSES[0]
    assert parsed.invalid is None
    assert kinds.tolist() == list(pieces.values())
    assert low == list(pieces).index(">< ")
    _, _, kinds, _ = analyse(bpe_tokenizer, ids, include_tags=False)
    content = {">KEEP", ">find", "Ġa", "Ġmug", ">go", "Ġto", "Ġcabinet", "Ġ", "3"}
    assert kinds.tolist() == [kind if piece in content else OTHER for piece, kind in pieces.items()]


@pytest.mark.parametrize("include_tags", [True, False])
def test_thinking_by_hand(bpe_tokenizer, include_tags):
    """Its tokens are those that hold a character of it. One that it shares with the next tag is its own."""
    thoughts = ["Ċ", "<", "t", "h", "in", "k", ">go", "Ġ", "f", "ind", "</", "t", "h", "in", "k", "><"]
    answer = ["switch", ">KEEP", "</", "switch", "><", "subgoal", ">find", "Ġa", "Ġmug", "</", "subgoal", "><"]
    answer += ["action", ">go", "Ġto", "Ġcabinet", "Ġ", "3", "</", "action", ">", "<|im_end|>"]
    ids = bpe_tokenizer.convert_tokens_to_ids([*thoughts, *answer])
    tokens = TokenReader(bpe_tokenizer).read(ids, ended=True)
    assert tokens.text == "\n<think>go find</think>" + RESPONSES[0]
    parsed = parse_response(tokens.text, previous_subgoal=None, thinking=ThinkingConfig())
    assert parsed.invalid is None
    tag = dict.fromkeys((SWITCH, SUBGOAL, ACTION), OTHER) if not include_tags else {k: k for k in TokenKind}
    kinds = [tag[SWITCH], SWITCH, *[tag[SWITCH]] * 3, tag[SUBGOAL], *[SUBGOAL] * 3, *[tag[SUBGOAL]] * 3]
    kinds += [tag[ACTION], *[ACTION] * 5, *[tag[ACTION]] * 4]
    assert token_kinds(tokens, parsed, include_tags).tolist() == [THINKING] * len(thoughts) + kinds
    assert low_index(tokens, parsed) == len(thoughts) + answer.index("subgoal", 6) + 1


def test_thinking_that_never_closes_is_thinking_but_for_its_end(bpe_tokenizer):
    """The end of the response is no thought: an invalid response answers for it."""
    ids = [*encode_text(bpe_tokenizer, "so " + RESPONSES[0]), bpe_tokenizer.eos_token_id]
    tokens = TokenReader(bpe_tokenizer).read(ids, ended=True)
    parsed = parse_response(tokens.text, previous_subgoal=None, thinking=ThinkingConfig(), opened=True)
    assert token_kinds(tokens, parsed, include_tags=True).tolist() == [THINKING] * (len(ids) - 1) + [OTHER]
    assert low_index(tokens, parsed) is None


def test_content_takes_precedence_over_a_neighbours_tag():
    """A token that holds the end of one block's tag and the beginning of the next block's content."""
    text = RESPONSES[0]
    parsed = parse_response(text, previous_subgoal=None)
    first = text.index("</switch>") + 3
    second = text.index("<subgoal>") + len("<subgoal>f")
    tokens = TokenText(text, starts=[0, first, second], ends=[first, second, len(text)])
    assert token_kinds(tokens, parsed, include_tags=True)[1] == SUBGOAL
    assert token_kinds(tokens, parsed, include_tags=False)[1] == SUBGOAL


@pytest.mark.parametrize("text", RESPONSES)
@pytest.mark.parametrize("end", [True, False])
def test_extents_cover_the_decoded_text(tokenizer, text, end):
    ids = encode_text(tokenizer, text)
    tokens = TokenReader(tokenizer).read([*ids, tokenizer.eos_token_id] if end else ids, ended=end)
    assert tokens.text == tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    assert len(tokens.starts) == len(tokens.ends) == len(ids) + end
    assert_covers(tokens)


def assert_covers(tokens):
    assert tokens.starts == sorted(tokens.starts)
    assert tokens.ends == sorted(tokens.ends)
    covered = {c for start, end in zip(tokens.starts, tokens.ends, strict=True) for c in range(start, end)}
    assert covered == set(range(len(tokens.text)))


@pytest.mark.parametrize("text", RESPONSES)
@pytest.mark.parametrize("include_tags", [True, False])
def test_kinds_are_the_blocks_neither_more_nor_less(tokenizer, text, include_tags):
    """Checked character by character against the parsed blocks, straddling tokens aside."""
    tokens, parsed, kinds, low = analyse(tokenizer, encode_text(tokenizer, text), include_tags)
    for name, kind in zip(("switch", "subgoal", "action"), (SWITCH, SUBGOAL, ACTION), strict=True):
        block = parsed.blocks.get(name)
        span = set() if block is None else set(range(*(block.outer if include_tags else block.inner)))
        for i, (start, end) in enumerate(zip(tokens.starts, tokens.ends, strict=True)):
            characters = set(range(start, end))
            if kinds[i] == kind:
                assert characters & span  # no token without a character of its block
            elif characters & span:
                assert kinds[i] != OTHER  # shared with a neighbour, which has it
                assert characters - span
    assert (low is None) == ("subgoal" not in parsed.blocks)
    if low is not None:
        closed = parsed.blocks["subgoal"].outer.end
        assert tokens.ends[low] >= closed
        assert low == 0 or tokens.ends[low - 1] < closed


def test_no_subgoal_no_place_for_v_low(tokenizer):
    for text in ("", "<switch>KEEP</switch><action>go</action>", "<switch>KEEP</switch><subgoal>find"):
        *_, low = analyse(tokenizer, encode_text(tokenizer, text))
        assert low is None


def test_a_character_split_over_tokens_belongs_to_all_of_them(bpe_tokenizer):
    ids = encode_text(bpe_tokenizer, "a🍎b")
    assert len(ids) == 6  # an apple is four bytes
    tokens = TokenReader(bpe_tokenizer).read(ids, ended=False)
    assert (tokens.starts, tokens.ends) == ([0, 1, 1, 1, 1, 2], [1, 2, 2, 2, 2, 3])


def test_a_character_cut_off_is_one_replacement_character(bpe_tokenizer):
    ids = encode_text(bpe_tokenizer, "a🍎")[:-1]
    tokens = TokenReader(bpe_tokenizer).read(ids, ended=False)
    assert (tokens.text, tokens.starts, tokens.ends) == ("a\N{REPLACEMENT CHARACTER}", [0, 1, 1, 1], [1, 2, 2, 2])


def test_any_ids_at_all(tokenizer):
    """Untrained models write nonsense: the text is what the tokenizer makes of it, and every character has a token."""
    rng = random.Random(0)
    for _ in range(200):
        ids = [rng.randrange(len(tokenizer)) for _ in range(rng.randrange(1, 24))]
        if ids[-1] == tokenizer.eos_token_id:
            continue
        tokens = TokenReader(tokenizer).read(ids, ended=False)
        assert_covers(tokens)
        if not isinstance(TokenReader(tokenizer)._decoder, _IncrementalDecoder):
            assert tokens.text == tokenizer.decode(ids, clean_up_tokenization_spaces=False)


@pytest.mark.parametrize("text", RESPONSES)
def test_incremental_decoding_agrees_with_the_byte_table(bpe_tokenizer, text):
    ids = encode_text(bpe_tokenizer, text)
    exact = TokenReader(bpe_tokenizer).read(ids, ended=False)
    generic = _IncrementalDecoder(bpe_tokenizer).decode(ids)
    assert generic == exact


def test_only_the_last_eos_ends_the_response(bpe_tokenizer):
    """Special tokens inside a response are text like any other, so that they spoil an action instead of vanishing."""
    eos = bpe_tokenizer.eos_token_id
    ids = [*encode_text(bpe_tokenizer, "go"), eos, *encode_text(bpe_tokenizer, " on"), eos]
    tokens = TokenReader(bpe_tokenizer).read(ids, ended=True)
    assert tokens.text == "go<|im_end|> on"
    assert tokens.starts[-1] == tokens.ends[-1] == len(tokens.text)


def test_a_model_that_knows_several_ends_may_end_with_any(bpe_tokenizer):
    """Chat models do; the sampler says that the last token was one."""
    other = encode_text(bpe_tokenizer, "!")[0]
    tokens = TokenReader(bpe_tokenizer).read([*encode_text(bpe_tokenizer, RESPONSES[0]), other], ended=True)
    assert tokens.text == RESPONSES[0]
    assert (
        token_kinds(tokens, parse_response(tokens.text, previous_subgoal=None), include_tags=True)[-1]
        == TokenKind.ACTION
    )


def test_ids_without_a_token_are_nothing(bpe_tokenizer):
    tokens = TokenReader(bpe_tokenizer).read([len(bpe_tokenizer) + 7, *encode_text(bpe_tokenizer, "a")], ended=False)
    assert (tokens.text, tokens.starts, tokens.ends) == ("a", [0, 0], [0, 1])
