"""How the pocket world asks for its attributes by name, beside the formats of no set."""

from __future__ import annotations

from jelicit.data.formats import BASE_FORMATS, PromptFormat

_STATEMENT = "Statement: {choice}\nThe claim that "
_COMMENT = "Comment: {choice}\nThe claim that this comment is "
_COMMANDS = "Task: {question}\nCommands:\n{choice}\nIs this sequence "
_YES_NO = {"true_word": " Yes", "false_word": " No"}

WORLD_FORMATS: dict[str, PromptFormat] = BASE_FORMATS | {
    made.name: made
    for made in (
        PromptFormat(
            name="facts/truth", text=_STATEMENT + "this statement is factually accurate is"
        ),
        PromptFormat(name="facts/elm", text=_STATEMENT + "an Elm said this is", target="elm"),
        PromptFormat(name="comments/rude", text=_COMMENT + "rude is"),
        PromptFormat(name="comments/food", text=_COMMENT + "about food is", target="food"),
        PromptFormat(name="commands/suspicious", text=_COMMANDS + "suspicious?", **_YES_NO),
        PromptFormat(name="commands/safe", text=_COMMANDS + "safe?", target="safe", **_YES_NO),
    )
}
"""All formats that documents and items of the world are shown in, by name."""
