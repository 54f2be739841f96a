"""Sets on the Hugging Face hub: where their files are, and one converter per set.

A converter turns one record of the source into items and nothing else. `HUB` is the list; adding a
set means a converter and an entry. The files are read with the `datasets` library's json and
parquet readers, from the hub or from a local mirror of it.

Choices that the sources leave open, and that are ours:
- LIAR: label = true, mostly-true or half-true; "republican" only where the party is republican or
  democrat.
- Civil Comments: an attribute holds where its score is >= 0.5.
- TruthfulQA and AlpacaFarm have one split: a quarter of the questions, drawn once and for all,
  is test.
- A text that a split has already, or that a later split has (test, then valid, then train), is
  dropped, ignoring case and white space.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
import socket
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jelicit.data.items import Item, split_by_group

TEST_SHARE = 0.25
"""Share of the questions that is test where the source has one split."""

CELL_LIMIT = 5_000
"""Most rows per split and (toxic, sexually explicit) cell of Civil Comments (1.8 million rows)."""


@dataclass(frozen=True)
class Record:
    """One record of a source, with its place, so that errors can name it.

    Attributes:
        values: The fields.
        dataset: Name of the set.
        split: Our split.
        row: Number of the record in the source's split, from 0.
        hub_id: Id of the source on the hub.
    """

    values: Mapping[str, Any]
    dataset: str
    split: str
    row: int
    hub_id: str

    def error(self, name: str, problem: str) -> ValueError:
        """An error that names set, split, record and field."""
        return ValueError(
            f"{self.hub_id} ({self.dataset}), {self.split} record {self.row}: "
            f"field {name!r} {problem}"
        )

    def has(self, name: str) -> bool:
        """Whether the field is there and not null."""
        return self.values.get(name) is not None

    def get(self, *names: str) -> Any:
        """The first of the named fields that is there."""
        for name in names:
            if self.has(name):
                return self.values[name]
        raise self.error(" or ".join(names), f"is missing; it has: {', '.join(self.values)}")

    def text(self, *names: str) -> str:
        """The first of the named fields that is there, which must be text."""
        value = self.get(*names)
        if not isinstance(value, str):
            raise self.error(names[0], f"is {value!r}; expected text")
        return value

    def truth(self, name: str) -> bool:
        """A boolean field, also when it is written as 0 / 1 or as "true" / "false"."""
        value = self.get(name)
        known = {"true": True, "1": True, "false": False, "0": False}
        if str(value).strip().lower() not in known:
            raise self.error(name, f"is {value!r}; expected true or false")
        return known[str(value).strip().lower()]

    def score(self, name: str) -> float:
        """A number field."""
        value = self.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.error(name, f"is {value!r}; expected a number")
        return float(value)

    def item(self, *, part: str = "", **fields: Any) -> Item:
        """An item of this record; `part` tells several items of one record apart."""
        return Item(
            id=f"{self.dataset}/{self.split}/{self.row:05d}{part}",
            dataset=self.dataset,
            split=self.split,
            origin=f"hub:{self.hub_id}",
            **fields,
        )


def question_group(question: str) -> str:
    """A group name that follows from the question alone, the same in every set and split."""
    return "q" + hashlib.sha256(" ".join(question.split()).encode()).hexdigest()[:16]


# --- answers, read from the claim's own text -----------------------------------------------------

_LEAD = re.compile(r"the answer is", re.IGNORECASE)
_NUMBER = re.compile(
    r"(?P<sign>[-\u2212])?\s?[$€£]?\s?"
    r"(?P<value>\d{1,3}(?:[, ]\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
    r"(?P<fraction>(?: \d+)?/\d+)?"
)


def final_answer(text: str) -> str | None:
    """The number that a worked solution ends in: the one after its last "The answer is".

    Of an equation it is the right-hand side. Currency signs, thousands separators and idle zeros
    are left out ("$1,080.00" -> "1080"). Whatever follows a line "Q: ..." is another question that
    a model made up, and does not count. None where no number follows.
    """
    own = re.split(r"\n\s*Q:", text)[0]
    leads = list(_LEAD.finditer(own))
    if not leads:
        return None
    stated = own[leads[-1].end() :].split("\n")[0].rsplit("=", 1)[-1]
    found = _NUMBER.search(stated)
    if found is None:
        return None
    value = re.sub("[, ]", "", found["value"])
    if "." in value:
        value = value.rstrip("0").rstrip(".") or "0"
    sign = "-" if found["sign"] and value != "0" else ""
    return sign + value + (found["fraction"] or "")


def larger_number(text: str) -> str | None:
    """The number that a claim "X is larger than Y." holds to be larger, in lower case."""
    found = re.match(r"\s*(.+?) is larger than ", text, re.IGNORECASE)
    return found[1].lower() if found else None


# --- converters ----------------------------------------------------------------------------------

LIAR_LABELS = ("false", "half-true", "mostly-true", "true", "barely-true", "pants-fire")
"""The six labels in the order of the hub's class numbers."""

