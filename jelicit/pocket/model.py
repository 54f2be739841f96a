"""The pocket model: the Llama architecture in Flax, with the weights of all layers stacked.

A pre-norm decoder: RMSNorm, rotary positions (half-split convention), SwiGLU, no biases. It is
the computation of `LlamaForCausalLM` of the transformers library, number for number, so that
its weights are read there with no custom code: see `to_llama_state_dict`.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int
from safetensors.numpy import load_file

Params = dict[str, Any]
"""Nested plain dictionary of the weights: `embed`, `final_norm`, `blocks.*`, maybe `head`."""

_QUERY_CHUNK = 128


@dataclass(frozen=True, kw_only=True)
class PocketConfig:
    """Shape of a pocket model.

    Attributes:
        vocab_size: Number of token ids V.
        d_model: Width D of the residual stream.
        n_layers: Number of blocks L.
        n_heads: Attention heads; each has d_model / n_heads dimensions, at least 32 and even.
        d_ff: Width F of the feed-forward layer.
        rope_theta: Base of the rotary frequencies.
        norm_eps: Added to the mean square in RMSNorm.
        max_positions: Longest sequence that is accepted, in tokens.
        tie_embeddings: Whether the output layer is the embedding matrix.
    """

    vocab_size: int = 1024
    d_model: int = 128
    n_layers: int = 6
    n_heads: int = 4
    d_ff: int = 384
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-5
    max_positions: int = 8192
    tie_embeddings: bool = True

    def __post_init__(self) -> None:
        for name in ("vocab_size", "d_model", "n_layers", "n_heads", "d_ff", "max_positions"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("rope_theta", "norm_eps"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be positive")
        if self.d_model % self.n_heads:
            raise ValueError(
                f"d_model {self.d_model} is not divisible by n_heads {self.n_heads}; "
                "choose a width that is a multiple of the number of heads"
            )
        if self.head_dim < 32 or self.head_dim % 2:
            raise ValueError(
                f"d_model {self.d_model} / n_heads {self.n_heads} gives heads of {self.head_dim} "
                "dimensions; rotary heads must be even and at least 32: use fewer heads"
            )

    @property
    def head_dim(self) -> int:
        """Dimensions of one attention head."""
        return self.d_model // self.n_heads


# A family for questions of scale; "middle" is the one that ships.
SIZES = {
    "small": PocketConfig(d_model=64, n_layers=4, n_heads=2, d_ff=192),
    "middle": PocketConfig(n_layers=6),
    "large": PocketConfig(d_model=192, n_layers=6, n_heads=6, d_ff=576),
}


def param_count(config: PocketConfig) -> int:
    """Number of trained weights of a model of this shape."""
    d, f = config.d_model, config.d_ff
    block = 4 * d * d + 3 * d * f + 2 * d
    tables = config.vocab_size * d * (1 if config.tie_embeddings else 2)
    return tables + config.n_layers * block + d


class Blocks(nnx.Module):
    """Weights of all blocks, stacked over layers: kernels [L, in, out], norms [L, D].

    Stacked, one scan runs all layers and Muon orthogonalises one batch of matrices per kind.
    """

    def __init__(self, config: PocketConfig, *, rngs: nnx.Rngs):
        layers, d, f = config.n_layers, config.d_model, config.d_ff
        into, back = 0.02, 0.02 / math.sqrt(2 * layers)  # back: written to the residual stream
        self.attn_norm = nnx.Param(jnp.ones((layers, d)))
        self.q = _normal(rngs, (layers, d, d), into)
        self.k = _normal(rngs, (layers, d, d), into)
        self.v = _normal(rngs, (layers, d, d), into)
        self.o = _normal(rngs, (layers, d, d), back)
        self.mlp_norm = nnx.Param(jnp.ones((layers, d)))
        self.gate = _normal(rngs, (layers, d, f), into)
        self.up = _normal(rngs, (layers, d, f), into)
        self.down = _normal(rngs, (layers, f, d), back)


class PocketLM(nnx.Module):
    """The language model: token ids to next-token logits.

    Weights start normal with standard deviation 0.02; the two matrices that write to the
    residual stream start smaller by 1/sqrt(2 L) (Radford et al. 2019).
    """

    def __init__(self, config: PocketConfig, *, rngs: nnx.Rngs):
        self.config = config
        shape = (config.vocab_size, config.d_model)
        self.embed = _normal(rngs, shape, 0.02)
        self.blocks = Blocks(config, rngs=rngs)
        self.final_norm = nnx.Param(jnp.ones(config.d_model))
        if not config.tie_embeddings:
            self.head = _normal(rngs, shape, 0.02)

    def __call__(
        self, tokens: Int[Array, "b t"], segments: Int[Array, "b t"] | None = None
    ) -> Float[Array, "b t V"]:
        """Logits of the next token at every position, float32.

        Args:
            tokens: Token ids.
            segments: Number of the document each token belongs to, for packed documents; 0 is
                padding. Tokens attend only to earlier tokens of their own document. None: one
                document per row.

        Raises:
            ValueError: The sequence is longer than `max_positions`.
        """
        return self.logits(self.hidden(tokens, segments))

    def hidden(
        self, tokens: Int[Array, "b t"], segments: Int[Array, "b t"] | None = None
    ) -> Float[Array, "b t D"]:
        """Hidden states after the last block and the final norm; see `__call__`."""
        x = self.stream(tokens, segments)
        return rms_norm(x, self.final_norm[...], self.config.norm_eps).reshape(*tokens.shape, -1)

    def stream(
        self, tokens: Int[Array, "b t"], segments: Int[Array, "b t"] | None = None
    ) -> Float[Array, "n D"]:
        """The residual stream after the last block, before the final norm; n = b t rows."""
        length = tokens.shape[1]
        if length > self.config.max_positions:
            raise ValueError(
                f"sequences of {length} tokens exceed max_positions {self.config.max_positions}; "
                "shorten them or build the model with more positions"
            )
        x = self.embed[...][tokens.reshape(-1)]
        weights = nnx.to_pure_dict(nnx.state(self.blocks))
        return run_blocks(self.config, weights, x, length=length, segments=segments)[0]

    def logits(self, hidden: Float[Array, "*b D"]) -> Float[Array, "*b V"]:
        """Next-token logits of final hidden states, float32."""
        table = self.embed if self.config.tie_embeddings else self.head
        rows = hidden.reshape(-1, hidden.shape[-1]) @ table[...].T
        return rows.reshape(*hidden.shape[:-1], -1)


def run_blocks(
    config: PocketConfig,
    blocks: Params,
    x: Float[Array, "n D"],
    *,
    length: int,
    segments: Int[Array, "b t"] | None = None,
) -> tuple[Float[Array, "n D"], Float[Array, "L n D"]]:
    """Send a residual stream through some blocks.

    Args:
        config: Shape of the model; its number of layers plays no part.
        blocks: Weights of the blocks, stacked, as of `Blocks`.
        x: The stream before the first of them, the rows of a batch one after another (n = b t).
        length: Tokens of a row, t.
        segments: As of `PocketLM.__call__`.

    Returns:
        The stream after the last block, and after each of them.
    """
    cos, sin = _rotary_table(config, length)
    mask = _mask(length, segments)

    def block(x: Array, w: Params) -> tuple[Array, Array]:
        x = _block(x, w, config=config, cos=cos, sin=sin, mask=mask)
        return x, x

    # Unrolled: the backward pass then copies no stacked residuals, and what no one reads of the
    # second result is never made. Flat rows: XLA's CPU products of 3-D arrays are slower in the
    # backward pass.
    return jax.lax.scan(block, x, blocks, unroll=True)


def _normal(rngs: nnx.Rngs, shape: tuple[int, ...], std: float) -> nnx.Param:
    return nnx.Param(std * jax.random.normal(rngs.params(), shape))


def rms_norm(x: Float[Array, "n D"], scale: Float[Array, " D"], eps: float) -> Float[Array, "n D"]:
    """Rows scaled to root mean square 1, then by ``scale``; ``eps`` is added to the mean square."""
    return scale[None] * (x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + eps))


def _rotary_table(
    config: PocketConfig, length: int
) -> tuple[Float[Array, "1 1 t k/2"], Float[Array, "1 1 t k/2"]]:
    half = config.head_dim // 2
    inverse = config.rope_theta ** (-np.arange(half) / half)
    angles = np.arange(length)[:, None] * inverse  # float64: exact at far positions
    cos, sin = np.cos(angles)[None, None], np.sin(angles)[None, None]
    return jnp.asarray(cos, jnp.float32), jnp.asarray(sin, jnp.float32)


def _rotate(x: Float[Array, "b h t k"], cos: Array, sin: Array) -> Float[Array, "b h t k"]:
    first, second = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def _mask(length: int, segments: Int[Array, "b t"] | None) -> Bool[Array, "b 1 t t"]:
    causal = jnp.tril(jnp.ones((1, 1, length, length), bool))
    if segments is None:
        return causal
    return causal & (segments[:, None, :, None] == segments[:, None, None, :])


def _attend(q: Array, k: Array, v: Array, mask: Array) -> Float[Array, "b h t k"]:
    """Causal softmax attention; q, k, v are [b, h, t, k].

    Queries go in chunks, each against the keys up to its own end: on long rows that skips
    almost half of the score matrix.
    """
    length, q = q.shape[2], q.shape[3] ** -0.5 * q
    chunks = []
    for start in range(0, length, _QUERY_CHUNK):
        stop = min(start + _QUERY_CHUNK, length)
        parts = q[:, :, start:stop], k[:, :, :stop], v[:, :, :stop]
        chunks.append(_attend_to(*parts, mask[:, :, start:stop, :stop]))
    return jnp.concatenate(chunks, axis=2)


@jax.custom_vjp
def _attend_to(q: Array, k: Array, v: Array, mask: Array) -> Float[Array, "b h t k"]:
    """Softmax attention of scaled queries to the keys that a mask leaves each of them."""
    return _attend_forward(q, k, v, mask)[0]


# The derivative is written out, as in FlashAttention (Dao et al. 2022): with d = sum_k(do * o) the
# gradient of a score is p (do v' - d), two passes over the scores where the derivative of a softmax
# takes four. A step of training is 14 % shorter.
def _attend_forward(q: Array, k: Array, v: Array, mask: Array) -> tuple[Array, tuple[Array, ...]]:
    scores = jnp.where(mask, jnp.einsum("bhtk,bhsk->bhts", q, k), -jnp.inf)
    raised = jnp.exp(scores - jnp.max(scores, axis=-1, keepdims=True))
    total = jnp.sum(raised, axis=-1, keepdims=True)
    out = (raised @ v) / total
    return out, (q, k, v, raised, total, out)


def _attend_backward(saved: tuple[Array, ...], d_out: Array) -> tuple[Array, Array, Array, None]:
    q, k, v, raised, total, out = saved
    d_out = d_out / total
    d_scores = raised * (
        jnp.einsum("bhtk,bhsk->bhts", d_out, v) - jnp.sum(d_out * out, axis=-1, keepdims=True)
    )
    return (
        jnp.einsum("bhts,bhsk->bhtk", d_scores, k),
        jnp.einsum("bhts,bhtk->bhsk", d_scores, q),
        jnp.einsum("bhts,bhtk->bhsk", raised, d_out),
        None,
    )


_attend_to.defvjp(_attend_forward, _attend_backward)


def _block(
    x: Float[Array, "n D"], w: Params, *, config: PocketConfig, cos: Array, sin: Array, mask: Array
) -> Float[Array, "n D"]:
    def heads(y: Float[Array, "n D"]) -> Float[Array, "b h t k"]:
        return y.reshape(-1, cos.shape[2], config.n_heads, config.head_dim).swapaxes(1, 2)

    y = rms_norm(x, w["attn_norm"], config.norm_eps)
    q, k = _rotate(heads(y @ w["q"]), cos, sin), _rotate(heads(y @ w["k"]), cos, sin)
    attended = _attend(q, k, heads(y @ w["v"]), mask)
    x = x + attended.swapaxes(1, 2).reshape(x.shape) @ w["o"]
    y = rms_norm(x, w["mlp_norm"], config.norm_eps)
    return x + (jax.nn.silu(y @ w["gate"]) * (y @ w["up"])) @ w["down"]


# ------------------------------------------------------------- weights in and out


class HasParams(Protocol):
    """Anything that carries weights in a `params` field, such as a training state."""

    params: Params


def params_of(source: "PocketLM | HasParams | Params") -> Params:
    """The weights of a model, a training state or a dictionary of weights, as a dictionary."""
    if isinstance(source, PocketLM):
        return nnx.to_pure_dict(nnx.state(source, nnx.Param))
    if isinstance(source, dict):
        return source
    return source.params


@lru_cache(maxsize=32)
def _abstract(config: PocketConfig) -> tuple[Any, Any]:
    return nnx.split(nnx.eval_shape(lambda: PocketLM(config, rngs=nnx.Rngs(0))))


def build(config: PocketConfig, params: Params) -> PocketLM:
    """A model of the given shape around given weights (shared, not copied; may be traced)."""
    graph, state = _abstract(config)
    state = jax.tree.map(lambda x: x, state)  # a fresh container: the cached one stays abstract
    nnx.replace_by_pure_dict(state, params)
    return nnx.merge(graph, state)


def new_blocks(config: PocketConfig, count: int, seed: int) -> Params:
    """Weights of blocks to put on top of a model; the same seed gives the same ones.

    They start as those of `PocketLM`, but write to the residual stream a fifth as much: the
    deepened model begins close to the one below.
    """
    fresh = Blocks(replace(config, n_layers=count), rngs=nnx.Rngs(params=seed))
    weights = nnx.to_pure_dict(nnx.state(fresh))
    back = {name: 0.2 * weights[name] for name in ("o", "down")}
    return weights | back


def deepened(params: Params, blocks: Params, final_norm: Float[Array, " D"]) -> Params:
    """A model's weights with further blocks on top and a new final norm."""
    stacked = {
        name: jnp.concatenate([below, blocks[name]]) for name, below in params["blocks"].items()
    }
    return params | {"blocks": stacked, "final_norm": final_norm}


