"""The pocket model computes what transformers' Llama computes, packed or alone."""

import dataclasses
import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jelicit.pocket.model import (
    PocketConfig,
    PocketLM,
    _attend,
    _mask,
    build,
    config_from_llama,
    from_llama_state_dict,
    llama_config_dict,
    param_count,
    params_of,
    to_llama_state_dict,
)
from jelicit.pocket.train import Batch, OptimiserConfig, init_state, train_steps

TINY = PocketConfig(vocab_size=97, d_model=64, n_layers=3, n_heads=2, d_ff=80, max_positions=512)


@pytest.fixture(autouse=True)
def _highest_precision():
    with jax.default_matmul_precision("highest"):
        yield


def _random_model(config: PocketConfig = TINY, seed: int = 0) -> PocketLM:
    # Far from the initial values: norms away from 1, weights large enough to matter.
    params = params_of(PocketLM(config, rngs=nnx.Rngs(seed)))
    rng = np.random.default_rng(seed)
    params = jax.tree.map(lambda x: x + 0.1 * rng.standard_normal(x.shape).astype("f"), params)
    return build(config, params)


@partial(jax.jit, static_argnums=0)
def _jitted(config, params, tokens, segments):
    return build(config, params)(tokens, segments)


def _logits(model: PocketLM, tokens, segments=None):
    return _jitted(model.config, params_of(model), tokens, segments)


def _tokens(shape, seed=0, vocab=TINY.vocab_size):
    return jnp.asarray(np.random.default_rng(seed).integers(0, vocab, shape), jnp.int32)


def _llama(model: PocketLM):
    torch = pytest.importorskip("torch", reason="torch comes with the extract extra")
    transformers = pytest.importorskip(
        "transformers", reason="transformers comes with the extract extra"
    )
    llama = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(**llama_config_dict(model.config))
    ).eval()
    weights = {name: torch.tensor(value) for name, value in to_llama_state_dict(model).items()}
    missing = set(llama.load_state_dict(weights, strict=False).missing_keys)
    assert missing == ({"lm_head.weight"} if model.config.tie_embeddings else set())
    llama.tie_weights()

    def logits(tokens):
        with torch.no_grad():
            return llama(torch.tensor(np.array(tokens), dtype=torch.long)).logits.numpy()

    return logits


@pytest.mark.parametrize("tied", [True, False])
def test_logits_are_those_of_transformers_llama(tied):
    config = dataclasses.replace(TINY, tie_embeddings=tied, rope_theta=5_000.0, norm_eps=1e-3)
    model = _random_model(config)
    llama = _llama(model)
    for length in (1, 64, 300):
        tokens = _tokens((2, length), seed=length)
        np.testing.assert_allclose(_logits(model, tokens), llama(tokens), atol=1e-4, rtol=0)


def test_logits_are_those_of_transformers_llama_after_training():
    state = init_state(TINY, OptimiserConfig(warmup_steps=0), seed=0)
    tokens = _tokens((5, 4, 33))
    ones = jnp.ones((5, 4, 32))
    batches = Batch(tokens[..., :-1], tokens[..., 1:], ones, ones.astype(jnp.int32))
    state, _ = train_steps(state, batches, jnp.ones(5))
    prompt = _tokens((3, 40), seed=1)
    expected = _llama(state.model())(prompt)
    np.testing.assert_allclose(_logits(state.model(), prompt), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("tied", [True, False])
def test_weights_survive_the_llama_layout(tied):
    config = dataclasses.replace(TINY, tie_embeddings=tied)
    params = params_of(_random_model(config))
    weights = to_llama_state_dict(params)
    assert weights["model.layers.0.mlp.up_proj.weight"].shape == (80, 64)  # [out, in]
    assert sum(w.size for w in weights.values()) == param_count(config)
    again = from_llama_state_dict(weights, config)
    jax.tree.map(np.testing.assert_array_equal, params, again)


def test_llama_weights_that_do_not_fit_are_refused_by_name():
    weights = to_llama_state_dict(_random_model())
    lost = {k: v for k, v in weights.items() if k != "model.layers.1.self_attn.k_proj.weight"}
    with pytest.raises(ValueError, match=r"layers\.1\.self_attn\.k_proj\.weight is missing"):
        from_llama_state_dict(lost, TINY)
    with pytest.raises(ValueError, match=r"layers\.2\."):
        from_llama_state_dict(weights, dataclasses.replace(TINY, n_layers=2))
    with pytest.raises(ValueError, match=r"blocks\.down have shape \(3, 80, 64\)"):
        from_llama_state_dict(weights, dataclasses.replace(TINY, d_ff=96))


def test_a_packed_document_has_the_logits_it_has_alone():
    model = _random_model()
    lengths = (5, 150, 1, 44)  # the second crosses a chunk of queries
    parts = [_tokens((1, n), seed=n) for n in lengths]
    padding = jnp.zeros((1, 20), jnp.int32)
    packed = jnp.concatenate([*parts, padding], axis=1)
    numbers = np.repeat([1, 2, 3, 4, 0], [*lengths, 20])[None]
    logits = _logits(model, packed, jnp.asarray(numbers, jnp.int32))
    assert np.isfinite(logits).all()
    start = 0
    for part in parts:
        stop = start + part.shape[1]
        np.testing.assert_allclose(logits[:, start:stop], _logits(model, part), atol=1e-4, rtol=0)
        start = stop


@pytest.mark.parametrize("position", [1, 100, 127, 128, 199])
def test_a_later_token_changes_nothing_earlier(position):
    model = _random_model()
    tokens = _tokens((1, 200))
    changed = tokens.at[0, position].set((tokens[0, position] + 1) % TINY.vocab_size)
    before, after = _logits(model, tokens), _logits(model, changed)
    np.testing.assert_array_equal(before[:, :position], after[:, :position])
    assert np.abs(before[:, position] - after[:, position]).max() > 1e-3


def test_chunked_attention_is_softmax_attention_and_so_is_its_derivative():
    q, k, v, wanted = jax.random.normal(jax.random.key(0), (4, 2, 2, 300, 32))
    segments = jnp.asarray(np.repeat([[1, 2, 3], [4, 5, 0]], 100, axis=1))
    mask = _mask(300, segments)

    def plain(q, k, v):
        heads_last = (x.swapaxes(1, 2) for x in (q, k, v))
        return jax.nn.dot_product_attention(*heads_last, mask=mask).swapaxes(1, 2)

    def gradients(attend):
        return jax.grad(lambda *parts: jnp.sum(wanted * attend(*parts)), argnums=(0, 1, 2))(q, k, v)

    np.testing.assert_allclose(_attend(q, k, v, mask), plain(q, k, v), atol=1e-5, rtol=0)
    ours = gradients(partial(_attend, mask=mask))
    for found, expected in zip(ours, gradients(plain), strict=True):
        assert np.abs(expected).max() > 0.1
        np.testing.assert_allclose(found, expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"d_model": 130}, "130 is not divisible by n_heads 4"),
        ({"d_model": 64}, "heads of 16 dimensions"),
        ({"n_layers": 0}, "n_layers is 0"),
        ({"norm_eps": 0.0}, "norm_eps is 0"),
    ],
)
def test_impossible_shapes_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        PocketConfig(**settings)


