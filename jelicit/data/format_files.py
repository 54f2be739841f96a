"""Prompt formats of one's own as small files: a `PromptFormat` written down in TOML or JSON."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from string import Formatter
from typing import Any

from jelicit.data import registry
from jelicit.data.formats import ITEM_FIELDS, PromptFormat
from jelicit.data.shown import printable, shown

SUFFIXES = (".toml", ".json")
"""How the name of a format file ends."""

KEYS = tuple(each.name for each in fields(PromptFormat))
"""What a format file may say: the attributes of `PromptFormat`."""

REQUIRED = tuple(each.name for each in fields(PromptFormat) if each.default is MISSING)
"""What it has to say."""

_NAME = re.compile(r"\w[\w./+-]*")
_BRACED = "write {question}, {choice} or {choice_2} in braces, and {{ }} for braces of the text"


def is_format_file(text: str) -> bool:
    """Whether a text reads as the path of a format file, by its ending."""
    return Path(text).suffix.lower() in SUFFIXES


def read_format(path: str | Path) -> PromptFormat:
    """The format of a file; nobody knows it by its name alone.

    Args:
        path: A TOML file (.toml) or a JSON object (.json) with the keys `KEYS`.

    Raises:
        ValueError: There is no such file, it cannot be read, a key is unknown, missing, of another
            type or has a text that no prompt can have, or its name is another format's. The message
            names the file and the key, and says what is allowed.
    """
    where = f"prompt format {printable(str(path))!r}"
    said = _read(Path(path), where)
    _check_keys(said, where)
    _check_template(said, where)
    try:
        form = PromptFormat(**said)
    except ValueError as error:
        raise ValueError(f"{where}: {error}; {_BRACED}") from error
    check_words(form, where)
    if registry.formats().get(form.name, form) != form:
        raise ValueError(
            f"{where}: the name {form.name!r} is another format's, and rows of both would be "
            "mixed; give it a name of its own"
        )
    return form


# --- the file ------------------------------------------------------------------------------------


def _read(path: Path, where: str) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"{where}: there is no such file")
    try:
        text = path.read_bytes().decode("utf-8-sig")  # editors on Windows write a mark in front
        if path.suffix.lower() == ".toml":
            return tomllib.loads(text)
        said = json.loads(text, object_pairs_hook=_once)
    except OSError as error:
        raise ValueError(f"{where} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{where} is no text in UTF-8: {error.reason}") from error
    except (ValueError, RecursionError) as error:
        kind = path.suffix.lower().removeprefix(".").upper()
        raise ValueError(f"{where} is no {kind}: {error}") from error
    if not isinstance(said, dict):
        raise ValueError(
            f"{where} holds a {type(said).__name__}; allowed: an object with the keys "
            f"{', '.join(KEYS)}"
        )
    return said


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; of a repeated key, Python would keep the last value without a word."""
    names = [name for name, _ in pairs]
    if repeated := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"the key {repeated[0]!r} is there twice")
    return dict(pairs)


# --- keys and types ------------------------------------------------------------------------------


def _check_keys(said: Mapping[str, Any], where: str) -> None:
    for key in said:
        if key not in KEYS:
            raise ValueError(f"{where}: key {shown(key)} is unknown; allowed: {', '.join(KEYS)}")
    for key in REQUIRED:
        if key not in said:
            raise ValueError(f"{where}: key {key!r} is missing; needed: {', '.join(REQUIRED)}")
    for key, value in said.items():
        if value is None and key == "third_word":  # JSON's null: the format has none
            continue
        if not isinstance(value, str):
            raise ValueError(
                f"{where}: key {key!r} is {shown(value)} ({type(value).__name__}); allowed: a text"
            )
        if (broken := re.search("[\ud800-\udfff]", value)) is not None:
            raise ValueError(
                f"{where}: key {key!r} holds half a character ({broken.group()!a}); allowed: text "
                "that can be written as UTF-8"
            )
    if not _NAME.fullmatch(said["name"]):
        raise ValueError(
            f"{where}: key 'name' is {shown(said['name'])}; allowed: letters, digits and . _ - + / "
            "(rows and folders are called by it)"
        )
    if not said.get("target", "label").strip():
        raise ValueError(f"{where}: key 'target' is empty; allowed: label, or the name of another")


def _check_template(said: Mapping[str, Any], where: str) -> None:
    """Refuses braces that do not do what they seem to."""
    try:
        parts = list(Formatter().parse(said["text"]))
    except ValueError as error:
        raise ValueError(f"{where}: key 'text': {error}; {_BRACED}") from error
    for _, name, spec, conversion in parts:
        if name is not None and (spec or conversion):
            raise ValueError(
                f"{where}: key 'text': the field {name!r} is shown as it is; leave out what "
                f"follows its name in the braces ({shown(conversion or spec)})"
            )
    for key in ("system", "true_word", "false_word", "third_word"):
        braced = [name for name in ITEM_FIELDS if f"{{{name}}}" in (said.get(key) or "")]
        if braced:
            raise ValueError(
                f"{where}: key {key!r} has {{{braced[0]}}}, but items are shown in 'text' only"
            )


# --- where text and verdict meet -----------------------------------------------------------------


def check_words(form: PromptFormat, where: str) -> None:
    """Refuses verdicts that do not follow the text as words, or cannot be told apart.

    Prompts of such a format can be made, and numbers come out that say something else: two spaces
    before the verdict, a verdict after a verdict, a verdict whose probability holds the other's.

    Args:
        form: A format of the user's own.
        where: What the message begins with: which format it is.

    Raises:
        ValueError: Naming the key and what is allowed.
    """
    words = {"true_word": form.true_word, "false_word": form.false_word}
    if form.third_word is not None:
        words["third_word"] = form.third_word
    for key, word in words.items():
        if not word.strip():
            raise ValueError(f"{where}: key {key!r} is {word!r}; allowed: a word")
        _check_joint(form.text, key, word, where)
    read_as = {key: word.strip().casefold() for key, word in words.items()}
    if len(set(read_as.values())) < len(read_as):
        said = ", ".join(map(repr, words.values()))
        raise ValueError(f"{where}: two of the verdicts {said} are the same word; tell them apart")
    true, false = read_as["true_word"], read_as["false_word"]
    if true.startswith(false) or false.startswith(true):
        raise ValueError(
            f"{where}: one of the verdicts {form.true_word!r} and {form.false_word!r} is the "
            "beginning of the other, so whatever follows the prompt counts for both; choose words "
            "that begin otherwise"
        )
    if form.system and not form.system.strip():
        raise ValueError(f"{where}: key 'system' is white space; leave it out, or give a text")


def _check_joint(text: str, key: str, word: str, where: str) -> None:
    if text[-1].isspace() and word[0].isspace():
        raise ValueError(
            f"{where}: key 'text' ends in white space and {key!r} ({word!r}) begins with it, so "
            "both would stand before the verdict; end the text in its last word (of a text over "
            'several lines, put the closing """ right after it)'
        )
    letters = text[-1] + word[0]
    if letters.isascii() and letters.isalnum():  # Chinese, for one, puts no space between words
        raise ValueError(
            f"{where}: key {key!r} is {word!r} and 'text' ends in {text[-10:]!r}, which would be "
            f'one word; begin the verdict with a space (" {word}")'
        )
    if re.search(rf"(?<!\w){re.escape(word.strip())}$", text.rstrip()):
        raise ValueError(
            f"{where}: key 'text' ends in the verdict {word.strip()!r}; it must end just before "
            "the verdict, which is added to it"
        )