# Our name, the name inside a layer of LlamaForCausalLM.
_LLAMA_NAMES = {
    "attn_norm": "input_layernorm",
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "o": "self_attn.o_proj",
    "mlp_norm": "post_attention_layernorm",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}


def to_llama_state_dict(source: PocketLM | HasParams | Params) -> dict[str, np.ndarray]:
    """Weights under the names and in the layout of `LlamaForCausalLM`, float32.

    Linear weights are transposed to [out, in]. Tied models have no `lm_head.weight`.
    """
    params = jax.tree.map(np.asarray, params_of(source))
    weights = {
        "model.embed_tokens.weight": params["embed"],
        "model.norm.weight": params["final_norm"],
    }
    if "head" in params:
        weights["lm_head.weight"] = params["head"]
    for ours, theirs in _LLAMA_NAMES.items():
        for layer, value in enumerate(params["blocks"][ours]):
            weights[f"model.layers.{layer}.{theirs}.weight"] = value.T
    return {name: np.ascontiguousarray(value, np.float32) for name, value in weights.items()}


def from_llama_state_dict(weights: Mapping[str, np.ndarray], config: PocketConfig) -> Params:
    """Weights for `build` from the names and the layout of `LlamaForCausalLM`.

    Raises:
        ValueError: A weight is missing, has another shape than `config` asks for, or is unknown.
    """
    named = dict(weights)
    if config.tie_embeddings:
        named.pop("lm_head.weight", None)  # the same matrix, written out by some writers

    def take(name: str) -> np.ndarray:
        if name not in named:
            raise ValueError(f"weight {name} is missing; the config asks for {config}")
        return np.asarray(named.pop(name), np.float32).T

    def layers(theirs: str) -> np.ndarray:
        return np.stack([take(f"model.layers.{n}.{theirs}.weight") for n in range(config.n_layers)])

    params: Params = {
        "embed": take("model.embed_tokens.weight").T,
        "final_norm": take("model.norm.weight"),
        "blocks": {ours: layers(theirs) for ours, theirs in _LLAMA_NAMES.items()},
    }
    if not config.tie_embeddings:
        params["head"] = take("lm_head.weight").T
    if named:
        raise ValueError(f"weights {sorted(named)[:4]} do not belong to a model with {config}")
    _check_shapes(params, config)
    return jax.tree.map(jnp.asarray, params)