def test_too_long_a_sequence_is_refused():
    with pytest.raises(ValueError, match="513 tokens exceed max_positions 512"):
        _random_model()(_tokens((1, 513)))


# ------------------------------------------------------------- the exported folder


@pytest.fixture
def tokenizer_json():
    pytest.importorskip("tokenizers", reason="tokenizers comes with the extract extra")
    from extract.pocket_tokenizer import train_tokenizer

    return train_tokenizer(["the cat sat; 12 + 5 = 17\n"] * 5, vocab_size=290).to_str()


@pytest.mark.parametrize("tied", [True, False])
def test_exported_folder_loads_in_transformers(tmp_path, monkeypatch, tokenizer_json, tied):
    torch = pytest.importorskip("torch", reason="torch comes with the extract extra")
    transformers = pytest.importorskip(
        "transformers", reason="transformers comes with the extract extra"
    )
    from extract.pocket_export import export

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    config = dataclasses.replace(TINY, vocab_size=290, tie_embeddings=tied)
    model = _random_model(config)
    weights, fields = to_llama_state_dict(model), llama_config_dict(config)
    extra = {"seed": 3}
    export(weights, fields, tokenizer_json, tmp_path, trained_length=352, extra=extra)

    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(loaded) is transformers.LlamaForCausalLM
    assert (loaded.config.trained_length, loaded.config.seed) == (352, 3)
    inputs = tokenizer("the cat 12 + 5 = 17", return_tensors="pt")
    ids = inputs["input_ids"][0].tolist()
    assert ids[0] == tokenizer.bos_token_id == loaded.config.bos_token_id
    assert ids.count(ids[0]) == 1
    assert tokenizer.decode(ids, skip_special_tokens=True) == "the cat 12 + 5 = 17"
    assert tokenizer.pad_token_id == loaded.config.pad_token_id != ids[0]
    with torch.no_grad():
        found = loaded(**inputs).logits.numpy()
    np.testing.assert_allclose(_logits(model, jnp.asarray([ids])), found, atol=1e-4, rtol=0)


def test_export_refuses_what_would_not_load(tmp_path, tokenizer_json):
    from extract.pocket_export import export

    config = dataclasses.replace(TINY, vocab_size=290)
    weights, fields = to_llama_state_dict(_random_model(config)), llama_config_dict(config)
    unmarked = json.loads(tokenizer_json)
    unmarked["added_tokens"] = unmarked["added_tokens"][:1]
    with pytest.raises(ValueError, match=r"lacks \['<\|bos\|>'\]"):
        export(weights, fields, json.dumps(unmarked), tmp_path, trained_length=1)
    with pytest.raises(ValueError, match=r"\['vocab_size'\] are already in the config"):
        export(weights, fields, tokenizer_json, tmp_path, trained_length=1, extra={"vocab_size": 1})
    with pytest.raises(ValueError, match="vocab_size is 97"):
        export(weights, llama_config_dict(TINY), tokenizer_json, tmp_path, trained_length=1)
    assert not list(tmp_path.iterdir())


def test_the_shape_is_read_back_from_what_was_written():
    config = PocketConfig(
        vocab_size=300,
        d_model=96,
        n_layers=5,
        n_heads=3,
        d_ff=77,
        rope_theta=2e4,
        norm_eps=1e-6,
        max_positions=640,
        tie_embeddings=False,
    )
    assert config_from_llama(llama_config_dict(config)) == config
