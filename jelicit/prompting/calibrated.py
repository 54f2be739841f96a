r"""Contextual calibration: what a prompt says of no claim at all is taken off what it says of one.

A model that is asked about "N/A" should be as ready to say True as False. Where it is not, the
prompt itself leans to a verdict: by its words, or by the order and labels of its examples. Zhao et
al. 2021 ("Calibrate before use", arXiv 2102.09690) divide each verdict's probability by the mean of
what it has after content-free texts. Of two verdicts, in truth scores s = log P(true) - log
P(false):

    s' = s - logit(p_cf),  p_cf = mean_c sigmoid(s_c),  c in "N/A", "", "[MASK]"

sigmoid(s_c) is the probability of True, both verdicts' put to a sum of 1, as their text has it
(their code takes the mean first). The offset belongs to a prompt without its target: one per format
of zero-shot prompts, which moves accuracy and no AUROC, and one per draw of examples of few-shot
prompts, which moves both.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jelicit.data.items import Item
from jelicit.data.prompts import PromptFormat, get_format, segments
from jelicit.prompting.scorer import Scorer, truth_scores

ALGORITHM = 2
"""Raised whenever calibrated scores come out otherwise, in studies, too: rows of another are not
read back. 2: what is taken off zero-shot scores is in their unit."""

CONTENT_FREE = ("N/A", "", "[MASK]")
"""What stands in the place of an item's texts, the question's too (Zhao et al. 2021)."""


def content_free_prompts(
    prompt: tuple[str, ...], format: str | PromptFormat
) -> list[tuple[str, ...]]:
    """A prompt with each of `CONTENT_FREE` in the place of its target; all before it is the same.

    A format may have no place for the empty text: where the template begins or ends with the claim,
    the prompt would then begin or end with space, and would be read as other tokens. It is left out
    there, and the mean is over the other two. In a chat template the user's turn is never empty,
    since words of the template are left in it.

    Args:
        prompt: Segments; the last one is the target.
        format: How the target is shown.
    """
    form = get_format(format)
    return [(*prompt[:-1], text) for text in _texts(form)]


def content_free_items(format: str | PromptFormat) -> list[Item]:
    """Items of the content-free texts that are not empty; no item may lack what a format shows."""
    fields = get_format(format).fields
    return [
        Item(id=f"content-free/{text}", **dict.fromkeys(fields, text))  # type: ignore[arg-type]
        for text in CONTENT_FREE
        if text
    ]


def calibrated_scores(
    scorer: Scorer,
    prompts: Sequence[tuple[str, ...]],
    format: str | PromptFormat,
    *,
    items: Sequence[Item],
) -> np.ndarray:
    """Truth scores [n] of prompts, less what the same prompts say of content-free texts.

    Everything is asked at once, each content-free prompt once and right after the first prompt that
    begins as it does: a scorer that shares prefixes reads examples once.

    Args:
        scorer: The model.
        prompts: n prompts.
        format: Whose verdicts.
        items: The n items that they ask about, for messages.

    Raises:
        ValueError: As of `truth_scores` and `offset`.
    """
    form = get_format(format)
    asked: list[tuple[str, ...]] = []
    of_items: list[Item] = []
    places: dict[tuple[str, ...], int] = {}
    own, free = [], []
    for prompt, item in zip(prompts, items, strict=True):
        own.append(len(asked))
        asked.append(prompt)
        without = content_free_prompts(prompt, form)
        for each in without:
            if each not in places:
                places[each] = len(asked)
                asked.append(each)
        free.append([places[each] for each in without])
        of_items += [item] * (len(asked) - len(of_items))
    if not asked:
        return np.zeros(0)
    scores = truth_scores(scorer, asked, form, items=of_items)
    return scores[own] - offset(scores[free])


def zero_shot_offset(scorer: Scorer, format: str | PromptFormat) -> float:
    """What zero-shot prompts of a format say of no claim: logit of the mean P(true).

    Raises:
        ValueError: As of `truth_scores` and `offset`.
    """
    form = get_format(format)
    blank = content_free_items(form)[0]
    prompts = content_free_prompts(segments(blank, form), form)
    scores = truth_scores(scorer, prompts, form, items=[blank] * len(prompts))
    return float(offset(scores))


def offset(scores: np.ndarray) -> np.ndarray:
    """The logit of the mean probability of True: [...] of truth scores [..., k].

    Raises:
        ValueError: All k say True, or all say False, with certainty: there is no finite logit.
    """
    # In logarithms: a probability within rounding of 1 has no logit.
    true, false = -np.logaddexp(0, -scores), -np.logaddexp(0, scores)
    with np.errstate(invalid="ignore"):
        logits = np.logaddexp.reduce(true, -1) - np.logaddexp.reduce(false, -1)
    if not np.isfinite(logits).all():
        raise ValueError(
            "content-free prompts have truth scores without bound (a verdict of probability 0), so "
            "nothing can be calibrated by them: choose verdicts that the model gives a "
            "probability, or leave out the calibrated methods"
        )
    return logits


def _texts(form: PromptFormat) -> list[str]:
    made = [form.text.format(**dict.fromkeys(form.fields, text)) for text in CONTENT_FREE]
    spaced = form.text != form.text.rstrip()
    return [text for text in made if text == text.lstrip() and (spaced or text == text.rstrip())]
