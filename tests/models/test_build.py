"""Models and tokenizers: made, loaded, and refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    OPTConfig,
    PhimoeConfig,
    PhimoeModel,
    Qwen2ForCausalLM,
    Qwen2Model,
    Qwen2Tokenizer,
)
from transformers.models.qwen2.modeling_qwen2 import Qwen2MLP

from hiper.config import ModelConfig, NanoConfig
from hiper.errors import UserError
from hiper.models.actor_critic import RowBatch
from hiper.models.build import (
    add_critic,
    choose_autocast,
    choose_device,
    load_policy,
    make_nano,
    use_threads,
)
from hiper.models.weights import PolicyWeights, stop_ids
from hiper.plan_execute.tokenizer import encode_text, load_tokenizer
from hiper.rollout.setup import check_words
from hiper.rows import Row

MakeQwen2 = Callable[..., Qwen2ForCausalLM]

LANGUAGE = ["go to cabinet 3 . you see mug 1", "open fridge 12"]
NANO = ModelConfig(nano=NanoConfig(layers=1, hidden=32, feed_forward=32, heads=2, kv_heads=1, max_positions=64))
IDS = torch.tensor([[3, 7, 5, 9, 4]])


# --- Nano -----------------------------------------------------------------------------------------------------------


def test_a_nano_model_is_an_ordinary_directory(tmp_path: Path):
    policy, tokenizer = make_nano(NANO, LANGUAGE, seed=0)
    policy.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(loaded(input_ids=IDS).logits, policy(input_ids=IDS).logits)
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")  # it is the embedding, saved once
    again = load_tokenizer(tmp_path)
    text = "go to fridge 12"
    assert encode_text(again, text) == encode_text(tokenizer, text)
    assert (again.pad_token_id, again.eos_token_id) == (tokenizer.pad_token_id, tokenizer.eos_token_id)
    assert (loaded.config.eos_token_id, loaded.config.pad_token_id) == (tokenizer.eos_token_id, tokenizer.pad_token_id)


def test_equal_seeds_make_equal_models():
    torch.manual_seed(5)
    one, other, third = (make_nano(NANO, LANGUAGE, seed=seed)[0] for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(one.parameters(), third.parameters(), strict=True))


def test_every_row_of_a_nano_model_is_a_word():
    policy, tokenizer = make_nano(NANO, LANGUAGE, seed=0)
    assert policy.config.vocab_size == len(tokenizer) == policy(input_ids=IDS).logits.shape[-1]


def test_a_nano_model_knows_its_templates_words():
    _, tokenizer = make_nano(NANO, LANGUAGE, seed=0, wording=["so far :"])
    assert tokenizer.unk_token_id not in encode_text(tokenizer, "so far : go to fridge")
    assert tokenizer.unk_token_id in encode_text(make_nano(NANO, LANGUAGE, seed=0)[1], "so far")


# --- Loading --------------------------------------------------------------------------------------------------------


@pytest.fixture
def saved(make_qwen2: MakeQwen2, bpe_tokenizer: Qwen2Tokenizer, tmp_path: Path) -> Path:
    make_qwen2(vocab_size=len(bpe_tokenizer)).save_pretrained(tmp_path)
    bpe_tokenizer.save_pretrained(tmp_path)
    return tmp_path


def test_a_checkpoint_comes_back(saved: Path, make_qwen2: MakeQwen2, bpe_tokenizer: Qwen2Tokenizer):
    policy = load_policy(saved, ModelConfig())
    assert torch.equal(policy(input_ids=IDS).logits, make_qwen2(vocab_size=len(bpe_tokenizer))(input_ids=IDS).logits)
    text = "<switch>KEEP</switch> « é »"
    assert encode_text(load_tokenizer(saved), text) == encode_text(bpe_tokenizer, text)


def test_weights_lie_where_new_ones_would(saved: Path):
    assert all(p.data_ptr() % 64 == 0 for p in load_policy(saved, ModelConfig()).parameters())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_number_format_is_the_one_asked_for(saved: Path, dtype: Any):
    policy = load_policy(saved, ModelConfig(param_dtype=dtype))
    assert {p.dtype for p in policy.parameters()} == {getattr(torch, dtype)}


def test_gradient_checkpointing(saved: Path):
    policy = load_policy(saved, ModelConfig(gradient_checkpointing=True))
    assert policy.is_gradient_checkpointing


def test_a_place_without_a_model(tmp_path: Path):
    for given in (
        tmp_path / "nothing",
        f"{tmp_path}/nothing",
        "~/nothing",
        "./nothing",
        "a/b/nothing",
        "nothing/",
        "~nobody/x",
        "",
    ):
        for load in (lambda path: load_policy(path, ModelConfig()), load_tokenizer):
            with pytest.raises(UserError, match=r"there is no folder '.*' \(there is '/"):
                load(given)
    with pytest.raises(UserError, match=r"no causal language model.* has no config\.json"):
        load_policy(tmp_path, ModelConfig())
    (tmp_path / "model.gguf").touch()
    with pytest.raises(UserError, match="is a file; give the folder"):
        load_policy(tmp_path / "model.gguf", ModelConfig())
    with pytest.raises(UserError, match="no tokenizer can be loaded"):
        load_tokenizer(tmp_path)


def test_weights_that_are_missing_are_named(saved: Path):
    weights = load_file(saved / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, saved / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"do not fit.*1 missing, such as model\.layers\.1\.mlp\.up_proj\.weight"):
        load_policy(saved, ModelConfig())


@pytest.mark.parametrize("damage", ["truncated", "garbage", "config"])
def test_damaged_files_are_said_in_one_message(saved: Path, damage: str):
    weights = saved / "model.safetensors"
    match damage:
        case "truncated":
            weights.write_bytes(weights.read_bytes()[:-100])
        case "garbage":
            weights.write_bytes(b"\xff" * 300)
        case "config":
            (saved / "config.json").write_text("{")
    with pytest.raises(UserError, match="no causal language model can be loaded"):
        load_policy(saved, ModelConfig())


def test_the_home_folder_is_meant_by_its_sign(saved: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(saved.parent))
    assert load_policy(f"~/{saved.name}", ModelConfig()).config.model_type == "qwen2"
    assert load_tokenizer(f"~/{saved.name}").eos_token == "<|im_end|>"


AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True}
MESSAGES: dict[str, tuple[dict[str, Any], str]] = {
    "awq": ({"quantization_config": AWQ}, r"are quantised \(awq\).*give the model in bfloat16 or float32"),
    "gptq": ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, r"are quantised \(gptq\)"),
    "fp8": ({"quantization_config": {"quant_method": "fp8"}}, r"are quantised \(fp8\)"),
    "bitsandbytes": ({"quantization_config": {"load_in_4bit": True}}, r"are quantised"),
    "inner": ({"text_config": {"quantization_config": AWQ}}, r"are quantised \(awq\)"),
    "custom": (
        {"model_type": "odd", "auto_map": {"AutoModelForCausalLM": "modeling_odd.Odd"}},
        r"runs code of its own \(modeling_odd\.Odd\)",
    ),
    "unknown": ({"model_type": "odd"}, "no causal language model can be loaded"),
    "number": ({"model_type": 3}, "no causal language model can be loaded"),
    "no heads": ({"num_attention_heads": 0}, "no causal language model can be loaded"),
    "text": ({"hidden_size": "wide"}, "no causal language model can be loaded"),
    "negative": ({"num_hidden_layers": -1}, "no causal language model can be loaded|weights|cannot be run"),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_configs_that_cannot_be_used_are_said(saved: Path, name: str):
    changes, message = MESSAGES[name]
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(UserError, match=message) as caught:
        load_policy(saved, ModelConfig())
    assert len(str(caught.value)) < 500 + len(str(saved))


@pytest.mark.parametrize("content", ["[]", "3", "null", '"text"', "", "{", "<!doctype html>"])
def test_configs_that_are_none_are_said(saved: Path, content: str):
    (saved / "config.json").write_text(content)
    with pytest.raises(UserError, match="no causal language model can be loaded"):
        load_policy(saved, ModelConfig())


def test_words_beyond_the_embedding_are_refused(saved: Path):
    """Unless they are special tokens of no use, as the place of an image in text models."""
    weights = PolicyWeights.load(saved, ModelConfig(), "cpu")
    tokenizer = load_tokenizer(saved)
    check_words(weights, tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    check_words(weights, tokenizer)
    tokenizer.pad_token = "<image>"
    with pytest.raises(UserError, match=rf"1 of its tokens, such as '<image>' \({len(tokenizer) - 1}\), have no embed"):
        check_words(weights, tokenizer)
    tokenizer.add_tokens(["mug"])
    with pytest.raises(UserError, match=r"does not fit the model: 2 of its tokens, .* resize the model's embeddings"):
        check_words(weights, tokenizer)


def test_folders_without_whole_weights_are_said(saved: Path):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
    weights = saved / "model.safetensors"
    whole = weights.read_bytes()
    for file in (weights, saved / "tokenizer.json"):
        kept = file.read_bytes()
        file.write_text(pointer)
        with pytest.raises(UserError, match=rf"{file.name} is a pointer of Git LFS.*git lfs pull"):
            load_policy(saved, ModelConfig())
        file.write_bytes(kept)
    weights.rename(saved / "model.gguf")
    with pytest.raises(UserError, match=r"GGUF format \(model\.gguf\), which cannot be trained"):
        load_policy(saved, ModelConfig())
    (saved / "model.gguf").unlink()
    (saved / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "./qwen"}')
    (saved / "adapter_model.safetensors").write_bytes(whole)
    with pytest.raises(UserError, match=r"base model of the adapter in .*: there is no folder 'qwen'.*adapter_config"):
        load_policy(saved, ModelConfig())
    (saved / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    with pytest.raises(UserError, match=r"adapter_config.json is damaged: it names no base model"):
        load_policy(saved, ModelConfig())


@pytest.mark.parametrize("loader", [AutoModelForCausalLM, AutoTokenizer])
def test_a_package_that_is_missing_is_named(saved: Path, loader: Any, monkeypatch: pytest.MonkeyPatch):
    def fail(*args: Any, **options: Any) -> None:
        raise ImportError("\nLoading this needs sentencepiece: pip install sentencepiece\nand more")

    monkeypatch.setattr(loader, "from_pretrained", fail)
    load = load_tokenizer if loader is AutoTokenizer else lambda path: load_policy(path, ModelConfig())
    with pytest.raises(UserError, match="needs a package that is missing: Loading this needs sentencepiece"):
        load(saved)


def test_weights_of_another_size_are_refused(saved: Path):
    settings = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps(settings | {"intermediate_size": 64}))
    with pytest.raises(UserError):
        load_policy(saved, ModelConfig())


def test_models_that_change_their_logits_are_refused(tmp_path: Path):
    sizes: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "vocab_size": 12}
    heads: dict[str, Any] = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8}
    capped = Gemma2Config(final_logit_softcapping=0.5, initializer_range=1.0, **sizes, **heads)
    Gemma2ForCausalLM(capped).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="changes its logits"):
        load_policy(tmp_path, ModelConfig())


def test_a_model_whose_tokenizer_is_missing(make_qwen2: Callable[..., Qwen2ForCausalLM], tmp_path: Path):
    """transformers makes one of the model's kind, which knows no words."""
    make_qwen2().save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"reads a text as no tokens at all: .* such as tokenizer\.json"):
        load_tokenizer(tmp_path)


