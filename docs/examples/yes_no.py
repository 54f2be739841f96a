"""A prompt format of one's own, for a chat model: a question that is answered with Yes or No.

python -m extract run --model NAME --chat --format docs/examples/yes_no.py:YES_NO --out STORE
"""

from jelicit.data.prompts import PromptFormat

YES_NO = PromptFormat(
    name="yes_no",
    text="Question: {question}\nAnswer: {choice}\nIs this answer right? Say Yes or No.",
    true_word=" Yes",
    false_word=" No",
)
