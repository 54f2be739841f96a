"""Log-probabilities of verdicts after many prompts, in process: every shared beginning read once.

The prompts are a tree of tokens, and it is read depth first: what many prompts begin with is read
and kept (keys and values of one path at a time, so memory does not grow with the prompts), what
hangs below it is read in rows (see `extract.rows`), many rows in a pass. Few-shot prompts with
the same examples, and the leave-one-out prompts of ICM, cost little more than their parts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from tqdm import tqdm

from extract.models import LanguageModel
from extract.passes import can_share, forward, pad
from extract.reader import Reader
from extract.rows import Tokens, common, group, lay_out, most_in_a_row
from extract.verdicts import encode

Match = Literal["words", "tokens"]

EPSILON = 1e-5
"""Added to a verdict's probability before the logarithm when tokens are matched by their words."""

WORTH_A_PASS = 128
"""Tokens that keeping a beginning must save: a pass of its own costs about as much as these."""

PATH_SHARE = 8
"""Rows of a pass and the path before each hold at most this many times the token budget."""


class LocalScorer:
    """Scores verdicts after prompts with a language model in this process.

    Attributes:
        lm: The model.
        match: What counts as a verdict. "words": every token of the vocabulary that reads as the
            word (case and surrounding space ignored); its score is log(1e-5 + sum of P), as in
            Canavan et al. 2026, but over the whole vocabulary, where their server showed the 100
            likeliest. "tokens": exactly the verdict's own tokens, log P summed over them.
        token_budget: Most tokens, padding included, that a pass computes.
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
        token_budget: int = 8192,
        progress: bool = False,
    ) -> None:
        if match not in ("words", "tokens"):
            raise ValueError(f"match is {match!r}; allowed: words, tokens")
        if token_budget < 1:
            raise ValueError(f"token_budget is {token_budget}; allowed: 1 or more")
        self.lm, self.match, self.token_budget, self.progress = lm, match, token_budget, progress
        self.tokens_read = 0
        self.shares = can_share(lm)
        self._words: dict[str, tuple[int, ...]] | None = None

    @property
    def name(self) -> str:
        """Pins what the scores depend on: the model's digest and what counts as a verdict."""
        return f"{self.lm.digest}/{self.match}"

    def score(self, prompts: Sequence[tuple[str, ...]], verdicts: Sequence[str]) -> np.ndarray:
        """Log-probabilities [n, k], float32, of k verdicts after n prompts.

        Args:
            prompts: Each a tuple of text segments, which end just before the verdict. The segments
                are tokenised one by one (see `extract.verdicts`). Any order; equal prompts are read
                once.
            verdicts: Words with their own leading space, for example (" True", " False").

        Raises:
            ValueError: If there is no verdict, a prompt does not fit the model's context (the
                message says which), two verdicts have the same tokens, or (matching words) no token
                of the vocabulary reads as a verdict.
        """
        prompts = [tuple(prompt) for prompt in prompts]
        if not verdicts:
            raise ValueError("there are no verdicts to score")
        if not prompts:
            return np.zeros((0, len(verdicts)), np.float32)
        unique = list(dict.fromkeys(prompts))
        asked = self._asked(unique, verdicts)
        sums = np.zeros((len(unique), len(verdicts)))
        with tqdm(total=len(asked), unit="prompt", disable=not self.progress, leave=False) as bar:
            for members, logits in self._read([(ask.tokens, ask.first) for ask in asked]):
                start = 0
                for number in members:
                    ask = asked[number]
                    stop = start + len(ask.tokens) - ask.first
                    found = self._found(logits[start:stop], ask)
                    sums[ask.prompt, list(found)] += list(found.values())
                    start = stop
                bar.update(len(members))
        place = {prompt: number for number, prompt in enumerate(unique)}
        scores = sums[[place[prompt] for prompt in prompts]]
        if self.match == "words":
            scores = np.log(EPSILON + scores)
        return scores.astype(np.float32)

    # --- what is asked ---------------------------------------------------------------------------

    def _asked(self, prompts: Sequence[tuple[str, ...]], verdicts: Sequence[str]) -> list[_Ask]:
        encoded = encode(self.lm.tokenizer, prompts, tuple(verdicts))
        asked = []
        for number, item in enumerate(encoded):
            if len(set(item.verdicts)) < len(verdicts):
                raise ValueError(f"of the verdicts {tuple(verdicts)}, two have the same tokens")
            self._check_length(number, len(item.prompt) + max(map(len, item.verdicts)) - 1)
            if self.match == "words":
                targets = {place: self._reading_as(word) for place, word in enumerate(verdicts)}
                asked.append(_Ask(number, item.prompt, len(item.prompt) - 1, (targets,)))
                continue
            # After a verdict's last token nothing is asked, so that one is not read.
            for place, tokens in enumerate(item.verdicts):
                steps = tuple({place: (token,)} for token in tokens)
                asked.append(_Ask(number, item.prompt + tokens[:-1], len(item.prompt) - 1, steps))
        return asked

    def _check_length(self, number: int, length: int) -> None:
        limit = self.lm.context
        if limit is not None and length > limit:
            raise ValueError(
                f"prompt {number} and its verdict have {length} tokens, but {self.lm.name} reads "
                f"at most {limit}; use fewer or shorter examples"
            )

    def _reading_as(self, verdict: str) -> tuple[int, ...]:
        """The tokens that read as a word."""
        if self._words is None:
            self._words = {}
            tokenizer = self.lm.tokenizer
            for token, text in enumerate(
                tokenizer.batch_decode([[token] for token in range(len(tokenizer))])
            ):
                word = text.strip().casefold()
                self._words[word] = (*self._words.get(word, ()), token)
        tokens = self._words.get(verdict.strip().casefold())
        if tokens is None:
            raise ValueError(
                f"no token of {self.lm.name} reads as {verdict.strip()!r}; choose another word, or "
                "match='tokens', which takes a word of several tokens"
            )
        return tokens

    def _found(self, logits: torch.Tensor, ask: _Ask) -> dict[int, float]:
        """Per verdict, its sum of P (matching words) or of log P (matching tokens)."""
        log_p = logits.float().log_softmax(-1).cpu()
        totals: dict[int, float] = {}
        for row, targets in zip(log_p, ask.targets, strict=True):
            for place, tokens in targets.items():
                value = row[list(tokens)]
                total = value.exp().sum() if self.match == "words" else value.sum()
                totals[place] = totals.get(place, 0.0) + float(total)
        return totals

    # --- reading ---------------------------------------------------------------------------------

    def _read(
        self, wanted: Sequence[tuple[Tokens, int]]
    ) -> Iterator[tuple[list[int], torch.Tensor]]:
        """Per pass, the sequences in it, and the logits at their tokens from `first` on."""
        if self.shares:
            tree = _Tree(self.lm, wanted, self.token_budget)
            try:
                yield from tree.visit(0, len(wanted))
            finally:
                self.tokens_read += tree.tokens_read
            return
        order = sorted(range(len(wanted)), key=lambda number: -len(wanted[number][0]))
        while order:
            size = max(self.token_budget // len(wanted[order[0]][0]), 1)
            members, order = order[:size], order[size:]
            yield members, self._read_whole([wanted[number] for number in members])

    @torch.inference_mode()
    def _read_whole(self, wanted: Sequence[tuple[Tokens, int]]) -> torch.Tensor:
        batch = pad([tokens for tokens, _ in wanted], padding="left", device=self.lm.device)
        asked = [len(tokens) - first for tokens, first in wanted]
        width, most = batch.ids.shape[1], max(asked)
        self.tokens_read += int(batch.mask.sum())
        logits = forward(self.lm, batch, keep=torch.arange(width - most, width)).logits
        return torch.cat([row[most - n :] for row, n in zip(logits, asked, strict=True)])


@dataclass(frozen=True)
class _Ask:
    """A sequence to be read, and what is wanted at its tokens from `first` on."""

    prompt: int
    tokens: Tokens
    first: int
    targets: tuple[Mapping[int, tuple[int, ...]], ...]
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

    def visit(self, low: int, high: int) -> Iterator[tuple[list[int], torch.Tensor]]:
        """Reads the sequences low..high - 1 (in their order), all of which continue the path."""
        rows: list[tuple[int, list[int]]] = []
        yield from self._collect(low, high, rows)
        rows.sort(key=lambda row: -row[0])
        while rows:
            longest, path = rows[0][0], len(self._reader.path)
            size = min(self._budget // longest, PATH_SHARE * self._budget // (path + longest))
            batch, rows = rows[: max(size, 1)], rows[max(size, 1) :]
            yield self._pass([members for _, members in batch])

    def _collect(
        self, low: int, high: int, rows: list[tuple[int, list[int]]]
    ) -> Iterator[tuple[list[int], torch.Tensor]]:
        """Adds rows that continue the path; what begins alike beyond it is read at once."""
        reader, start = self._reader, len(self._reader.path)
        found = group(
            self._sequences[low:high],
            [0] * (high - low),
            start=start,
            width=reader.lm.d_model,
            most=min(most_in_a_row(reader.lm.d_model), self._budget),
        )
        alike = min([*self._common[low + 1 : high], *self._first[low:high]])
        if (alike - start) * (len(found) - 1) >= WORTH_A_PASS:
            reader.extend(self._sequences[low][start:alike])
            self.tokens_read += alike - start
            yield from self.visit(low, high)
            reader.cut(start)
            return
        edges = [place for place in range(low + 1, high) if self._common[place] <= alike]
        if len(found) == 1 or not edges:
            rows += [(tokens, [low + member for member in members]) for tokens, members in found]
            return
        for left, right in zip([low, *edges], [*edges, high], strict=True):
            yield from self._collect(left, right, rows)

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
