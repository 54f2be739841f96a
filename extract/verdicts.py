"""Token ids of prompts and verdicts: the same ids for every scorer.

The rule. A prompt is a tuple of segments, cut only after blank lines. Each segment is tokenised on
its own, without special tokens, and the ids are joined; in front comes, once, whatever the
tokenizer itself puts before a text (`own_prefix`: BOS, or "[gMASK] <sop>", or nothing). So prompts
that share segments share ids, and a prompt's ids do not depend on what follows. A tokenizer that
puts a space of its own before a text that stands alone puts one before each segment.

A verdict's ids are what it adds to the last segment: that segment is tokenised with and without the
verdict, and if the ids without it are the beginning of the ids with it, the rest are the verdict's.
SentencePiece tokenizers (Llama 2, Gemma) need this, since they put a space of their own before a
text that stands alone. Where the verdict merges into the text before it (a prompt that ends in a
space), the verdict is tokenised alone; what that makes of the joint between the two is recorded
(`Joint`), and refused where it is not what the text says (`check_joints`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

Match = Literal["words", "tokens"]
"""What counts as a verdict: every token that reads as its word, or exactly the verdict's tokens."""

Joint = Literal["clean", "after a space", "merged", "doubled"]
"""How a verdict follows its prompt. clean: by the tokens that it adds to the text. Else it is
tokenised alone: after a space that the prompt ends in ("is " + "True"); merged, where the text has
no space there and would be one word ("so" + "True"); doubled, where the tokenizer puts a second
space before it (SentencePiece)."""

JOINTS: tuple[Joint, ...] = ("clean", "after a space", "merged", "doubled")

SPOILT = 0.05
"""Share of prompts from which on merged and doubled joints are refused."""

EPSILON = 1e-5
"""Added to a verdict's probability before the logarithm when tokens are matched by their words."""


class Encoded(NamedTuple):
    """One prompt and its verdicts as token ids."""

    prompt: tuple[int, ...]
    """What the tokenizer begins with and the segments; ends just before the verdict."""
    verdicts: tuple[tuple[int, ...], ...]
    """Ids of each verdict word, none empty."""
    joint: Joint = "clean"
    """How the verdicts follow; of two ways, the worse."""
    after: tuple[tuple[int, ...], ...] = ()
    """Ids of a text after each verdict, at whose end hidden states are read; () = no text."""

    @property
    def branches(self) -> tuple[tuple[int, ...], ...]:
        """All that is read after the prompt: per verdict its ids, and those of the text after."""
        if not self.after:
            return self.verdicts
        return tuple(v + text for v, text in zip(self.verdicts, self.after, strict=True))


def encode(
    tokenizer: Any, prompts: Sequence[tuple[str, ...]], words: Sequence[str]
) -> list[Encoded]:
    """Token ids of prompts and of the verdict words after each of them, by the rule above.

    A control token that is spelled out in a text ("<s>", "<|eot_id|>") is tokenised as the
    characters that it is written in: no item can end or restart a document, and no prompt format
    can either. Other text has the ids that the tokenizer gives by default, tokens that were added
    as ordinary words included. Three kinds of tokenizers do not keep to that: those without a Rust
    backend (`is_fast` is False), which offer no way that leaves their ordinary added words alone;
    those whose model has the control token as a whole word (Unigram, WordLevel); and those that
    list a control token as an ordinary added word.

    Args:
        tokenizer: A Hugging Face tokenizer.
        prompts: Each a tuple of text segments, the last ending just before the verdict.
        words: Verdict words with their own leading space, for example (" True", " False").

    Raises:
        ValueError: If a prompt has no token, a verdict adds none, or a text has half a character.
    """
    last = {prompt[-1] for prompt in prompts}
    texts = {text for prompt in prompts for text in prompt} | set(words)
    ids = tokenise(tokenizer, texts | {text + word for text in last for word in words})
    joined = {text: verdicts_after(tokenizer, ids, text, words) for text in last}
    start = own_prefix(tokenizer)
    encoded = []
    for prompt in prompts:
        tokens = tuple(token for text in prompt for token in ids[text])
        if not start + tokens:
            raise ValueError(f"the prompt {''.join(prompt)!r} has no token")
        encoded.append(Encoded(start + tokens, *joined[prompt[-1]]))
    return encoded


