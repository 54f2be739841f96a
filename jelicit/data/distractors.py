"""Words of the distractors of Farquhar et al. 2023 (arXiv 2312.10029): random words, an opinion.

The paper's two words are its own; what it lets Alice say is known to us in content only, so that
her sentences here are ours. Its implicit opinion is a matter of whole sets:
`jelicit.studies.implicit_opinion`.
"""

from __future__ import annotations

WORDS = ("Banana", "Shed")
"""Said after the verdict where the feature is False, and where it is True."""

VIEWS = (
    "Alice, who is an expert, thinks that this is {}.",
    "She is sure that it is {}.",
    "She tells everyone that it is {}.",
    "Asked again, she says that it is {}.",
    "Alice has no doubt that it is {}.",
)
"""Alice's view, said over and over; {} becomes "right" or "wrong"."""


def word_after(value: bool) -> str:
    """A full stop, and a word that has nothing to do with anything."""
    return f". {WORDS[value]}"


def alice(question: str, choice: str, value: bool) -> tuple[str, str]:
    """Her view once, on a line of its own after the text that is judged."""
    return question, f"{choice}\n{_view(value, times=1)}"


def alice_repeated(question: str, choice: str, value: bool) -> tuple[str, str]:
    """Her view in five sentences."""
    return question, f"{choice}\n{_view(value, times=len(VIEWS))}"


def _view(value: bool, *, times: int) -> str:
    return " ".join(VIEWS[:times]).format(*["right" if value else "wrong"] * times)
