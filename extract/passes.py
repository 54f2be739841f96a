"""Forward passes over one batch of contrast pairs.

Two ways to the same numbers. `Separate` runs prompt + verdict as two sequences per item: simple,
right for every causal model, and the reference in the tests. `Shared` reads every beginning that
sequences share once (see `extract.token_trees`): less than half the work, for attention models.

Both give the attention mask and the position ids explicitly, read the states of the last token only
(the verdict's, or that of a text after it), and ask for logits only at the positions that predict a
verdict token.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, Protocol
from weakref import WeakKeyDictionary

import numpy as np
import torch

from extract.models import LanguageModel, states_wanted
from extract.reader import Reader, keeps_keys_and_values, rotation_depends_on_length
from extract.token_trees import Row, Tokens, common, group, lay_out, most_in_a_row
from extract.verdicts import Encoded

Padding = Literal["left", "right"]

LEAST_PREFIX = 32
"""Tokens from which a beginning that all prompts share is read only once per process."""

MEASURED = 300
"""Tokens of the prompts on which a model is tried out."""

LOGITS_AT_ONCE = 32
"""Rows of logits that are in float32 at the same time."""


class PairStates(NamedTuple):
    """One batch of n items, on the CPU."""

    states: dict[int, tuple[torch.Tensor, torch.Tensor]]
    """Per layer (pos, neg), each [n, D] in the model's dtype."""
    log_probs: torch.Tensor
    """[n, 2] float32: of the true and of the false verdict, summed over its tokens."""


class Pass(Protocol):
    """A way to compute contrast pairs, in three steps that may run in different threads."""

    name: str
    """What stores call it."""
    settings: dict[str, Any]
    """What else decides its numbers."""

    def weigh(self, items: Sequence[Encoded], budget: int) -> list[tuple[int, list[int]]]:
        """Items that are best read together: per group, its tokens and the items' places."""
        ...

    def stays(self, groups: Sequence[Sequence[Encoded]]) -> bool:
        """Whether groups that `weigh` made are computed as these groups when they meet in a batch.

        Batches are stored as items, so groups must be found again from their order alone.
        """
        ...

    def arrange(self, batch: Sequence[Encoded]) -> Any:
        """What of a batch can be made ready without the model."""
        ...

    def read(self, arranged: Any, layers: Sequence[int]) -> PairStates:
        """States and log-probabilities of what `arrange` made."""
        ...


# --- every shared beginning once -----------------------------------------------------------------


class Shared:
    """Every beginning that sequences share is read once.

    A prompt's two verdicts are two branches after it, and prompts that begin alike (claims about
    one question) branch where they differ. One forward pass, whose rows keep no cache; what all
    prompts have in common is read once per process and kept.
    """

    name = "shared"

    def __init__(self, lm: LanguageModel, prefix: Tokens = ()) -> None:
        """A model of which `can_share` holds; every prompt begins with `prefix`."""
        self.reader, self._prefix = Reader(lm), tuple(prefix)
        self.settings = {"shared_prefix": len(prefix), "attention": _attention(lm)}

    def weigh(self, items: Sequence[Encoded], budget: int) -> list[tuple[int, list[int]]]:
        """Groups of items whose rows cost less than rows of their own."""
        return self._group(items, budget, in_order=False)

    def stays(self, groups: Sequence[Sequence[Encoded]]) -> bool:
        """Whether `arrange` makes the same groups of them again."""
        found = self._group([item for group in groups for item in group], sys.maxsize)
        return [len(members) for _, members in found] == [len(group) for group in groups]

    def _group(
        self, items: Sequence[Encoded], budget: int, *, in_order: bool = True
    ) -> list[tuple[int, list[int]]]:
        width = self.reader.lm.d_model
        return group(
            [item.prompt for item in items],
            [_branches(item) for item in items],
            start=len(self._prefix),
            width=width,
            most=min(most_in_a_row(width), budget),
            in_order=in_order,
        )

    def arrange(self, batch: Sequence[Encoded]) -> Layout:
        """Rows of token trees, and where in them the numbers are found."""
        rows, wanted, picks = [], {}, []
        ends = np.empty((2, len(batch), 2), np.int64)
        for number, (_, members) in enumerate(self._group(batch, sys.maxsize)):
            pairs = [(item, side) for item in members for side in (0, 1)]
            sequences = [batch[item].prompt + batch[item].branches[side] for item, side in pairs]
            row = lay_out(sequences, start=len(self._prefix))
            rows.append(row)
            for (item, side), columns in zip(pairs, row.columns, strict=True):
                ends[side, item] = number, columns[-1]
                verdict, branch = batch[item].verdicts[side], batch[item].branches[side]
                # The column before a token of a verdict predicts it.
                before = columns[-len(branch) - 1 : -1][: len(verdict)]
                for token, column in zip(verdict, before, strict=True):
                    place = wanted.setdefault((number, int(column)), len(wanted))
                    picks.append((item, side, place, token))
        return Layout(tuple(rows), ends, tuple(wanted), np.array(picks))

    @torch.inference_mode()
    def read(self, arranged: Layout, layers: Sequence[int]) -> PairStates:
        """One forward pass."""
        if len(self.reader.path) < len(self._prefix):
            self.reader.extend(self._prefix)
        found = self.reader.read(arranged.rows, arranged.wanted, layers=layers)
        items, sides, places, tokens = torch.from_numpy(arranged.picks).unbind(1)
        each = log_softmax_at(found.logits, places, tokens)
        log_probs = torch.zeros(arranged.ends.shape[1], 2)
        log_probs.index_put_((items, sides), each, accumulate=True)
        states = {}
        for layer, hidden in found.hidden.items():
            at = torch.from_numpy(arranged.ends).to(hidden.device)
            pos, neg = hidden[at[..., 0], at[..., 1]].cpu()
            states[layer] = (pos, neg)
        return PairStates(states, log_probs)