def verdicts_after(
    tokenizer: Any, ids: dict[str, tuple[int, ...]], text: str, words: Sequence[str]
) -> tuple[tuple[tuple[int, ...], ...], Joint]:
    """Ids of each verdict word after a text, and how they follow it; of two ways, the worse.

    Args:
        tokenizer: A Hugging Face tokenizer.
        ids: Of the text, of each word, and of the text with each word (`tokenise`).
        text: What the verdicts follow.
        words: The verdicts.

    Raises:
        ValueError: If a verdict adds no token.
    """
    verdicts = tuple(_verdict(ids, text, word) for word in words)
    return verdicts, _joint(tokenizer, ids, text, words)


def with_after(
    tokenizer: Any, encoded: Sequence[Encoded], texts: Sequence[str], words: Sequence[str]
) -> list[Encoded]:
    """Prompts with a text after either verdict, whose ids are what it adds to the verdict's word.

    Prompts and verdicts keep their ids: the verdict is asked for before the text.

    Args:
        tokenizer: A Hugging Face tokenizer.
        encoded: n prompts with their verdicts.
        texts: n texts; "" for none.
        words: The verdicts, as they stand after the prompts.

    Raises:
        ValueError: If a text is one token with the verdict before it.
    """
    some = set(texts) - {""}
    if not some:
        return list(encoded)
    ids = tokenise(tokenizer, {*words, *(word + text for word in words for text in some)})
    added = {text: tuple(_adds(ids, word, text) for word in words) for text in some}
    for text, sides in added.items():
        if not all(sides):
            raise ValueError(
                f"the text {text!r} after the verdicts {', '.join(map(repr, words))} adds no token "
                "of its own; begin it with a space, or with a mark that this tokenizer keeps apart"
            )
    return [
        row._replace(after=added[text]) if text else row
        for row, text in zip(encoded, texts, strict=True)
    ]


def joint_counts(encoded: Sequence[Encoded]) -> dict[str, int]:
    """How many prompts have which `Joint`; those that none has are left out."""
    counts = Counter(row.joint for row in encoded)
    return {joint: counts[joint] for joint in JOINTS if counts[joint]}


def check_joints(encoded: Sequence[Encoded], words: Sequence[str]) -> None:
    """Refuses prompts of which `SPOILT` or more are joined to their verdicts in no text's way.

    Raises:
        ValueError: If so; the message says what happens to how many.
    """
    counts = joint_counts(encoded)
    spoilt = counts.get("merged", 0) + counts.get("doubled", 0)
    if spoilt < SPOILT * len(encoded) or not spoilt:
        return
    what = []
    if merged := counts.get("merged"):
        what.append(f"for {merged} of {len(encoded)} the verdict would be one word with the last")
    if doubled := counts.get("doubled"):
        what.append(f"for {doubled} of {len(encoded)} this tokenizer puts a second space before it")
    raise ValueError(
        f"the verdicts {', '.join(map(repr, words))} do not follow these prompts as a text would: "
        f"{'; '.join(what)}. Choose a format whose text ends in a word and whose verdicts begin "
        'with a space (" True")'
    )


def check_text(text: str, what: str) -> None:
    """Refuses half a character (a lone surrogate), which no tokenizer can read.

    Raises:
        ValueError: If there is one; the message begins with `what` and shows the place.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        around = text[max(error.start - 20, 0) : error.start + 20]
        raise ValueError(
            f"{what}: half a character (a lone surrogate, {text[error.start]!a}) at place "
            f"{error.start}, in {around!a}; correct the text, which was cut or decoded wrongly"
        ) from None


def control_tokens(tokenizer: Any) -> set[str]:
    """The tokenizer's control tokens ("<s>", "<|user|>") as they are spelled."""
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    return {str(token) for token in added if token.special} | set(tokenizer.all_special_tokens)


