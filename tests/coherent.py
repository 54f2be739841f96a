"""A scorer with a planted coherent labelling, and the items it knows; deterministic and fast."""

import numpy as np

from jelicit.data.items import Item
from jelicit.data.prompts import GAP, PromptFormat

FORMAT = PromptFormat(name="test", text="Say: {choice}\nThat is")


def sums(n, *, per_question=2):
    """Claims "3 + 4 = 7", right and wrong in turn, in questions of some claims."""
    items = []
    for row in range(n):
        question, number = divmod(row, per_question)
        a, b = divmod(question, 10)
        right = number % 2 == 0
        answer = a + b if right else a + b + 1 + number
        items.append(
            Item(
                id=f"claim {row}",
                choice=f"{a} + {b} = {answer}" + "!" * number,
                answer=str(answer),
                label=right,
                group=f"question {question}",
            )
        )
    return items


def is_right(text):
    left, right = text.split("Say: ")[1].split("\n")[0].split(" = ")
    return sum(map(int, left.split(" + "))) == int(right.rstrip("!"))


class Coherent:
    """Judges by the truth as far as its examples do, or against it as far as they do that.

    The log-odds of a prompt lie between -2 and 2, times 1 or more by the text; `lean` is how far it
    goes by the truth without being shown, and `by_order` how much the place of examples matters.
    """

    name = "coherent"

    def __init__(self, *, lean=0.3, by_order=0.0):
        self.lean, self.by_order = lean, by_order
        self.calls = []

    def score(self, prompts, verdicts):
        assert tuple(verdicts) == (" True", " False")
        self.calls.append(list(prompts))
        odds = np.array([self._odds(prompt) for prompt in prompts])
        return np.stack([-np.logaddexp(0, -odds), -np.logaddexp(0, odds)], 1)

    def _odds(self, prompt):
        *examples, target = [text for text in prompt if text.startswith("Say: ")]
        weights = 1 + self.by_order * np.linspace(-1, 1, len(examples))
        agree = [
            1.0 if is_right(text) == text.endswith(" True" + GAP) else -1.0 for text in examples
        ]
        shown = float(weights @ np.array(agree)) / max(len(examples), 1) if examples else 0.0
        margin = self.lean + (2 - self.lean) * shown
        sure = 1 + len(target) % 3 / 4
        return sure * (margin if is_right(target) else -margin)