LIAR_TRUE = frozenset({"true", "mostly-true", "half-true"})
"""The labels that count as true. This binarisation is ours; the paper's is not published."""

CIVIL_ATTRIBUTES = (
    "severe_toxicity",
    "obscene",
    "threat",
    "insult",
    "identity_attack",
    "sexual_explicit",
)


def gsm8k(record: Record) -> list[Item]:
    """A question with one model solution; label = the solution is correct."""
    question, choice = record.text("question"), record.text("choice", "cot")
    return [
        record.item(
            question=question,
            choice=choice,
            label=record.truth("label"),
            answer=final_answer(choice),
            group=question_group(question),
        )
    ]


def larger_than(record: Record) -> list[Item]:
    """A comparison of two numbers; its group is the unordered pair of numbers."""
    question, choice = record.text("question"), record.text("choice", "cot")
    pair = re.search(r"(\S+) larger than ([^\s.?]+)", choice.lower().replace(" is ", " "))
    numbers = sorted(pair.groups()) if pair else [question_group(question)]
    meta = {name: record.values[name] for name in ("n1", "n2") if record.has(name)}
    return [
        record.item(
            question=question,
            choice=choice,
            label=record.truth("label"),
            answer=larger_number(choice),
            group="/".join(numbers),
            meta=meta,
        )
    ]


def political_normative(record: Record) -> list[Item]:
    """A normative claim: it has no truth value, only a leaning."""
    leaning = record.text("political_leaning")
    if leaning not in ("liberal", "conservative"):
        raise record.error("political_leaning", f"is {leaning!r}; expected liberal or conservative")
    question = record.text("question")
    return [
        record.item(
            question=question,
            choice=record.text("choice", "cot"),
            label=None,
            alt_labels={"liberal": leaning == "liberal"},
            group=question_group(question),
            meta={"normative": True},
        )
    ]


def ctrl_z(record: Record) -> list[Item]:
    """A task and the commands run for it; label = suspicious (the source's True), safe = not."""
    task = record.text("task_description", "question")
    numbered = [n for n in record.values if re.fullmatch(r"command_\d+", n) and record.has(n)]
    numbered.sort(key=lambda n: int(n.removeprefix("command_")))
    commands = "\n".join(map(record.text, numbered)) or record.text("choice", "cot")
    suspicious = record.truth("label")
    return [
        record.item(
            question=task,
            choice=commands,
            label=suspicious,
            alt_labels={"safe": not suspicious},
            group=question_group(task),
        )
    ]


