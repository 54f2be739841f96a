"""A spurious feature of one's own: who says it.

    python experiments/salience.py --features none docs/examples/own_feature.py:SPEAKER

Half of the claims, whether true or false, get one speaker and half the other. A method that finds
the truth does not care.
"""

from jelicit.data import Feature


def said_by(question: str, choice: str, value: bool) -> tuple[str, str]:
    """The claim in the mouth of a professor (True) or of a child (False)."""
    return question, f"A {'professor' if value else 'child'} says: {choice}"


SPEAKER = Feature(
    name="speaker",
    describe='the claim begins with "A professor says: " (True) or "A child says: " (False)',
    rewrite=said_by,
    title="Who says it",
)
