"""Prompts in a model's own chat template: what a model tuned for chat was trained to read.

The rule. A prompt's segments become turns (`jelicit.data.turns`): a format's system text the system
turn, every example a question of the user and an answer of the assistant, the item itself the
user's last turn. The model's template is put around them, as `apply_chat_template` renders it with
a generation prompt, so that the text ends where the assistant's answer begins. The ids are those of
that text: the template writes BOS and all other control tokens, the tokenizer adds none; control
tokens that an item spells are letters, as everywhere (`extract.verdicts`).

A verdict stands without its leading space, after whatever space the template itself puts before an
answer (Llama 2: one; most others: none). Its ids are what it adds to the text before it.
"""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from extract.load_errors import RefusedModelError
from extract.printable import first_line
from extract.verdicts import Encoded, control_tokens, encode, tokenise, verdicts_after
from jelicit.data.turns import Turn, turns

TODAY = datetime(2024, 7, 26)
"""The date in templates that show one: what Llama 3's says where it knows no clock."""

AT_ONCE: Mapping[str, bool] = {"enable_thinking": False, "thinking": False}
"""Template variables: a model that may think first is asked to answer at once, or the verdict would
not be what comes next. Templates without such a switch do not read them."""

_DATE = re.compile(r"""strftime_now\(\s*(["'])(.*?)\1\s*\)""")
_SYSTEM, _ASKED, _SAID, _LAST = "Words in front.", "A question?", "An answer.", "The last one?"


@dataclass(frozen=True, kw_only=True)
class ChatTemplate:
    """A model's chat template, and what was found out about it.

    Attributes:
        text: The template, in Jinja; a date in it stands still (`TODAY`).
        digest: SHA-256 of the template as the model has it.
        lead: Space that it puts between the generation prompt and an answer.
        takes_system: It shows a system turn. Where it does not, system text begins the user's
            first turn.
        opening: What it puts before the user's first turn where there is no system text: BOS, and
            whatever system prompt is its own.
        dated: It shows today's date, which is `TODAY` here.
    """

    text: str
    digest: str
    lead: str
    takes_system: bool
    opening: str
    dated: bool

    def describe(self) -> str:
        """One line: which template, and what it adds."""
        said = [f"the model's own, digest {self.digest[:12]}; before the first turn: "]
        said.append(repr(self.opening) if self.opening else "nothing")
        if not self.takes_system:
            said.append("; system text begins the user's first turn, since it has no system turn")
        if self.dated:
            said.append(f"; its date stands still at {TODAY:%d %B %Y}")
        return "".join(said)

    def conversation(self, prompt: Sequence[str]) -> list[Turn]:
        """The turns of a prompt, as the template takes them."""
        made = turns(prompt)
        if made[0].role == "system" and not self.takes_system:
            system, first, *rest = made
            made = [Turn("user", f"{system.content}\n\n{first.content}"), *rest]
        return made

    def words(self, words: Sequence[str]) -> tuple[str, ...]:
        """Verdict words as they stand at the beginning of an answer."""
        return tuple(self.lead + word.strip() for word in words)


class Prompted(Protocol):
    """A model, as far as prompts become ids."""

    @property
    def tokenizer(self) -> Any:
        """Its Hugging Face tokenizer."""
        ...

    @property
    def chat(self) -> ChatTemplate | None:
        """The template that its prompts stand in; None = they are read as they are."""
        ...


def encode_for(
    lm: Prompted, prompts: Sequence[tuple[str, ...]], words: Sequence[str]
) -> list[Encoded]:
    """Token ids of prompts and verdicts as this model reads them, in its chat template or not.

    Args:
        lm: The model.
        prompts: Each a tuple of text segments, the last ending just before the verdict.
        words: Verdict words with their own leading space, for example (" True", " False").

    Raises:
        ValueError: As of `extract.verdicts.encode`; or the template refuses a conversation.
    """
    if lm.chat is None:
        return encode(lm.tokenizer, prompts, words)
    return _encode(lm.tokenizer, lm.chat, prompts, words)


def _encode(
    tokenizer: Any, chat: ChatTemplate, prompts: Sequence[tuple[str, ...]], words: Sequence[str]
) -> list[Encoded]:
    if not prompts:
        return []
    conversations = [chat.conversation(prompt) for prompt in prompts]
    ends = {last: _end(tokenizer, chat, last) for last in {made[-1] for made in conversations}}
    words, tails = chat.words(words), set(ends.values())
    pieces = tails | set(words) | {tail + word for tail in tails for word in words}
    ids = tokenise(tokenizer, pieces, control="tokens")
    joined = {tail: verdicts_after(tokenizer, ids, tail, words) for tail in tails}
    return [
        Encoded(tuple(row), *joined[ends[made[-1]]])
        for row, made in zip(_ids(tokenizer, chat, conversations), conversations, strict=True)
    ]