def liar(record: Record) -> list[Item]:
    """A statement with a six-way rating and the speaker's party."""
    rating = record.get("label")
    if isinstance(rating, int) and not isinstance(rating, bool) and 0 <= rating < len(LIAR_LABELS):
        rating = LIAR_LABELS[rating]
    if rating not in LIAR_LABELS:
        raise record.error("label", f"is {rating!r}; expected one of {', '.join(LIAR_LABELS)}")
    party = record.text("party_affiliation")
    known_party = party in ("republican", "democrat")
    names = {"speaker": "speaker", "job_title": "job", "state_info": "state", "subject": "subjects"}
    extra = {ours: record.values.get(theirs) or "" for theirs, ours in names.items()}
    source_id = record.values.get("id")
    return [
        record.item(
            choice=record.text("statement"),
            label=rating in LIAR_TRUE,
            alt_labels={"republican": party == "republican"} if known_party else {},
            group=str(source_id).removesuffix(".json") if source_id else "",
            meta={"label6": rating, "party": party, **extra},
        )
    ]


def civil_comments(record: Record) -> list[Item]:
    """A comment; label = toxicity >= 0.5, the six subtypes likewise are alternative labels."""
    scores = {name: record.score(name) for name in ("toxicity", *CIVIL_ATTRIBUTES)}
    return [
        record.item(
            choice=record.text("text"),
            label=scores["toxicity"] >= 0.5,
            alt_labels={name: scores[name] >= 0.5 for name in CIVIL_ATTRIBUTES},
            meta={"scores": scores},
        )
    ]


def truthfulqa_mc1(record: Record) -> list[Item]:
    """The answers of which exactly one is right."""
    return _truthfulqa(record, "mc1_targets")


def truthfulqa(record: Record) -> list[Item]:
    """All right and wrong answers of a question (the mc2 targets)."""
    return _truthfulqa(record, "mc2_targets")


def _truthfulqa(record: Record, name: str) -> list[Item]:
    question, targets = record.text("question"), record.get(name)
    choices, marks = targets.get("choices"), targets.get("labels")
    if not choices or not marks or len(choices) != len(marks) or not set(marks) <= {0, 1}:
        raise record.error(name, f"is {targets!r}; expected choices and as many labels of 0 or 1")
    return [
        record.item(
            part=f"-{number:02d}",
            question=question,
            choice=choice,
            label=bool(mark),
            group=question_group(question),
        )
        for number, (choice, mark) in enumerate(zip(choices, marks, strict=True))
    ]


def alpaca(record: Record) -> list[Item]:
    """Two responses in both orders; label = a human prefers the first. Equal responses: none."""
    question = alpaca_question(record)
    first, second = record.text("output_1"), record.text("output_2")
    preferred = record.get("preference")
    if preferred not in (1, 2):
        raise record.error("preference", f"is {preferred!r}; expected 1 or 2")
    if first == second:
        return []
    group = f"{record.dataset}/{record.row:05d}"
    orders = {"a": (first, second, preferred == 1), "b": (second, first, preferred == 2)}
    return [
        record.item(
            part=part, question=question, choice=one, choice_2=two, label=better, group=group
        )
        for part, (one, two, better) in orders.items()
    ]


def alpaca_question(record: Record) -> str:
    """The instruction, and its input after a blank line where there is one."""
    context = record.values.get("input") or ""
    return record.text("instruction") + (f"\n\n{context}" if context else "")


# --- the list ------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class HubSet:
    """Where a set lies on the hub and how it is read.

    Attributes:
        hub_id: "<owner>/<name>".
        files: Path (with wildcards) of each of our splits; "all" for a source with one split.
        convert: Record -> items.
        revision: Branch of the hub's repository; "" for the main one.
        question: Of a source with one split: what must not be on both sides of ours.
        cell: Of a huge source: at most `CELL_LIMIT` records per value are kept.
    """

    hub_id: str
    files: Mapping[str, str]
    convert: Callable[[Record], list[Item]]
    revision: str = ""
    question: Callable[[Record], str] | None = None
    cell: Callable[[Record], Hashable] | None = None


