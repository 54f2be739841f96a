"""Answers that a model wrote itself, and answers put into its mouth: `python -m extract own-words`.

The set comes as a folder, since it is another one for every model. The label says whether the model
wrote the answer, so the model must be the one that the folder was made with.
"""

from jelicit.data.formats import PromptFormat
from jelicit.data.named_sets import NamedSet

FORMAT = PromptFormat(
    name="own_words",
    text="Question: {question}\nAnswer: {choice}\nClaim: I wrote this answer myself.\n"
    "I think this claim is",
    third_word=" Indeterminate",
)

SET = NamedSet(
    name="own_words",
    title="Own words",
    formats={"label": FORMAT},
    easy=None,
)