def lengths_read(encoded: Sequence[Encoded], match: Match) -> list[int]:
    """Tokens that a scorer reads of each prompt, with its longest verdict's share."""
    if match == "words":
        return [len(item.prompt) for item in encoded]
    # After a verdict's last token nothing is asked, so that one is not read.
    return [len(item.prompt) + max(map(len, item.verdicts)) - 1 for item in encoded]


def check_prompts(
    prompts: Sequence[tuple[str, ...]], verdicts: Sequence[str]
) -> tuple[list[tuple[str, ...]], tuple[str, ...]]:
    """The prompts and verdicts that a scorer was given, as lists and tuples.

    Raises:
        ValueError: If there is no verdict, a prompt is no tuple of texts, or two verdicts are the
            same word.
    """
    if isinstance(verdicts, str) or not len(verdicts):
        raise ValueError(f"verdicts is {verdicts!r}: there are no verdicts to score; give words")
    for number, prompt in enumerate(prompts):
        if isinstance(prompt, str) or not len(prompt):
            raise ValueError(f"prompt {number} is {prompt!r}; give a tuple of text segments")
    if len({as_word(verdict) for verdict in verdicts}) < len(verdicts):
        raise ValueError(f"of the verdicts {tuple(verdicts)}, two are the same word")
    return [tuple(prompt) for prompt in prompts], tuple(verdicts)


def distinct(
    prompts: Sequence[tuple[str, ...]],
) -> tuple[list[tuple[str, ...]], list[int], list[int]]:
    """Every prompt once, the place at which each first stands, and the row of every one given."""
    first: dict[tuple[str, ...], int] = {}
    for place, prompt in enumerate(prompts):
        first.setdefault(prompt, place)
    row = {prompt: number for number, prompt in enumerate(first)}
    return list(first), list(first.values()), [row[prompt] for prompt in prompts]


def as_word(text: str) -> str:
    """A text without surrounding space and case: what it reads as."""
    return text.strip().casefold()


def readings(tokenizer: Any) -> dict[str, tuple[int, ...]]:
    """The tokens of the vocabulary by the word that each reads as."""
    found: dict[str, list[int]] = {}
    texts = tokenizer.batch_decode([[token] for token in range(len(tokenizer))])
    for token, text in enumerate(texts):
        found.setdefault(as_word(text), []).append(token)
    return {word: tuple(tokens) for word, tokens in found.items()}


def reading_as(table: dict[str, tuple[int, ...]], verdict: str, *, model: str) -> tuple[int, ...]:
    """The tokens that read as a verdict.

    Args:
        table: `readings` of the tokenizer.
        verdict: The word.
        model: What the message calls the model.

    Raises:
        ValueError: If no token does.
    """
    tokens = table.get(as_word(verdict))
    if tokens is None:
        raise ValueError(
            f"no token of {model} reads as {verdict.strip()!r}; choose another word, or "
            "match='tokens', which takes a word of several tokens"
        )
    return tokens


def own_prefix(tokenizer: Any) -> tuple[int, ...]:
    """All that a tokenizer itself puts before a text: BOS, "[gMASK] <sop>", or nothing."""
    alone = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a", add_special_tokens=True)["input_ids"]
    for start in range(len(whole) - len(alone) + 1):
        if alone and whole[start : start + len(alone)] == alone:
            return tuple(whole[:start])
    first = tokenizer("", add_special_tokens=True)["input_ids"][:1]  # it has no token for "a"
    return tuple(first) if first and first[0] == tokenizer.bos_token_id else ()


bos = own_prefix
"""The name that it had when it knew no prefix but BOS."""