def _challenges(folder: str, convert: Callable[[Record], list[Item]]) -> HubSet:
    files = {split: f"{folder}/{split}.jsonl" for split in ("train", "test")}
    hub_id = "callum-canavan/challenges-for-unsupervised-elicitation"
    return HubSet(hub_id=hub_id, files=files, convert=convert)


def _truthful_qa(convert: Callable[[Record], list[Item]]) -> HubSet:
    return HubSet(
        hub_id="truthfulqa/truthful_qa",
        files={"all": "multiple_choice/validation-*.parquet"},
        convert=convert,
        question=lambda record: record.text("question"),
    )


HUB: dict[str, HubSet] = {
    "gsm8k": _challenges("gsm8k", gsm8k),
    "larger_than": _challenges("larger_than", larger_than),
    "political_normative": _challenges("normative_political", political_normative),
    "ctrl_z": _challenges("ctrl_z", ctrl_z),
    "liar": HubSet(
        hub_id="ucsbnlp/liar",
        files={
            "train": "default/train/*.parquet",
            "valid": "default/validation/*.parquet",
            "test": "default/test/*.parquet",
        },
        # The main branch holds a loading script, which `datasets` no longer runs.
        revision="refs/convert/parquet",
        convert=liar,
    ),
    "civil_comments": HubSet(
        hub_id="google/civil_comments",
        files={
            "train": "data/train-*.parquet",
            "valid": "data/validation-*.parquet",
            "test": "data/test-*.parquet",
        },
        convert=civil_comments,
        cell=lambda r: (r.score("toxicity") >= 0.5, r.score("sexual_explicit") >= 0.5),
    ),
    "truthfulqa": _truthful_qa(truthfulqa),
    "truthfulqa_mc1": _truthful_qa(truthfulqa_mc1),
    "alpaca": HubSet(
        hub_id="tatsu-lab/alpaca_farm",
        files={"all": "alpaca_human_preference.json"},
        convert=alpaca,
        question=alpaca_question,
    ),
}
"""The sets by name."""


# --- reading -------------------------------------------------------------------------------------


def read_hub_set(
    name: str, *, hub_root: str | os.PathLike[str] | None = None
) -> dict[str, list[Item]]:
    """All splits of a hub set as items: "train", "test" and, where the source has it, "valid".

    Args:
        name: A key of `HUB`.
        hub_root: A folder to read in place of the hub; the files of set S lie in <hub_root>/<hub
            id of S>/ as they lie on the hub.

    Raises:
        ConnectionError: If the hub cannot be reached; the message says what to do instead.
        FileNotFoundError: If the hub or the mirror does not have the files.
        ValueError: If a record lacks a field or has a wrong value; the message names both.
    """
    spec = HUB[name]
    records: dict[str, list[Record]] = {}
    for split, pattern in spec.files.items():
        rows = enumerate(_rows(name, spec, pattern, hub_root))
        stream = (Record(values, name, split, row, spec.hub_id) for row, values in rows)
        records[split] = list(stream) if spec.cell is None else _per_cell(stream, spec.cell)
    if "all" in records:
        records = _split_by_question(records["all"], spec)
    items = {
        split: [item for record in found for item in spec.convert(record)]
        for split, found in records.items()
    }
    return _without_repeats(items)


def _rows(
    name: str, spec: HubSet, pattern: str, hub_root: str | os.PathLike[str] | None
) -> Iterator[Mapping[str, Any]]:
    """The records of one file pattern, from the hub (cached) or a mirror (streamed)."""
    import datasets  # slow, and not needed for pocket and local sets

    if hub_root is None:
        revision = f"@{spec.revision}" if spec.revision else ""
        base = f"hf://datasets/{spec.hub_id}{revision}"
    else:
        base = str(Path(hub_root).absolute() / spec.hub_id)
        if not any(Path(base).glob(pattern)):
            raise FileNotFoundError(
                f"{name}: the mirror has no file {base}/{pattern}; lay the files of "
                f"{spec.hub_id} out as they are on the hub, or leave hub_root out"
            )
    reader = "parquet" if pattern.endswith(".parquet") else "json"
    try:
        # A mirror is streamed: nothing is cached, so files that change are never read stale.
        rows = datasets.load_dataset(
            reader,
            data_files={"all": f"{base}/{pattern}"},
            split="all",
            streaming=hub_root is not None,
        )
        for row in rows:
            yield dict(row)
    except Exception as error:
        raise _reading_error(name, spec, f"{base}/{pattern}", error) from error


