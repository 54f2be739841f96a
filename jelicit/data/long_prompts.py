"""A prompt that is too long for a model, told so that whoever made it can name its item."""


class LongPromptError(ValueError):
    """A prompt that is longer than the model's context.

    Args:
        number: Its place among the prompts that were asked about.
        why: How long it is, what is allowed, and what to do.
    """

    def __init__(self, number: int, why: str) -> None:
        super().__init__(f"prompt {number} {why}")
        self.number = number
        self.why = why