def test_a_tokenizer_without_an_end_is_refused(saved: Path, bpe_tokenizer: Qwen2Tokenizer):
    settings = json.loads((saved / "tokenizer_config.json").read_text())
    (saved / "tokenizer_config.json").write_text(json.dumps(settings | {"eos_token": None}))
    with pytest.raises(UserError, match="no end-of-sequence token"):
        load_tokenizer(saved)


def test_a_tokenizer_without_padding_pads_with_its_end(saved: Path):
    settings = json.loads((saved / "tokenizer_config.json").read_text())
    (saved / "tokenizer_config.json").write_text(json.dumps(settings | {"pad_token": None}))
    tokenizer = load_tokenizer(saved)
    assert tokenizer.pad_token_id == tokenizer.eos_token_id


# --- The rest -------------------------------------------------------------------------------------------------------


def test_all_tokens_that_end_a_response(make_qwen2: MakeQwen2, bpe_tokenizer: Qwen2Tokenizer):
    policy, own = make_qwen2(), bpe_tokenizer.eos_token_id
    for named, expected in (([own, 3], {own, 3}), (3, {own, 3}), (own, {own}), (None, {own})):
        policy.generation_config.eos_token_id = named
        assert stop_ids(policy, bpe_tokenizer) == sorted(expected)