class Layout(NamedTuple):
    """A batch of n items as rows."""

    rows: tuple[Row, ...]
    ends: np.ndarray
    """[2, n, 2]: row and column of the last token of each item's true and false branch."""
    wanted: tuple[tuple[int, int], ...]
    """The m (row, column) whose logits are needed."""
    picks: np.ndarray
    """[tokens of all verdicts, 4]: item, side, place in `wanted`, and the token."""


def shared_prefix(items: Sequence[Encoded]) -> Tokens:
    """What all prompts begin with, if it is worth its own pass; it leaves each its last token."""
    first = min(item.prompt for item in items)
    last = max(item.prompt for item in items)  # all others lie between these two
    length = min(common(first, last), *(len(item.prompt) - 1 for item in items))
    return first[:length] if length >= LEAST_PREFIX and len(items) > 1 else ()


def _branches(item: Encoded) -> int:
    """Tokens that an item's verdicts, with what follows, add to its prompt in a row."""
    true, false = item.branches
    return len(true) + len(false) - common(true, false)


def log_softmax_at(
    logits: torch.Tensor, places: torch.Tensor, tokens: torch.Tensor
) -> torch.Tensor:
    """Log P of each token [k] by the logits [m, vocabulary] of its place; float32, on the CPU.

    In float32 a few rows at a time: with a vocabulary of 128,000 all at once would be the largest
    array of a whole pass.
    """
    norms = torch.cat([part.float().logsumexp(1) for part in logits.split(LOGITS_AT_ONCE)])
    places, tokens = places.to(logits.device), tokens.to(logits.device)
    return (logits[places, tokens].float() - norms[places]).cpu()


_CAN_SHARE: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()


def can_share(lm: LanguageModel) -> bool:
    """Whether `Shared` gives this model's numbers: measured, on prompts of random tokens.

    Its masks are given whole. A model with a recurrent state cannot take them, and of the others
    that cannot (ALiBi, attention in chunks) not every one says so. Measured once per model.
    """
    if lm.model not in _CAN_SHARE:
        _CAN_SHARE[lm.model] = keeps_keys_and_values(lm.model) and _shared_agrees(lm)
    return _CAN_SHARE[lm.model]