def _reading_error(name: str, spec: HubSet, source: str, error: Exception) -> Exception:
    """One clear error for whatever the hub's client raised."""
    first_line = (str(error).strip().splitlines() or [""])[0]
    reason = f"{type(error).__name__}: {first_line}"
    instead = (
        f"Instead, give a folder of your own, load_dataset('./{name}'), with train.jsonl and "
        "test.jsonl: one JSON object per line with id, choice, label and, where the set has them, "
        "question, choice_2, group, alt_labels, answer, meta. Or copy the files of "
        f"{spec.hub_id} to HUB_ROOT/{spec.hub_id}/, laid out as on the hub, and pass "
        "hub_root=HUB_ROOT."
    )
    if _is_network_error(error):
        return ConnectionError(f"{name}: the hub cannot be reached ({source}: {reason}). {instead}")
    kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError
    return kind(f"{name}: cannot read {source} ({reason}). {instead}")


def _is_network_error(error: BaseException | None) -> bool:
    """Whether the error, or what caused it, says that there is no connection."""
    while error is not None:
        if isinstance(error, ConnectionError | TimeoutError | socket.gaierror):
            return True
        # The hub's client raises its HTTP library's own errors, and that library has changed.
        if any(kind.__name__ == "TransportError" for kind in type(error).__mro__):
            return True
        error = error.__cause__ or error.__context__
    return False


def _per_cell(records: Iterable[Record], cell: Callable[[Record], Hashable]) -> list[Record]:
    """At most `CELL_LIMIT` records per cell, drawn uniformly (reservoir sampling), in order."""
    rng = random.Random(0)
    kept: dict[Hashable, list[Record]] = {}
    seen: dict[Hashable, int] = {}
    for record in records:
        key = cell(record)
        rows = kept.setdefault(key, [])
        seen[key] = seen.get(key, 0) + 1
        if len(rows) < CELL_LIMIT:
            rows.append(record)
        elif (place := rng.randrange(seen[key])) < CELL_LIMIT:
            rows[place] = record
    return sorted((r for rows in kept.values() for r in rows), key=lambda record: record.row)


def _split_by_question(records: list[Record], spec: HubSet) -> dict[str, list[Record]]:
    """Train and test records that share no question. The split belongs to the set: one seed."""
    if spec.question is None:
        raise ValueError(f"{spec.hub_id}: its entry in HUB must say what a question is")
    stand_ins = [
        Item(id=str(place), choice="-", group=spec.question(record))
        for place, record in enumerate(records)
    ]
    train, test = split_by_group(stand_ins, test_share=TEST_SHARE, seed=0)
    return {
        split: [replace(records[int(stand_in.id)], split=split) for stand_in in side]
        for split, side in (("train", train), ("test", test))
    }


def _without_repeats(items: Mapping[str, list[Item]]) -> dict[str, list[Item]]:
    """Drops texts that came before, test first, so that no text is in two splits."""
    seen: set[tuple[str, ...]] = set()
    kept: dict[str, list[Item]] = {split: [] for split in items}
    for split in sorted(items, key=["test", "valid", "train"].index):
        for item in items[split]:
            texts = (item.question, item.choice, item.choice_2 or "")
            folded = tuple(" ".join(text.lower().split()) for text in texts)
            if folded not in seen:
                seen.add(folded)
                kept[split].append(item)
    return kept
