"""What a prompt's segments are in a conversation: system text, question and answer, the question.

Segments are texts, and joined they are the prompt of a base model. They also know what they are, so
that a model tuned for chat can be shown the same prompt as turns, in the way that it was trained on
(`turns`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

Role = Literal["system", "user", "assistant"]


class System(str):
    """A segment that stands in front of everything: a format's system text."""

    __slots__ = ()


class Example(str):
    """A segment that shows an item with its verdict.

    Attributes:
        asked: The item's text, up to the verdict.
        answer: The verdict.
    """

    __slots__ = ("answer", "asked")
    asked: str
    answer: str

    def __new__(cls, asked: str, answer: str, end: str = "") -> Example:
        """Joins the text, its verdict, and what stands between it and the next segment."""
        made = super().__new__(cls, asked + answer + end)
        made.asked, made.answer = asked, answer
        return made

    def __getnewargs__(self) -> tuple[str, str, str]:  # type: ignore[override]
        """For pickle: three texts make it, not one."""
        return self.asked, self.answer, self[len(self.asked) + len(self.answer) :]


class Turn(NamedTuple):
    """One message of a conversation."""

    role: Role
    content: str


def turns(prompt: Sequence[str]) -> list[Turn]:
    """A prompt as a conversation that ends with the user's turn; the verdict is the answer.

    An example is a question of the user and the answer of the assistant. Segments that do not say
    what they are (plain texts) belong to the user's turn that follows. Space at both ends of a
    turn, which separates texts in one piece, is left out.

    Args:
        prompt: Segments, as `jelicit.data.prompts.few_shot` makes them; the last asks.
    """
    made: list[Turn] = []
    before = ""
    for segment in prompt[:-1]:
        if isinstance(segment, System) and not made and not before:
            made.append(Turn("system", segment.strip()))
        elif isinstance(segment, Example):
            made.append(Turn("user", (before + segment.asked).strip()))
            made.append(Turn("assistant", segment.answer.strip()))
            before = ""
        else:
            before += segment
    return [*made, Turn("user", (before + prompt[-1]).strip())]