@pytest.mark.parametrize("critic", ["own", "shared", "detached"])
def test_critics(make_qwen2: MakeQwen2, critic: Any):
    policy = make_qwen2()
    model = add_critic(policy, ModelConfig(critic=critic))
    assert (model.backbone is not None) == (critic == "own")
    assert model.detached == (critic == "detached")
    if model.backbone is not None:
        own, policys = model.backbone.state_dict(), policy.get_decoder().state_dict()
        assert all(torch.equal(own[name], policys[name]) for name in policys)
        assert all(own[name].data_ptr() != policys[name].data_ptr() for name in policys)


def test_devices():
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type in ("cpu", "cuda")
    with pytest.raises(UserError, match=r"training\.device=toaster"):
        choose_device("toaster")


@pytest.mark.parametrize(
    ("compute", "params", "autocast"),
    [
        ("float32", "float32", None),
        ("bfloat16", "float32", torch.bfloat16),
        ("bfloat16", "bfloat16", None),
        ("auto", "bfloat16", None),
    ],
)
def test_autocast(compute: Any, params: Any, autocast: torch.dtype | None):
    config = ModelConfig(compute_dtype=compute, param_dtype=params)
    assert choose_autocast(config, torch.device("cpu")) == autocast


def test_more_digits_than_the_parameters_have_are_refused():
    """Autocast would warn, and leave them as they are."""
    with pytest.raises(UserError, match=r"model\.param_dtype is bfloat16: set that to float32"):
        choose_autocast(ModelConfig(compute_dtype="float32", param_dtype="bfloat16"), torch.device("cpu"))


