"""Tokenizers: what a text becomes is what the model's own files make of it, or it is refused."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.utils.hub import cached_file

from extract.load_errors import RefusedModelError
from extract.printable import listed
from extract.verdicts import control_tokens, own_prefix, tokenise

PROBES = (
    "a",
    " a",
    "345 7.25 1,000 -12 3/4 1e9 0x1F 20250101",
    "two  spaces,   three,\ta tab, and an end ",
    "Question: what is it?\nClaim: the sum is so\nI think this claim is",
    "Question: What is it?\r\nClaim: 17 + 25 = 42.\r\n\r\n",
    " True False True. False, TRUE false Yes No Indeterminate",
    "don't, it's, we'll, they've; I'm (not) \"sure\" [of] {this} <that>...",
    "!?!? -- ## $5 50% @me a_b a-b a/b a\\b a|b a=b a+b ~ ` ^ & *",
    "caf\u00e9 cafe\u0301 \u00fcber u\u0308ber na\u00efve \u00c5ngstr\u00f6m \ufb01n \u212b",
    "\u00bfqu\u00e9? \u00abbon\u00bb \u201cquoted\u201d \u2018it\u2019 \u2013 \u2014 \u2026 \u20ac",
    "\U0001f600 \U0001f468\u200d\U0001f469\u200d\U0001f467 \u2764\ufe0f \U0001f1e9\U0001f1ea",
    "\u4f60\u597d\uff0c\u4e16\u754c \u3053\u3093\u306b\u3061\u306f \uc548\ub155 \u043f\u0440\u0438",
    "\u0645\u0631\u062d\u0628\u0627 \u05e9\u05dc\u05d5\u05dd \u0939\u093f\u0928\u094d\u0926\u0940",
    "\n\n\nlines\n  indented\n\n\tdef f(x):\n\t\treturn x**2\n",
    "MixedCase camelCase SHOUTING iPhone eBay 3rd 2nd A1B2",
)
"""Texts on which two tokenizers of different rules differ."""


class Loaded(NamedTuple):
    """A tokenizer, and what was found out about it."""

    tokenizer: Any
    said: str
    """One line on the comparison with tokenizer.json."""
    notes: tuple[str, ...]
    """What a digest of the files does not tell."""


def load_tokenizer(source: str, revision: str | None = None, **options: Any) -> Loaded:
    """A model's tokenizer, whose ids are those of its tokenizer.json.

    transformers 5 builds some tokenizers anew from the class that tokenizer_config.json names,
    which can replace rules of tokenizer.json (how digits are split, for example) without a word.
    Where that changes the ids of a probe text, tokenizer.json is taken as it is.

    Args:
        source: Folder, or id on the hub.
        revision: Branch, tag or commit on the hub.
        **options: More for transformers.

    Raises:
        ValueError: If the ids are not those of tokenizer.json either way.
        OSError: If there is no tokenizer.
    """
    tokenizer: Any = AutoTokenizer.from_pretrained(source, revision=revision, **options)
    path = file_of(source, "tokenizer.json", revision)
    if path is None:
        return Loaded(tokenizer, "no tokenizer.json to compare with", ())
    rules = Tokenizer.from_file(str(path))
    rules.no_truncation()
    rules.no_padding()
    asked = _asked_prefix(source, revision)
    changed = differing(tokenizer, rules, asked_prefix=asked)
    said = f"as of tokenizer.json, on {len(PROBES)} probe texts"
    if not changed:
        return Loaded(tokenizer, said, _notes(tokenizer))
    exact: Any = PreTrainedTokenizerFast
    plain = exact.from_pretrained(source, revision=revision, **options)
    name = type(tokenizer).__name__
    if still := differing(plain, rules, asked_prefix=asked):
        raise RefusedModelError(
            f"{source}: the tokenizer {type(plain).__name__} gives other ids than its own "
            f"tokenizer.json, for example of {still}; its numbers would be of another text. Save "
            "the tokenizer again with the transformers that it was trained with"
        )
    warnings.warn(
        f"{source}: its tokenizer_config.json names {name}, of which this transformers makes other "
        f"ids than tokenizer.json says, for example of {changed}; tokenizer.json is taken",
        stacklevel=3,
    )
    cure = f"{said}; {name} of tokenizer_config.json would change them"
    return Loaded(plain, cure, (f"tokenizer.json, not {name}", *_notes(plain)))


def differing(tokenizer: Any, rules: Tokenizer, *, asked_prefix: bool) -> str | None:
    """A probe text whose ids differ, with both; None where none does.

    Args:
        tokenizer: As loaded.
        rules: Its tokenizer.json.
        asked_prefix: Whether the config says itself which special tokens are added; then the prefix
            may differ.
    """
    ids = tokenise(tokenizer, PROBES)
    for text in PROBES:
        expected = rules.encode(text, add_special_tokens=False).ids
        if list(ids[text]) != expected:
            return f"{_around(text)}: {_short(ids[text])} instead of {_short(expected)}"
    prefix, whole = own_prefix(tokenizer), rules.encode("a").ids
    alone = rules.encode("a", add_special_tokens=False).ids
    if not asked_prefix and whole[: len(prefix) + len(alone)] != [*prefix, *alone]:
        return f"what comes before 'a': {_short(prefix)} instead of {_short(whole)} with it"
    return None


def check_vocabulary(tokenizer: Any, model: Any, name: str) -> str:
    """One line on ids and embeddings.

    Ids of control tokens may lie beyond, since no text is given them; those of words may not.

    Raises:
        ValueError: If a token has an id that the model has no embedding of; the message names it.
    """
    embeddings = model.get_input_embeddings()
    if embeddings is None or not hasattr(embeddings, "weight"):
        return "not compared with the embeddings"
    rows = getattr(embeddings, "num_embeddings", len(embeddings.weight))
    control = control_tokens(tokenizer)
    begins = set(own_prefix(tokenizer))
    vocabulary = tokenizer.get_vocab().items()
    beyond = {token: at for token, at in vocabulary if at >= rows}
    needed = sorted(
        (at, token) for token, at in beyond.items() if token not in control or at in begins
    )
    if needed:
        each = listed([f"{token!r} with id {at}" for at, token in needed])
        raise RefusedModelError(
            f"{name}: its tokenizer has {len(needed)} token(s) beyond the model's {rows} "
            f"embeddings ({each}): tokens were added and the model was not resized; take the "
            "tokenizer that it was trained with, or `model.resize_token_embeddings(...)`, train "
            "and save"
        )
    more = f"; {len(beyond)} control tokens without an embedding, never read" if beyond else ""
    return f"{len(vocabulary)} tokens, {rows} embeddings{more}"


def describe_prefix(tokenizer: Any) -> str:
    """What a prompt begins with, in words; a BOS that is set but not added is told."""
    prefix = own_prefix(tokenizer)
    said = " ".join(map(str, tokenizer.convert_ids_to_tokens(list(prefix)))) or "nothing"
    first = tokenizer.bos_token_id
    if first is None or first in prefix:
        return said
    return f"{said} (it has the BOS token {tokenizer.bos_token!r}, but does not add it)"


def file_of(source: str, name: str, revision: str | None) -> Path | None:
    """A file of a folder, or of the hub where it is cached or can be had; None if there is none."""
    if Path(source).is_dir():
        path = Path(source) / name
        return path if path.is_file() else None
    got = cached_file(
        source,
        name,
        revision=revision,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return None if got is None else Path(got)


def _asked_prefix(source: str, revision: str | None) -> bool:
    path = file_of(source, "tokenizer_config.json", revision)
    if path is None:
        return False
    config = json.loads(path.read_text(encoding="utf-8"))
    return any(config.get(name) is not None for name in ("add_bos_token", "add_eos_token"))


def _notes(tokenizer: Any) -> tuple[str, ...]:
    # Longer prefixes than BOS were not kept once: what was made then must not pass for this.
    prefix = own_prefix(tokenizer)
    plain = not prefix or prefix == (tokenizer.bos_token_id,)
    return () if plain else (f"prefix {prefix}",)


def _around(text: str) -> str:
    return ascii(text if len(text) <= 40 else f"{text[:40]}...")


def _short(ids: Any, limit: int = 8) -> str:
    ids = list(ids)
    return str(ids) if len(ids) <= limit else f"{ids[:limit]}... ({len(ids)})"
