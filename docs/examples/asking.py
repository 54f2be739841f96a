"""A prompt format of one's own that asks, as suits a chat model, rather than begins a sentence.

python -m extract run --model NAME --chat --format docs/examples/asking.py:ASKING --out STORE
"""

from jelicit.data.prompts import PromptFormat

ASKING = PromptFormat(
    name="asking",
    text=(
        "Question: {question}\nClaim: {choice}\n"
        "Is this claim true? Answer with one word, True or False."
    ),
)
