"""Log-probabilities of verdicts after many prompts, in process: every shared beginning read once.

The prompts are a tree of tokens, and it is read depth first: what many prompts begin with is read
and kept (keys and values of one path at a time, so memory does not grow with the prompts), what
hangs below it is read in rows (see `extract.token_trees`), many rows in a pass. Few-shot prompts
with the same examples, and the leave-one-out prompts of ICM, cost little more than their parts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from tqdm import tqdm

from extract.chat import encode_for
from extract.models import LanguageModel, choose_token_budget
from extract.passes import can_share, forward, log_softmax_at, pad
from extract.reader import Reader, padded_length, rotation_depends_on_length
from extract.token_trees import Tokens, common, group, lay_out, most_in_a_row
from extract.verdicts import (
    EPSILON,
    Match,
    check_joints,
    check_prompts,
    distinct,
    lengths_read,
    reading_as,
    readings,
)
from jelicit.data.long_prompts import LongPromptError

WORTH_A_PASS = 128
"""Tokens that keeping a beginning must save: a pass of its own costs about as much as these."""

PATH_SHARE = 8
"""Rows of a pass and the path before each hold at most this many times the token budget."""


SHOWN = 120
"""Characters of an item's text that a message shows: a scorer knows no ids."""


class LocalScorer:
    """Scores verdicts after prompts with a language model in this process.

    Attributes:
        lm: The model.
        match: What counts as a verdict. "words": every token of the vocabulary that reads as the
            word (case and surrounding space ignored); its score is log(1e-5 + sum of P), as in
            Canavan et al. 2026, but over the whole vocabulary, where their server showed the 100
            likeliest. "tokens": exactly the verdict's own tokens, log P summed over them.
        token_budget: Most tokens, padding included, that a pass computes (by default
            `choose_token_budget`).
        progress: Show a progress bar.
        tokens_read: Tokens that the model has read so far, padding not counted.
        shares: Whether shared beginnings are read once. Models that cannot (recurrent states,
            ALiBi) read every prompt whole.
    """

    def __init__(
        self,
        lm: LanguageModel,
        *,
        match: Match = "words",
        token_budget: int | None = None,
        progress: bool = False,
    ) -> None:
        if match not in ("words", "tokens"):
            raise ValueError(f"match is {match!r}; allowed: words, tokens")
        if token_budget is None:
            token_budget = choose_token_budget(lm.device)
        if token_budget < 1:
            raise ValueError(f"token_budget is {token_budget}; allowed: 1 or more")
        self.lm, self.token_budget, self.progress = lm, token_budget, progress
        self.match: Match = match
        self.tokens_read = 0
        self.shares = can_share(lm)
        self._words: dict[str, tuple[int, ...]] | None = None

    @property
    def name(self) -> str:
        """Pins what the scores depend on: weights, dtype, what counts as a verdict, a template."""
        chat = "" if self.lm.chat is None else f"/chat {self.lm.chat.digest}"
        return f"{self.lm.digest}/{self.lm.dtype}/{self.match}{chat}"

    @property
    def context(self) -> int | None:
        """Most tokens of a prompt, or None where the model's config names no limit."""
        return self.lm.context

    def lengths(self, prompts: Sequence[tuple[str, ...]], verdicts: Sequence[str]) -> np.ndarray:
        """Tokens [n] that `score` would read of each prompt, with its longest verdict's share."""
        prompts, words = check_prompts(prompts, verdicts)
        encoded = encode_for(self.lm, prompts, words)
        return np.array(lengths_read(encoded, self.match), np.int64)

    def score(self, prompts: Sequence[tuple[str, ...]], verdicts: Sequence[str]) -> np.ndarray:
        """Log-probabilities [n, k], float32, of k verdicts after n prompts.

        Args:
            prompts: Each a tuple of text segments, which end just before the verdict. The segments
                are tokenised one by one (see `extract.verdicts`), or are turns of the model's chat
                template (`extract.chat`). Any order; equal prompts are read once.
            verdicts: Words with their own leading space, for example (" True", " False").

        Raises:
            ValueError: If there is no verdict, a prompt is no tuple of texts or does not fit the
                model's context (the message says which), two verdicts are the same, or (matching
                words) no token of the vocabulary reads as a verdict.
        """
        prompts, words = check_prompts(prompts, verdicts)
        if not prompts:
            return np.zeros((0, len(words)), np.float32)
        unique, places, rows = distinct(prompts)
        asked = self._asked(unique, words, places)
        sums = np.zeros((len(unique), len(words)))
        with tqdm(total=len(asked), unit="text", disable=not self.progress, leave=False) as bar:
            for members, logits in self._read([(ask.tokens, ask.first) for ask in asked]):
                self._add(sums, [asked[number] for number in members], logits)
                bar.update(len(members))
        scores = sums[rows]
        if self.match == "words":
            scores = np.log(EPSILON + scores)
        return scores.astype(np.float32)

    # --- what is asked ---------------------------------------------------------------------------

    def _asked(
        self, prompts: Sequence[tuple[str, ...]], words: tuple[str, ...], numbers: Sequence[int]
    ) -> list[_Ask]:
        encoded = encode_for(self.lm, prompts, words)
        if self.match == "tokens":  # words are whatever token comes next, however it is joined
            check_joints(encoded, words)
        asked: dict[tuple[int, Tokens], _Ask] = {}
        for number, item in enumerate(encoded):
            prompt, first = item.prompt, len(item.prompt) - 1
            if self.match == "words":
                self._check_length(numbers[number], prompts[number], len(prompt))
                readings = {at: self._reading_as(word) for at, word in enumerate(words)}
                asked[number, prompt] = _Ask(number, prompt, first, (readings,))
                continue
            if len(set(item.verdicts)) < len(words):
                raise ValueError(f"of the verdicts {words}, two have the same tokens")
            for at, tokens in enumerate(item.verdicts):
                # After a verdict's last token nothing is asked, so that one is not read.
                text = prompt + tokens[:-1]
                self._check_length(numbers[number], prompts[number], len(text))
                steps: tuple[dict[int, tuple[int, ...]], ...] = tuple({} for _ in tokens)
                ask = asked.setdefault((number, text), _Ask(number, text, first, steps))
                for step, token in zip(ask.targets, tokens, strict=True):
                    step[at] = (token,)
        return list(asked.values())

    def _check_length(self, number: int, prompt: tuple[str, ...], length: int) -> None:
        limit = self.lm.context
        if limit is not None and length > limit:
            asked = prompt[-1] if len(prompt[-1]) <= SHOWN else f"{prompt[-1][:SHOWN]}..."
            raise LongPromptError(
                number,
                f"has {length} tokens (with its verdict, where that is read), but "
                f"{self.lm.name} reads at most {limit}; use fewer or shorter examples, or leave "
                f"the item out that it asks about: {asked!r}",
            )

    def _reading_as(self, verdict: str) -> tuple[int, ...]:
        """The tokens that read as a word."""
        if self._words is None:
            self._words = readings(self.lm.tokenizer)
        return reading_as(self._words, verdict, model=self.lm.name)

    def _add(self, sums: np.ndarray, asks: Sequence[_Ask], logits: torch.Tensor) -> None:
        """Adds P (matching words) or log P (matching tokens) of what was asked to its verdict."""
        picks = []
        row = 0
        for ask in asks:
            for step in ask.targets:
                picks += [(row, t, ask.prompt, at) for at, tokens in step.items() for t in tokens]
                row += 1
        rows, tokens, prompts, verdicts = torch.tensor(picks).unbind(1)
        found = log_softmax_at(logits, rows, tokens).double()
        values = found.exp() if self.match == "words" else found
        np.add.at(sums, (prompts.numpy(), verdicts.numpy()), values.numpy())

    # --- reading ---------------------------------------------------------------------------------

    def _read(
        self, wanted: Sequence[tuple[Tokens, int]]
    ) -> Iterator[tuple[list[int], torch.Tensor]]:
        """Per pass, the sequences in it, and the logits at their tokens from `first` on."""
        if self.shares:
            tree = _Tree(self.lm, wanted, self.token_budget)
            try:
                yield from tree.read()
            finally:
                self.tokens_read += tree.tokens_read
            return
        order = sorted(range(len(wanted)), key=lambda number: -len(wanted[number][0]))
        alone = rotation_depends_on_length(self.lm.config)
        while order:
            size = 1 if alone else max(self.token_budget // len(wanted[order[0]][0]), 1)
            members, order = order[:size], order[size:]
            yield members, self._read_whole([wanted[number] for number in members])

    @torch.inference_mode()
    def _read_whole(self, wanted: Sequence[tuple[Tokens, int]]) -> torch.Tensor:
        # On the right, since some recurrent models (RWKV) do not pass over padding before a text.
        batch = pad([tokens for tokens, _ in wanted], padding="right", device=self.lm.device)
        self.tokens_read += int(batch.mask.sum())
        columns = [torch.arange(first, len(tokens)) for tokens, first in wanted]
        keep, where = torch.unique(torch.cat(columns), return_inverse=True)
        logits = forward(self.lm, batch, keep=keep).logits
        rows = torch.cat([torch.full_like(part, row) for row, part in enumerate(columns)])
        return logits[rows.to(logits.device), where.to(logits.device)]


@dataclass(frozen=True)
class _Ask:
    """A sequence to be read, and what is wanted at its tokens from `first` on."""

    prompt: int
    tokens: Tokens
    first: int
    targets: tuple[dict[int, tuple[int, ...]], ...]
    """Per token from `first` on, the next tokens that count, by verdict."""


class _Tree:
    """Reads sequences depth first through their tree."""

    def __init__(
        self, lm: LanguageModel, wanted: Sequence[tuple[Tokens, int]], token_budget: int
    ) -> None:
        self.tokens_read = 0
        self._reader, self._budget = Reader(lm), token_budget
        self._order = sorted(range(len(wanted)), key=lambda number: wanted[number][0])
        self._sequences = [wanted[number][0] for number in self._order]
        self._first = [wanted[number][1] for number in self._order]
        pairs = zip(self._sequences[:-1], self._sequences[1:], strict=True)
        self._common = [0, *(common(a, b) for a, b in pairs)]
        """Per sequence, the tokens that it begins with alike the one before it."""

    def read(self) -> Iterator[tuple[list[int], torch.Tensor]]:
        """Per pass, the sequences in it and their logits.

        A part of the tree is a run of the sequences in their order. What a part begins with beyond
        the path is either kept (the path is extended, and cut when the part is done) or read in
        rows; parts of rows that wait for a pass continue the present path.
        """
        waiting: list[list[tuple[int, list[int]]]] = [[]]
        todo: list[tuple[int, int] | int] = [0, (0, len(self._sequences))]
        while todo:
            part = todo.pop()
            if isinstance(part, int):  # all that continues this path was seen: read, and cut
                yield from self._passes(waiting.pop())
                self._reader.cut(part)
                continue
            low, high = part
            start = len(self._reader.path)
            rows = self._rows(low, high)
            alike = min([*self._common[low + 1 : high], *self._first[low:high]])
            edges = [at for at in range(low + 1, high) if self._common[at] <= alike]
            if (alike - start) * max(len(rows) - 1, len(edges)) >= WORTH_A_PASS and len(rows) > 1:
                self._reader.extend(self._sequences[low][start:alike])
                self.tokens_read += alike - start
                waiting.append([])
                todo += [start, part]
            elif len(rows) == 1 or not edges:
                waiting[-1] += rows
            else:
                bounds = [low, *edges, high]
                todo += reversed(list(pairwise(bounds)))

    def _rows(self, low: int, high: int) -> list[tuple[int, list[int]]]:
        width = self._reader.lm.d_model
        found = group(
            self._sequences[low:high],
            [0] * (high - low),
            start=len(self._reader.path),
            width=width,
            most=min(most_in_a_row(width), self._budget),
            in_order=True,  # they are sorted
        )
        return [(tokens, [low + member for member in members]) for tokens, members in found]

    def _passes(
        self, rows: list[tuple[int, list[int]]]
    ) -> Iterator[tuple[list[int], torch.Tensor]]:
        rows.sort(key=lambda row: -row[0])
        while rows:
            longest, path = padded_length(rows[0][0]), len(self._reader.path)
            size = min(self._budget // longest, PATH_SHARE * self._budget // (path + longest))
            batch, rows = rows[: max(size, 1)], rows[max(size, 1) :]
            yield self._pass([members for _, members in batch])

    def _pass(self, groups: Sequence[list[int]]) -> tuple[list[int], torch.Tensor]:
        reader = self._reader
        start = len(reader.path)
        rows, columns, members = [], [], []
        for number, places in enumerate(groups):
            row = lay_out([self._sequences[place] for place in places], start=start)
            rows.append(row)
            for place, found in zip(places, row.columns, strict=True):
                columns += [(number, int(column)) for column in found[self._first[place] - start :]]
                members.append(self._order[place])
        self.tokens_read += sum(len(row.ids) for row in rows)
        return members, reader.read(rows, columns).logits