def _shared_agrees(lm: LanguageModel) -> bool:
    rng = np.random.default_rng(0)
    length = min(MEASURED, (lm.context or MEASURED) - 4)
    ids = rng.integers(1, lm.config.vocab_size, length).tolist()
    half = length // 2
    batch = [
        Encoded((*ids[:half], *ids[half + 3 :]), ((ids[0],), (ids[1],))),
        Encoded((*ids[:half], *ids[half : half + 5]), ((ids[1],), (ids[2], ids[3]))),
    ]
    layers = (lm.n_blocks,)
    expected = Separate(lm).read(batch, layers)
    shared = Shared(lm, tuple(ids[: half // 2]))
    try:
        found = shared.read(shared.arrange(batch), layers)
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError):
        return False
    # Rounding of a model in half precision reaches some per cent after many blocks.
    near = 1e-3 if lm.dtype == "float32" else 0.1
    states = zip(found.states[lm.n_blocks], expected.states[lm.n_blocks], strict=True)
    apart = [(a.float() - b.float()).norm() / b.float().norm() for a, b in states]
    said = (found.log_probs - expected.log_probs).abs().max()
    # Logits are about as large as the log-probabilities of random tokens, and rounded to as much.
    rounding = 2 * torch.finfo(lm.model.dtype).eps * expected.log_probs.abs().max()
    return all(float(each) < near for each in apart) and float(said) < near + float(rounding)


# --- two sequences per item ----------------------------------------------------------------------


class Separate:
    """Prompt and verdict as two full sequences per item.

    Padding stands on the right: what comes before a text changes the state of some recurrent
    models (RWKV), whatever the mask says. Attention has the same numbers either way.
    """

    name = "separate"

    def __init__(self, lm: LanguageModel, *, padding: Padding = "right") -> None:
        self.lm = lm
        self._padding: Padding = padding
        self.settings = {"attention": _attention(lm)}

    def weigh(self, items: Sequence[Encoded], budget: int) -> list[tuple[int, list[int]]]:
        """Every item for itself, twice; in a batch of its own where others change its numbers."""
        alone = budget if rotation_depends_on_length(self.lm.config) else 0
        return [(max(2 * longest(item), alone), [place]) for place, item in enumerate(items)]

    def stays(self, groups: Sequence[Sequence[Encoded]]) -> bool:
        """Items are always computed one by one."""
        return True

    def arrange(self, batch: Sequence[Encoded]) -> Sequence[Encoded]:
        """The batch itself."""
        return batch

    @torch.inference_mode()
    def read(self, arranged: Sequence[Encoded], layers: Sequence[int]) -> PairStates:
        """One forward pass over 2n sequences."""
        lm, device = self.lm, self.lm.device
        prompts = [item.prompt for side in (0, 1) for item in arranged]
        verdicts = [item.verdicts[side] for side in (0, 1) for item in arranged]
        branches = [item.branches[side] for side in (0, 1) for item in arranged]
        rows = [prompt + branch for prompt, branch in zip(prompts, branches, strict=True)]
        padded = pad(rows, padding=self._padding, device=device)
        first = padded.offsets + _lengths(prompts, device) - 1
        # Column that predicts each verdict token; short verdicts repeat their last one, masked.
        targets = pad(verdicts, padding="right", device=device)
        columns = first[:, None] + targets.positions
        keep, where = torch.unique(columns, return_inverse=True)  # the same for every row
        outputs = forward(lm, padded, keep=keep, output_hidden_states=states_wanted(layers))
        logits = outputs.logits.float().log_softmax(-1)
        where = where.to(logits.device)[..., None].expand(-1, -1, logits.shape[-1])
        log_probs = _picked(logits.gather(1, where), targets).sum(1)
        last = padded.offsets + _lengths(rows, device) - 1
        return _pairs(outputs.hidden_states, last, log_probs, layers)


def _attention(lm: LanguageModel) -> str:
    return lm.model.config._attn_implementation


def longest(item: Encoded) -> int:
    """Tokens of an item's prompt with its longer verdict and what follows that."""
    return len(item.prompt) + max(len(branch) for branch in item.branches)


class Padded(NamedTuple):
    """Padded token ids [n, length] and what goes with them."""

    ids: torch.Tensor
    mask: torch.Tensor
    positions: torch.Tensor
    offsets: torch.Tensor
    """[n]: column of each row's first token."""


def forward(lm: LanguageModel, batch: Padded, *, keep: torch.Tensor, **options: Any) -> Any:
    """Runs the model for the logits of the columns `keep`; position ids go where they are taken."""
    accepted = inspect.signature(lm.model.forward).parameters
    if "position_ids" in accepted:
        options["position_ids"] = batch.positions
    if "logits_to_keep" in accepted:
        # On the CPU: an index there fits whichever device the logits are on.
        options["logits_to_keep"] = keep.cpu()
    outputs = lm.model(input_ids=batch.ids, attention_mask=batch.mask, use_cache=False, **options)
    if "logits_to_keep" not in accepted:
        outputs.logits = outputs.logits[:, keep.cpu()]
    return outputs


def pad(rows: Sequence[Sequence[int]], *, padding: Padding, device: str) -> Padded:
    """Pads with token 0, which the mask hides; padded columns repeat the nearest position."""
    width = max(len(row) for row in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    offsets = torch.zeros(len(rows), dtype=torch.long)
    for number, row in enumerate(rows):
        start = width - len(row) if padding == "left" else 0
        ids[number, start : start + len(row)] = torch.tensor(row, dtype=torch.long)
        mask[number, start : start + len(row)] = 1
        offsets[number] = start
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    return Padded(*(part.to(device) for part in (ids, mask, positions, offsets)))


def _lengths(rows: Sequence[Sequence[int]], device: str) -> torch.Tensor:
    return torch.tensor([len(row) for row in rows], device=device)


def _picked(log_probs: torch.Tensor, targets: Padded) -> torch.Tensor:
    """Log-probability of each target token [n, k]; 0 where a verdict has ended."""
    ids, mask = targets.ids.to(log_probs.device), targets.mask.to(log_probs.device)
    return log_probs.gather(-1, ids[..., None])[..., 0] * mask


def _pairs(
    hidden: Sequence[torch.Tensor],
    last: torch.Tensor,
    log_probs: torch.Tensor,
    layers: Sequence[int],
) -> PairStates:
    """Gathers the last token's state per row, and splits rows into (pos, neg)."""
    half = len(last) // 2
    states = {}
    for layer in layers:
        rows = torch.arange(len(last), device=hidden[layer].device)
        found = hidden[layer][rows, last.to(rows.device)].cpu()
        states[layer] = (found[:half], found[half:])
    return PairStates(states, torch.stack([log_probs[:half], log_probs[half:]], 1).cpu())