def read_model(folder: str | Path) -> PocketLM:
    """A pocket model from its Hugging Face folder (config.json, model.safetensors)."""
    fields = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    config = config_from_llama(fields)
    weights = load_file(Path(folder) / "model.safetensors")
    return build(config, from_llama_state_dict(weights, config))


def _check_shapes(params: Params, config: PocketConfig) -> None:
    wanted = nnx.to_pure_dict(_abstract(config)[1])
    for path, leaf in jax.tree_util.tree_leaves_with_path(wanted):
        value: Any = params
        for key in path:
            value = value[key.key]
        if value.shape != leaf.shape:
            name = ".".join(str(key.key) for key in path)
            raise ValueError(f"weights {name} have shape {value.shape}; wanted {leaf.shape}")


def config_from_llama(fields: Mapping[str, Any]) -> PocketConfig:
    """The shape that `llama_config_dict` wrote, as read back from a config.json.

    Raises:
        KeyError: A field is missing.
    """
    return PocketConfig(
        vocab_size=fields["vocab_size"],
        d_model=fields["hidden_size"],
        n_layers=fields["num_hidden_layers"],
        n_heads=fields["num_attention_heads"],
        d_ff=fields["intermediate_size"],
        rope_theta=fields["rope_theta"],
        norm_eps=fields["rms_norm_eps"],
        max_positions=fields["max_position_embeddings"],
        tie_embeddings=fields["tie_word_embeddings"],
    )


def llama_config_dict(config: PocketConfig) -> dict[str, Any]:
    """The same shape as the fields of a `LlamaConfig` (no token ids: the tokenizer has those)."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "intermediate_size": config.d_ff,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": config.max_positions,
        "rms_norm_eps": config.norm_eps,
        # Both spellings: before and since transformers 5.
        "rope_theta": config.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "attention_bias": False,
        "mlp_bias": False,
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "tie_word_embeddings": config.tie_embeddings,
        "use_cache": True,
    }