@pytest.mark.parametrize(
    ("compute", "device", "said"), [("auto", "cpu", "needs a GPU"), ("float32", "cuda", "computes in bfloat16")]
)
def test_flash_attention_needs_a_gpu_and_bfloat16(compute: Any, device: str, said: str):
    with pytest.raises(UserError, match=f"model.attention=flash_attention_2 {said}"):
        choose_autocast(ModelConfig(compute_dtype=compute, attention="flash_attention_2"), torch.device(device))


@pytest.mark.parametrize("kind", [GPT2Config, OPTConfig])
def test_a_policy_has_no_dropout(kind: Any, tmp_path: Path):
    """Or what is updated would not be what was sampled from."""
    layers = {"num_hidden_layers": 1, "num_attention_heads": 2}
    sizes = {"ffn_dim": 16, "word_embed_proj_dim": 16} if kind is OPTConfig else {}
    AutoModelForCausalLM.from_config(kind(vocab_size=32, hidden_size=16, **layers, **sizes)).save_pretrained(tmp_path)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path).train()
    assert not torch.equal(plain(input_ids=IDS).logits, plain(input_ids=IDS).logits)
    policy = load_policy(tmp_path, ModelConfig())
    sampled = policy.eval()(input_ids=IDS).logits
    assert torch.equal(policy.train()(input_ids=IDS).logits, sampled)


@pytest.mark.parametrize("where", ["module", "config"])
def test_a_policy_has_no_noise(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Routers of experts jitter in training mode; some models read such a rate from their config in each pass."""
    sizes: dict[str, Any] = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    config = PhimoeConfig(
        num_attention_heads=2, num_key_value_heads=1, num_local_experts=4, input_jitter_noise=0.1, **sizes
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    if where == "config":
        forward = PhimoeModel.forward

        def jittering(self: PhimoeModel, **inputs: Any) -> Any:
            output = forward(self, **inputs)
            rate = self.config.router_jitter_noise if self.training else 0.0
            output.last_hidden_state = output.last_hidden_state * (1 + rate * torch.randn(16))
            return output

        monkeypatch.setattr(PhimoeModel, "forward", jittering)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path).train()
    assert not torch.equal(plain(input_ids=IDS).logits, plain(input_ids=IDS).logits)
    torch.manual_seed(7)
    state = torch.get_rng_state()
    policy = load_policy(tmp_path, ModelConfig())
    assert torch.equal(torch.get_rng_state(), state)  # the check draws from no one's generator
    assert not policy.training
    sampled = policy(input_ids=IDS).logits
    assert torch.equal(policy.train()(input_ids=IDS).logits, sampled)


def test_noise_without_a_rate_is_refused(saved: Path, monkeypatch: pytest.MonkeyPatch):
    forward = Qwen2MLP.forward
    monkeypatch.setattr(
        Qwen2MLP, "forward", lambda self, x: forward(self, x * (1 + 0.01 * self.training * torch.randn_like(x)))
    )
    with pytest.raises(UserError, match=r"\(qwen2\) computes other logits in training mode"):
        load_policy(saved, ModelConfig())


def test_value_heads_read_states_of_any_width(tmp_path: Path):
    """OPT-350m projects its last hidden states to the width of its embeddings."""
    sizes: dict[str, Any] = {"num_hidden_layers": 1, "num_attention_heads": 2, "ffn_dim": 16, "word_embed_proj_dim": 8}
    config = OPTConfig(vocab_size=32, hidden_size=16, do_layer_norm_before=False, **sizes)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    model = add_critic(load_policy(tmp_path, ModelConfig()), ModelConfig())
    outputs = model(RowBatch.of([Row((3, 4), (5, 6), 1)], 1, torch.device("cpu")), 1.0)
    assert outputs.values_PH.shape == (1, 3)


def test_a_model_that_cannot_run_is_named(saved: Path, monkeypatch: pytest.MonkeyPatch):
    def broken(self: Any, **inputs: Any) -> None:
        raise TypeError("no such argument: use_cache")

    monkeypatch.setattr(Qwen2Model, "forward", broken)
    with pytest.raises(UserError, match=r"\(qwen2\) cannot be run as a causal language model: no such argument"):
        load_policy(saved, ModelConfig())


def test_a_setting_of_threads_comes_before_the_variable_and_that_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    before = torch.get_num_threads()
    try:
        for variable, told in (
            ("3", ["OMP_NUM_THREADS is 3, but training.threads is 2: torch uses 2 threads"]),
            ("2", []),
        ):
            caplog.clear()
            monkeypatch.setenv("OMP_NUM_THREADS", variable)
            use_threads(2)
            assert torch.get_num_threads() == 2
            assert caplog.messages == told
    finally:
        torch.set_num_threads(before)
