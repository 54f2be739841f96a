"""What a pocket model knows: accuracy on held-out questions, from the logits of its next token.

All measures here are the model's own answers (zero-shot, few-shot, stated facts); none looks at a
hidden state.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from jelicit.data.features import FEATURES
from jelicit.data.items import Item, labels
from jelicit.data.prompts import FORMATS, PromptFormat, few_shot, segments
from jelicit.pocket.corpus import WordEncoder
from jelicit.pocket.world import KINDS, dataset_items
from jelicit.pocket.world import lexicon as lex
from jelicit.pocket.world.kinds import arithmetic_result

LogitsFn = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(tokens [n, t], lengths [n]) -> logits of the token after each prompt [n, V]."""

ZERO_SHOT_KINDS = ("arithmetic", "larger_than", "facts", "comments", "commands", "pairs")
FEW_SHOT_JUDGES = ("truth", "sycophancy", "punctuation", "tense", "elm")
RIVALS = (*FEATURES, "opposite")
"""What examples' labels may go by instead of the truth, in `label_reading`."""
DEFAULT_FORMAT = {
    "arithmetic": "claim",
    "larger_than": "claim",
    "facts": "facts/truth",
    "far_facts": "facts/truth",
    "comments": "comments/rude",
    "commands": "commands/suspicious",
    "pairs": "pair",
    "poems": "pair",
    "opinions": "claim",
}


@dataclass(frozen=True)
class Prompts:
    """Prompts as token ids with the verdict that is right for each.

    Attributes:
        tokens: [n, t], padded at the end with 0.
        lengths: Tokens of each prompt [n].
        verdicts: Token ids of the true and the false word (true, false).
        labels: Which of them is right [n], bool.
    """

    tokens: np.ndarray
    lengths: np.ndarray
    verdicts: tuple[int, int]
    labels: np.ndarray


