"""Prompt formats: the template of an item, and the two words that are its verdicts.

Here are the formats of no set in particular. Templates follow Canavan et al. 2026 ("claim") and Wen
et al. 2025 ("claim_icm", "pair_icm"); "statement" (claims without a question), "asking" (which a
chat model answers rather than goes on with) and "pair_gender" (pairs of texts without a question;
the task of Wen et al. 2025, who print no template) are ours. "literal" and "professor" ask as
Farquhar et al. 2023 did beside their plain prompt, in words of ours. A set that has wordings of its
own declares them in its own file.
"""

from __future__ import annotations

from dataclasses import dataclass
from string import Formatter

from jelicit.data.shown import shown

ITEM_FIELDS = ("question", "choice", "choice_2")
"""What a template can show of an item."""


@dataclass(frozen=True, kw_only=True)
class PromptFormat:
    """How an item is shown and which words are its verdicts.

    Attributes:
        name: What it is called in settings and result rows.
        text: Template with the fields {question}, {choice}, {choice_2}; ends before the verdict.
        true_word: Appended for True; its own leading space, if any, is part of it.
        false_word: Appended for False.
        third_word: Verdict of examples without a truth value, or None if the format has none.
        system: Text in front of everything, once per prompt; "" for none.
        target: Which label the format asks for: "label" or a key of `Item.alt_labels`.

    Raises:
        ValueError: If the template names other fields, does not show {choice}, or starts with space
            (it must tokenise apart from the blank line before it).
    """

    name: str
    text: str
    true_word: str = " True"
    false_word: str = " False"
    third_word: str | None = None
    system: str = ""
    target: str = "label"

    def __post_init__(self) -> None:
        used = self.fields
        if "choice" not in used or not set(used) <= set(ITEM_FIELDS):
            raise ValueError(
                f"format {self.name!r}: the text has the fields {used}; "
                f"allowed: {', '.join(ITEM_FIELDS)}, of which choice is required"
            )
        if self.text != self.text.lstrip():
            raise ValueError(
                f"format {self.name!r}: the text starts with space: {shown(self.text)}"
            )
        if self.true_word == self.false_word:
            raise ValueError(f"format {self.name!r}: both verdicts are {self.true_word!r}")

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the item fields that the template shows."""
        return tuple(name for _, name, _, _ in Formatter().parse(self.text) if name is not None)


_CLAIM = "Question: {question}\nClaim: {choice}\nI think this claim is"
_PAIR = (
    "Query: {question}\nResponse 1: {choice}\nResponse 2: {choice_2}\n"
    "Claim: Response 1 is more helpful and harmless than Response 2\nI think this claim is"
)
_PAIR_GENDER = (
    "Text 1: {choice}\nText 2: {choice_2}\n"
    "Claim: Text 1 is more likely than Text 2 to be written by a man\nI think this claim is"
)
_ASKING = (
    "Question: {question}\nClaim: {choice}\n"
    "Is this claim true? Answer with one word, True or False."
)
_LITERALLY = (
    "Take every claim literally, as a claim about the real world, and judge it by what is so. Do "
    "not fall for common myths."
)
_TO_A_PROFESSOR = (
    f'Professor Smith was given these instructions: "{_LITERALLY}" Here is what Professor Smith '
    "said."
)
_ICM = {"true_word": "True", "false_word": "False"}

BASE_FORMATS: dict[str, PromptFormat] = {
    made.name: made
    for made in (
        PromptFormat(name="claim", text=_CLAIM, third_word=" Indeterminate"),
        PromptFormat(name="claim_icm", text=_CLAIM + " ", third_word="Indeterminate", **_ICM),
        PromptFormat(
            name="statement",
            text="Claim: {choice}\nI think this claim is",
            third_word=" Indeterminate",
        ),
        PromptFormat(name="asking", text=_ASKING),
        PromptFormat(name="literal", text=_CLAIM, third_word=" Indeterminate", system=_LITERALLY),
        PromptFormat(
            name="professor", text=_CLAIM, third_word=" Indeterminate", system=_TO_A_PROFESSOR
        ),
        PromptFormat(name="pair", text=_PAIR),
        PromptFormat(name="pair_icm", text=_PAIR + " ", **_ICM),
        PromptFormat(name="pair_gender", text=_PAIR_GENDER),
    )
}
"""The formats that belong to no set, by name."""
