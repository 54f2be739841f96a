"""What the rows of fine-tuning show: the claims of Wen et al. 2025, checked by plain rules.

Numbers are means over seeds. A training that gives the same model whatever its labels are tells
nothing of them: sets where golden labels turned round are worth as much as golden ones cannot tell.
Nor do sets where ICM's labels are right by chance tell how its errors compare with random ones.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from jelicit.results import Finding
from jelicit.studies.findings import MORE, NEAR, Means, by_chance

UNLEARNT = "labels are not learnt"


def finetune_findings(rows: pd.DataFrame) -> list[Finding]:
    """Fine-tuning, from the rows of `experiments/finetune.py`."""
    worth = Means(rows, "accuracy", "accuracy")
    unlearnt = {
        name: UNLEARNT
        for name, (turned, golden) in worth.pairs("tuned_wrong", "tuned_golden").items()
        if turned >= golden - NEAR
    }
    coin = by_chance(Means(rows, "label_accuracy", "right labels"), "tuned_icm")

    def better(claim: str, other: str, *, unread: Mapping[str, str] = unlearnt) -> Finding:
        return worth.finding(
            f"{claim} (by more than 1 point)",
            ("tuned_icm", other),
            lambda ours, theirs: ours > theirs + MORE,
            unread=unread,
        )

    return [
        worth.finding(
            "The training learns its labels: golden ones turned round are worth less (by more than "
            "3 points)",
            ("tuned_wrong", "tuned_golden"),
            lambda ours, theirs: ours < theirs - NEAR,
        ),
        worth.finding(
            "Fine-tuned on ICM's labels, the model is about as good as on golden ones (within 3 "
            "points)",
            ("tuned_icm", "tuned_golden"),
            lambda ours, theirs: ours >= theirs - NEAR,
            unread=unlearnt,
        ),
        better("ICM's labels are worth more than those of a human annotator", "tuned_human"),
        better(
            "ICM's labels are worth more than true labels with as many random errors",
            "tuned_perturbed",
            unread=coin | unlearnt,
        ),
        better("Fine-tuned on ICM's labels, the model is better than zero-shot", "zero_shot"),
        better(
            "Fine-tuned on ICM's labels, the model is better than on its own zero-shot answers",
            "tuned_zero_shot",
        ),
        better(
            "Fine-tuned on ICM's labels, the model is better than a chat model, zero-shot",
            "zero_shot_chat",
        ),
        Means(rows, "auroc", "AUROC").finding(
            "After fine-tuning on ICM's labels CCS finds more of the truth than before (by more "
            "than 1 point)",
            ("ccs_tuned_icm", "ccs"),
            lambda ours, theirs: ours > theirs + MORE,
        ),
    ]