def _ids(tokenizer: Any, chat: ChatTemplate, conversations: Sequence[list[Turn]]) -> Any:
    """Ids of conversations, control tokens real where the template writes them, letters elsewhere.

    Raises:
        ValueError: If a turn spells a control token and transformers cannot keep it in letters.
    """
    options: dict[str, Any] = {}
    if "sanitize_control_tokens" in inspect.signature(tokenizer.apply_chat_template).parameters:
        options["sanitize_control_tokens"] = True
    else:  # older than transformers 5.20 or so
        _refuse_control(tokenizer, conversations)
    made = tokenizer.apply_chat_template(
        [_messages(conversation) for conversation in conversations],
        chat_template=chat.text,
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        tokenizer_kwargs={"verbose": False},  # its remark on long texts; lengths are checked later
        **options,
        **AT_ONCE,
    )
    return made["input_ids"]


def _refuse_control(tokenizer: Any, conversations: Sequence[list[Turn]]) -> None:
    tokens = control_tokens(tokenizer)
    for conversation in conversations:
        for turn in conversation:
            if spelled := sorted(token for token in tokens if token in turn.content):
                raise ValueError(
                    f"{turn.content[-200:]!r} spells the control token {spelled[0]}, which this "
                    "transformers would take for the token: use transformers 5.23 or newer"
                )


def _end(tokenizer: Any, chat: ChatTemplate, last: Turn) -> str:
    """The end of a rendered prompt, from its last control token on: ids begin anew there."""
    text = render(tokenizer, chat.text, [last])
    return text[max([0, *(text.rfind(token) for token in control_tokens(tokenizer))]) :]


def rendered(tokenizer: Any, chat: ChatTemplate, prompt: Sequence[str]) -> str:
    """The text that a prompt is in the template."""
    return render(tokenizer, chat.text, chat.conversation(prompt))


def render(
    tokenizer: Any, template: str, conversation: Sequence[Turn], *, answered: bool = False
) -> str:
    """A conversation in a template.

    Args:
        tokenizer: A Hugging Face tokenizer.
        template: In Jinja.
        conversation: The turns.
        answered: It ends with the assistant's turn, so that no other one is begun.
    """
    return tokenizer.apply_chat_template(
        _messages(conversation),
        chat_template=template,
        add_generation_prompt=not answered,
        tokenize=False,
        **AT_ONCE,
    )


def _messages(conversation: Sequence[Turn]) -> list[dict[str, str]]:
    return [turn._asdict() for turn in conversation]


# --- finding out ---------------------------------------------------------------------------------


def find_chat(tokenizer: Any, name: str) -> ChatTemplate:
    """The chat template of a model, tried out on a short conversation.

    Args:
        tokenizer: Its tokenizer.
        name: What messages call the model.

    Raises:
        ValueError: If it has none, or one that cannot show examples as earlier turns, does not
            begin the assistant's turn, or shows a date that cannot be kept still.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise RefusedModelError(
            f"{name} has no chat template (a base model has none): leave out --chat (chat=True), "
            "or name a model that was tuned for chat"
        )
    asked, said, last = Turn("user", _ASKED), Turn("assistant", _SAID), Turn("user", _LAST)
    try:
        original = tokenizer.get_chat_template()
        text = _standing_still(original, name)
        alone = render(tokenizer, text, [asked])
        answered = render(tokenizer, text, [asked, said], answered=True)
        earlier = render(tokenizer, text, [asked, said, last])
    except RefusedModelError:
        raise
    except Exception as error:  # a template is somebody's program: it may raise anything
        raise RefusedModelError(
            f"the chat template of {name} cannot show a question, an answer and a question: "
            f"{first_line(error)}"
        ) from error
    if _ASKED not in alone or not re.search(f"(?s){'.*'.join(map(re.escape, _WHOLE))}", earlier):
        raise RefusedModelError(
            f"the chat template of {name} leaves out earlier turns, which examples are: {earlier!r}"
        )
    return ChatTemplate(
        text=text,
        digest=hashlib.sha256(original.encode()).hexdigest(),
        lead=_lead(alone, answered, name),
        takes_system=_takes_system(tokenizer, text),
        opening=alone[: alone.index(_ASKED)],
        dated=text != original,
    )


_WHOLE = (_ASKED, _SAID, _LAST)


def _standing_still(template: str, name: str) -> str:
    """The template with a fixed date: prompts, and what they score, must not change overnight."""
    still = _DATE.sub(lambda found: f'"{TODAY.strftime(found[2])}"', template)
    if "strftime_now(" in still:
        raise RefusedModelError(
            f"the chat template of {name} shows today's date in a way that cannot be kept still "
            "(strftime_now of something else than a text): scores would change with the day"
        )
    return still


def _lead(alone: str, answered: str, name: str) -> str:
    """Space between the generation prompt and an answer; none where they cannot be compared."""
    if not answered.startswith(alone) or _SAID not in answered:
        return ""
    between = answered[len(alone) : answered.index(_SAID)]
    if between.strip():
        raise RefusedModelError(
            f"the chat template of {name} knows no generation prompt: it does not begin the "
            f"assistant's turn, where the verdict stands, but writes {between!r} with the answer"
        )
    return between


def _takes_system(tokenizer: Any, template: str) -> bool:
    try:
        made = render(tokenizer, template, [Turn("system", _SYSTEM), Turn("user", _ASKED)])
    except Exception:  # Gemma's raises: "System role not supported"
        return False
    return _SYSTEM in made