def tokenise(
    tokenizer: Any, texts: Iterable[str], *, control: Literal["letters", "tokens"] = "letters"
) -> dict[str, tuple[int, ...]]:
    """Ids of each text by itself; the tokenizer adds nothing.

    Args:
        tokenizer: A Hugging Face tokenizer.
        texts: Each once.
        control: Whether control tokens spelled in a text are letters, or the tokens.

    Raises:
        ValueError: If a text has half a character.
    """
    # Sorted: tokenizers may not depend on the order, but a set's order is not ours to give.
    ordered = sorted(texts)
    if not ordered:
        return {}
    for text in ordered:
        check_text(text, "a prompt or a verdict")
    letters = control == "letters" and getattr(tokenizer, "is_fast", False)
    made = tokenizer(
        ordered,
        add_special_tokens=False,
        padding=False,
        truncation=False,
        return_attention_mask=False,
        verbose=False,  # its remark on long texts; lengths are checked against the model later
        **({"split_special_tokens": True} if letters else {}),
    )["input_ids"]
    return {text: tuple(ids) for text, ids in zip(ordered, made, strict=True)}


def _adds(ids: dict[str, tuple[int, ...]], text: str, word: str) -> tuple[int, ...]:
    """The tokens that a word adds to a text; none where the text's own would change."""
    without, whole = ids[text], ids[text + word]
    return whole[len(without) :] if without and whole[: len(without)] == without else ()


def _joint(
    tokenizer: Any, ids: dict[str, tuple[int, ...]], text: str, words: Sequence[str]
) -> Joint:
    each = {_joint_of(tokenizer, ids, text, word) for word in words}
    worst: Joint = "clean"
    for joint in JOINTS:
        worst = joint if joint in each else worst
    return worst


def _joint_of(tokenizer: Any, ids: dict[str, tuple[int, ...]], text: str, word: str) -> Joint:
    if not ids[text] or _adds(ids, text, word):
        return "clean"
    options = {"clean_up_tokenization_spaces": False}
    said = tokenizer.decode(list(ids[text + word]), **options)
    if tokenizer.decode(list(ids[text] + ids[word]), **options) != said:
        return "doubled"
    return "after a space" if text[-1].isspace() or word[0].isspace() else "merged"


def _verdict(ids: dict[str, tuple[int, ...]], text: str, word: str) -> tuple[int, ...]:
    if added := _adds(ids, text, word):
        return added
    if not ids[word]:
        raise ValueError(f"the verdict {word!r} has no token; choose another word")
    return ids[word]


def byte_share(tokenizer: Any, sequences: Iterable[Sequence[int]]) -> float:
    """Share of the text's letters that had to be spelled in tokens of a single byte.

    Counted in bytes of UTF-8 over ASCII letters and all bytes of other characters; digits,
    punctuation and space are left out, since one byte is their natural token. About 0 where the
    tokenizer knows the words, 1 where it knows none: then the model reads a text that its
    pretraining hardly had. (A word of one letter without a space before it counts too.)

    Args:
        tokenizer: A Hugging Face tokenizer, byte-level or SentencePiece-like with byte fallback.
        sequences: Token ids of the texts.
    """
    counts: dict[int, int] = {}
    for sequence in sequences:
        for token in sequence:
            counts[token] = counts.get(token, 0) + 1
    special = set(tokenizer.all_special_ids)
    byte_level = "Ġ" in tokenizer.get_vocab()
    letters = spelled = 0
    for token, count in counts.items():
        if token in special:
            continue
        content = _bytes(tokenizer.convert_ids_to_tokens(token), byte_level=byte_level)
        n = sum(byte >= 0x80 or chr(byte).isalpha() for byte in content)
        letters += n * count
        spelled += n * count * (len(content) == 1)
    return spelled / letters if letters else 0.0


def _bytes(text: str, *, byte_level: bool) -> bytes:
    """The bytes that a token of the vocabulary stands for."""
    if byte_level and all(char in _BYTE_OF for char in text):
        return bytes(_BYTE_OF[char] for char in text)
    if text.startswith("<0x") and len(text) == 6:
        return bytes([int(text[3:5], 16)])
    return text.replace("▁", " ").encode()


def _byte_alphabet() -> dict[str, int]:
    """Byte of each character that byte-level BPE (GPT-2) writes for it."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    table = {chr(byte): byte for byte in shown}
    return table | {chr(256 + n): byte for n, byte in enumerate(hidden)}


_BYTE_OF = _byte_alphabet()