def _pad(rows: Sequence[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    lengths = np.array([len(row) for row in rows], np.int32)
    # One width for all measures of a kind: the logits function compiles once per width.
    width = -(-int(lengths.max()) // 64) * 64
    tokens = np.zeros((len(rows), width), np.int32)
    for row, ids in zip(tokens, rows, strict=True):
        row[: len(ids)] = ids
    return tokens, lengths


def make_prompts(
    items: Sequence[Item],
    template: PromptFormat,
    encode: WordEncoder,
    *,
    target: str,
    examples: Sequence[Sequence[tuple[Item, bool | None]]] | None = None,
) -> Prompts:
    """Zero-shot prompts (or few-shot ones, with ``examples`` per item) and their right verdicts."""
    texts = [
        segments(item, template) if examples is None else few_shot(item, examples[i], template)
        for i, item in enumerate(items)
    ]
    rows = [[encode.bos, *(token for part in text for token in encode(part))] for text in texts]
    tokens, lengths = _pad(rows)
    [true_id], [false_id] = encode(template.true_word), encode(template.false_word)
    return Prompts(tokens, lengths, (true_id, false_id), labels(items, target) == 1)


def accuracy(logits: LogitsFn, prompts: Prompts) -> float:
    """Share of prompts whose right verdict has the greater logit of the two."""
    scores = np.asarray(logits(prompts.tokens, prompts.lengths))
    says_true = scores[:, prompts.verdicts[0]] > scores[:, prompts.verdicts[1]]
    return float(np.mean(says_true == prompts.labels))


def zero_shot_accuracy(
    logits: LogitsFn,
    encode: WordEncoder,
    kind: str,
    *,
    split: str = "test",
    n: int | None = None,
    template: str | None = None,
) -> float:
    """Accuracy of the model's own verdict on held-out items of a kind, without examples."""
    items = dataset_items(kind, split, n=n)
    chosen = FORMATS[template or DEFAULT_FORMAT[kind]]
    prompts = make_prompts(items, chosen, encode, target="label")
    return accuracy(logits, prompts)


def _with_feature(item: Item, judge: str, rng: random.Random) -> Item:
    if judge not in FEATURES:
        return item
    value = rng.random() < 0.5
    question, choice = FEATURES[judge].rewrite(item.question, item.choice, value)
    return replace(
        item, question=question, choice=choice, alt_labels={**item.alt_labels, judge: value}
    )


def _pools(kinds: Sequence[str], feature: str, rng: random.Random) -> dict[str, list[Item]]:
    """Train and test items of some kinds, with a feature in their texts if it is one to add."""
    return {
        split: [
            _with_feature(item, feature, rng)
            for kind in kinds
            for item in dataset_items(kind, split)
        ]
        for split in ("train", "test")
    }


def few_shot_accuracy(
    logits: LogitsFn,
    encode: WordEncoder,
    judge: str,
    *,
    shots: int = 8,
    n: int = 200,
    seed: int = 0,
) -> float:
    """Accuracy on a judge's verdicts about held-out items after ``shots`` examples of them.

    Examples and target are question/claim prompts of mixed kinds that the judge can speak about;
    the judged feature is the only one present; nothing names the judge.
    """
    rng = random.Random(f"few-shot/{judge}/{seed}")
    kinds = [kind.name for kind in KINDS.values() if judge in kind.judges and not kind.frequency]
    kinds = [kind for kind in kinds if judge != "truth" or KINDS[kind].has_truth]
    pools = _pools(kinds, judge, rng)
    target = "label" if judge == "truth" else judge
    items = rng.sample(pools["test"], min(n, len(pools["test"])))
    shown = [
        [(item, bool(labels([item], target)[0] == 1)) for item in rng.sample(pools["train"], shots)]
        for _ in items
    ]
    return accuracy(
        logits, make_prompts(items, FORMATS["claim"], encode, target=target, examples=shown)
    )


def label_reading(
    logits: LogitsFn,
    encode: WordEncoder,
    rival: str,
    *,
    shots: int = 8,
    n: int = 100,
    seed: int = 0,
) -> float:
    """Share of verdicts that follow the examples' labels where two readings of them disagree.

    Every prompt is asked twice: its examples labelled by the truth, and by the rival. The rival is
    a feature, present in all texts (the held-out item asked about has it against the truth), or
    "opposite", the truth turned round. A model that reads the labels follows either (1.0); one
    that only looks at the texts answers both alike (0.5), however well `few_shot_accuracy`, where
    text and labels agree, speaks of it.
    """
    rng = random.Random(f"label-reading/{rival}/{seed}")
    judges = {"truth", rival} - {"opposite"}
    # What the model half knows would say nothing of how it reads labels.
    kinds = [
        kind.name
        for kind in KINDS.values()
        if kind.has_truth and judges <= {*kind.judges} and not kind.frequency
    ]
    pools = _pools(kinds, rival, rng)

    def says(item: Item, by_truth: bool) -> bool:
        if by_truth or rival == "opposite":
            return (labels([item])[0] == 1) == by_truth
        return bool(item.alt_labels[rival])

    torn = [item for item in pools["test"] if says(item, True) != says(item, False)]
    items = rng.sample(torn, min(n, len(torn)))
    examples = [rng.sample(pools["train"], shots) for _ in items]
    followed = []
    for by_truth in (True, False):
        shown = [[(item, says(item, by_truth)) for item in row] for row in examples]
        prompts = make_prompts(items, FORMATS["claim"], encode, target="label", examples=shown)
        wanted = np.array([says(item, by_truth) for item in items])
        followed.append(accuracy(logits, replace(prompts, labels=wanted)))
    return float(np.mean(followed))


def stated_accuracy(logits: LogitsFn, encode: WordEncoder, kind: str) -> float:
    """Share of plain lines ("- 7 + 5 =") that the model ends with the right word.

    Asked of the first token of the answer, over all questions of "arithmetic" or "facts".
    """
    if kind == "arithmetic":
        ends = [
            (f"- {a} {op} {b} =", f" {arithmetic_result((kind, a, op, b))}")
            for _, a, op, b in KINDS[kind].all_keys
        ]
    else:
        ends = [(f"- The {r} of {land} is", f" {value}") for (r, land), value in lex.FACTS.items()]
    tokens, lengths = _pad([[encode.bos, *encode(stem)] for stem, _ in ends])
    answers = np.array([encode(end)[0] for _, end in ends])
    return float(np.mean(np.argmax(np.asarray(logits(tokens, lengths)), axis=-1) == answers))


def checked_accuracy(logits: LogitsFn, encode: WordEncoder, kind: str) -> float:
    """Share of lines about held-out questions ("- 7 + 5 = 13") that " yes" or " no" judges rightly.

    For "arithmetic" and "facts", where half of the lines are wrong.
    """
    items = dataset_items(kind, "test")
    lines = ["- " + item.choice.split(" said: ")[-1] for item in items]
    tokens, lengths = _pad([[encode.bos, *encode(line)] for line in lines])
    [yes], [no] = encode(" yes"), encode(" no")
    right = labels(items) == 1
    return accuracy(logits, Prompts(tokens, lengths, (yes, no), right))


def measure(logits: LogitsFn, encode: WordEncoder, *, few_shot: bool = True) -> dict[str, float]:
    """All of the above by name: stated/, checked/ and zero_shot/<kind>, few_shot/<judge>.

    Few-shot accuracies cost most of the time: they are taken over 100 prompts, and
    ``few_shot=False`` leaves them out.
    """
    found = {}
    for kind in ("arithmetic", "facts"):
        found[f"stated/{kind}"] = stated_accuracy(logits, encode, kind)
        found[f"checked/{kind}"] = checked_accuracy(logits, encode, kind)
    for kind in ZERO_SHOT_KINDS:
        found[f"zero_shot/{kind}"] = zero_shot_accuracy(logits, encode, kind)
    found["zero_shot/far_facts"] = zero_shot_accuracy(logits, encode, "far_facts")
    found["zero_shot/facts_claim"] = zero_shot_accuracy(logits, encode, "facts", template="claim")
    for judge in FEW_SHOT_JUDGES if few_shot else ():
        found[f"few_shot/{judge}"] = few_shot_accuracy(logits, encode, judge, n=100)
    return found
