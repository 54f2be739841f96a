"""What a store holds, on one page: for whoever finds it and wants to use it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from extract.printable import printable
from jelicit.activations import ActivationStore
from jelicit.data.items import Item
from jelicit.data.prompts import PromptFormat, zero_shot

NORM_ROWS = 1024
"""Norms are of this many rows at most: a large store, or a remote one, is not read for them."""
SHOWN = 600
"""Characters of the example prompt."""


def show(store: ActivationStore, console: Console) -> None:
    """Prints the page: facts, an example prompt, norms per layer, and how to read the store.

    Texts of the store are printed as they are: no markup, no control characters.

    Raises:
        ValueError: If the items were changed.
    """
    facts = _facts(store)
    width = max(len(name) for rows in facts.values() for name in rows)
    console.print(_plain(str(store.folder), "bold"), soft_wrap=True)
    for heading, rows in facts.items():
        console.print(_section(heading, _pairs(rows, width=width)))
    if example := _example(store):
        console.print(_section("First prompt", example))
    if store.complete:
        console.print(_section(_norms_title(store), _norms(store)))
    console.print(_heading("Read it"))
    console.print(_plain(_code(store)), soft_wrap=True)  # whole lines, to be copied


# --- texts ---------------------------------------------------------------------------------------


def _plain(text: str, style: str = "") -> Text:
    """Text as it is: rich does not look for markup in it, and the terminal finds no commands."""
    return Text(printable(text), style=style, overflow="fold")


def _shorten(text: str, limit: int = SHOWN) -> str:
    """Beginning and end of a long text: the end is where the verdict is asked for."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]} [... {len(text) - 2 * half} characters ...] {text[-half:]}"


def _counted(names: Iterable[str]) -> str:
    """Distinct names with their counts, most frequent first."""
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    if len(counts) == 1:
        return next(iter(counts))
    ranked = sorted(counts.items(), key=lambda pair: -pair[1])
    more = f", {len(ranked) - 4} more" if len(ranked) > 4 else ""
    return ", ".join(f"{name or 'none'} {count}" for name, count in ranked[:4]) + more


def _listed(values: Mapping[str, Any]) -> str:
    """Keys and values in one line; of a merged store, the values of its parts."""
    each = (
        f"{key} {' | '.join(map(str, value)) if isinstance(value, list) else value}"
        for key, value in values.items()
    )
    return ", ".join(each) or "not recorded"


def _span(layers: Sequence[int]) -> str:
    if len(layers) > 2 and list(layers) == list(range(layers[0], layers[-1] + 1)):
        return f"{layers[0]}..{layers[-1]}"
    return ", ".join(map(str, layers))


def _size(n_bytes: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if n_bytes >= size:
            return f"{n_bytes / size:.1f} {unit}"
    return f"{n_bytes / 1e3:.0f} kB"


# --- facts ---------------------------------------------------------------------------------------


def _facts(store: ActivationStore) -> dict[str, dict[str, str]]:
    spec = store.spec
    facts = {
        "States": {
            "model": f"{spec.model} {spec.revision[:12]}".strip(),
            "weights": f"digest {spec.model_digest[:12]}",
            "layers": f"{_span(spec.layers)} of 0..{_known(spec.n_blocks)}: 0 = embeddings, "
            f"l = after block l, {_known(spec.n_blocks)} = after the final norm",
            "per item": f"phi+ and phi- (prompt + {spec.prompt_format.get('true_word', '?')!r}, "
            f"+ {spec.prompt_format.get('false_word', '?')!r}), at the last token, D = "
            f"{spec.d_model}, {spec.dtype}",
            "shards": _shards(store),
            "size": _size(store.size),
        },
        "Items": _items(store),
        "Prompts": _prompts(store),
    }
    if store.complete:
        facts["The model's answers, zero-shot"] = _answers(store)
    if checks := spec.settings.get("checks"):
        facts["Checked when the model was loaded"] = _checks(checks)
    facts["Made"] = {
        "batches": _listed({k: v for k, v in spec.settings.items() if k != "checks"}),
        "on": _listed(spec.machine),
        "with": _listed(spec.versions),
    }
    return facts


def _known(value: object) -> str:
    return "?" if value is None else str(value)


def _shards(store: ActivationStore) -> str:
    count = len(store.spec.shards)
    if store.complete:
        return f"{count}, complete"
    missing = store.missing()
    shown = f"{missing[:10]}{f' and {len(missing) - 10} more' if len(missing) > 10 else ''}"
    return f"{count}, INCOMPLETE: {shown if missing else 'not finished'}; run it again"


def _truth(values: Sequence[bool | None]) -> str:
    counts = {str(name): sum(value is name for value in values) for name in (True, False, None)}
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def _items(store: ActivationStore) -> dict[str, str]:
    items = store.items
    facts = {
        "number": f"{len(items)} in {len({item.group for item in items})} groups",
        "data set": f"{_counted(item.dataset for item in items) or 'not named'}, split "
        f"{_counted(item.split for item in items) or 'not named'}",
        "origin": _counted(item.origin for item in items) or "not recorded",
        "label": _truth([item.label for item in items]),
    }
    for name in sorted({name for item in items for name in item.alt_labels}):
        facts[f"alt label {name}"] = _truth([item.alt_labels.get(name) for item in items])
    if features := [name for item in items[:1] for name in item.meta.get("features", [])]:
        facts["features"] = ", ".join(map(str, features))
    return facts


def _prompts(store: ActivationStore) -> dict[str, str]:
    spec, texts = store.spec, store.spec.texts
    target = spec.prompt_format.get("target", "label")
    lengths = texts.get("prompt_tokens", {})
    median = f", median {lengths['median']}" if "median" in lengths else ""
    facts = {
        "format": f"{spec.prompt_format.get('name', '?')}; it asks for "
        f"{'the label' if target == 'label' else f'the alt label {target}'}"
    }
    if lengths:
        facts["tokens"] = f"{lengths.get('least')} to {lengths.get('most')}{median}"
    if "beyond_trained_length" in texts:
        facts["beyond trained length"] = (
            f"{texts['beyond_trained_length']} prompts "
            f"(trained length: {texts.get('trained_length') or 'not known'})"
        )
    parts = texts.get("parts", [texts])
    facts |= _joins(parts) | _after_verdicts(parts) | _left_out(parts)
    shares = [one["byte_share"] for one in parts if "byte_share" in one]
    if shares:
        least, most = f"{min(shares):.1%}", f"{max(shares):.1%}"
        facts["letters spelled in bytes"] = least if least == most else f"{least} to {most}"
    return facts


def _checks(checks: object) -> dict[str, str]:
    if not isinstance(checks, Mapping):
        return {"": _known(checks)}
    return {str(name): str(said) for name, said in checks.items()}


def _joins(parts: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """How the prompts were put together, of a store that recorded it."""
    known = [part for part in parts if "joints" in part]
    if not known:
        return {}
    joints: dict[str, int] = {}
    for part in known:
        for joint, count in part["joints"].items():
            joints[joint] = joints.get(joint, 0) + count
    facts = {"verdict's joint": ", ".join(f"{count} {joint}" for joint, count in joints.items())}
    if "chat" in known[0]:  # of a merged store all parts are in the same template
        return {"chat template": str(known[0]["chat"]["said"]), **facts}
    begins = " | ".join(
        dict.fromkeys(" ".join(part["prefix"]["tokens"]) or "nothing" for part in known)
    )
    facts = {"begin with": f"{begins} (what the tokenizer itself puts before a text)", **facts}
    if apart := sum(part["apart_from_the_whole_text"] for part in known):
        facts["segments"] = f"{apart} prompts have other tokens than their text in one piece"
    if control := sorted({name for part in known for name in part["control_tokens_in_letters"]}):
        facts["control tokens"] = f"{', '.join(control)} of the format are read as letters"
    return facts


def _after_verdicts(parts: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Texts after verdicts, of a store that has some."""
    told = [part["after_verdict"] for part in parts if "after_verdict" in part]
    if not told:
        return {}
    texts = sorted({text for one in told for text in one["texts"]})
    more = f" and {len(texts) - 4} more" if len(texts) > 4 else ""
    count = sum(one["items"] for one in told)
    return {
        "after the verdict": f"{count} items have a text, at whose end states are read: "
        f"{', '.join(map(repr, texts[:4]))}{more}"
    }


def _left_out(parts: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    left_out = [part["left_out"] for part in parts if "left_out" in part]
    count = sum(one["longer_than_context"] for one in left_out)
    if not count:
        return {}
    ids = [name for one in left_out for name in one["ids"]]
    more = f" and {count - 4} more" if count > 4 else ""
    return {"left out": f"{count} longer than the context: {', '.join(ids[:4])}{more}"}


def _answers(store: ActivationStore) -> dict[str, str]:
    """Verdict mass, and the accuracy of the likelier verdict on items that have a label."""
    log_probs = store.log_probs.astype(np.float64)
    mass = np.exp(log_probs).sum(1).mean()
    facts = {"verdict mass": f"{mass:.3f} (mean of P(true) + P(false); near 0: wrong prompt)"}
    target = store.spec.prompt_format.get("target", "label")
    gold = [
        item.label if target == "label" else item.alt_labels.get(target) for item in store.items
    ]
    known = np.array([label is not None for label in gold])
    if not known.any():
        return facts | {"accuracy": "no item has a label to compare with"}
    truth = np.array([bool(label) for label in gold])[known]
    said = (log_probs[:, 0] > log_probs[:, 1])[known]
    majority = max(truth.mean(), 1 - truth.mean())
    facts["accuracy"] = (
        f"{(said == truth).mean():.3f} of {known.sum()} labelled items "
        f"(always the commoner label: {majority:.3f})"
    )
    facts["says true"] = f"{said.mean():.3f} of them"
    return facts


# --- what is shown -------------------------------------------------------------------------------


def _heading(title: str) -> Text:
    return Text(f"\n{title}", style="bold cyan")


def _section(title: str, content: RenderableType) -> RenderableType:
    return Group(_heading(title), Padding(content, (0, 0, 0, 2), expand=False))


def _pairs(rows: Mapping[str, str], *, width: int) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(width=min(width, 30), style="dim")
    table.add_column()
    for name, value in rows.items():
        table.add_row(_plain(name), _plain(value))
    return table


def _example(store: ActivationStore) -> RenderableType | None:
    """The first item's prompt in the store's format; None if this version cannot make it."""
    if not store.items:
        return None
    item = store.items[0]
    try:
        prompt, verdicts = _shown(store, item)
    except (TypeError, ValueError):
        return None
    text = _plain(_shorten(prompt))
    text.append_text(_plain(f" <{verdicts[0]!r} or {verdicts[1]!r}>", "bold"))
    return Panel(text, title=_plain(_name(item)), title_align="left", border_style="dim")


def _shown(store: ActivationStore, item: Item) -> tuple[str, tuple[str, str]]:
    """The first prompt with its verdicts: as the chat template rendered it, if there was one."""
    texts = store.spec.texts
    if chat := texts.get("parts", [texts])[0].get("chat"):
        return chat["first_prompt"], chat["verdicts"]
    format = PromptFormat(**store.spec.prompt_format)
    return zero_shot(item, format), (format.true_word, format.false_word)


def _name(item: Item) -> str:
    return f"{_shorten(item.id, 60)} (label {item.label})"


def _norms_title(store: ActivationStore) -> str:
    rows = min(len(store), NORM_ROWS)
    of = "all" if rows == len(store) else f"the first {rows}"
    return f"Mean norms, of {of} items"


def _norms(store: ActivationStore) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2))
    for column in ("layer", "phi+", "phi-", "phi+ - phi-"):
        table.add_column(column, justify="right")
    rows = np.arange(min(len(store), NORM_ROWS))
    for layer in store.layers:
        pairs = store.pairs(layer, rows)
        pos, neg = np.asarray(pairs.pos), np.asarray(pairs.neg)
        norms = (np.linalg.norm(x, axis=1).mean() for x in (pos, neg, pos - neg))
        table.add_row(str(layer), *(f"{norm:.4g}" for norm in norms))
    return table


def _code(store: ActivationStore) -> str:
    layer = store.layers[len(store.layers) // 2]
    shape = f"[{len(store)}, {store.spec.d_model}]"
    return (
        "from jelicit.activations import ActivationStore\n"
        f"store = ActivationStore.open({str(store.folder)!r})\n"
        f"pos, neg = store.pairs({layer})  # {shape}; also store.items, store.log_probs"
    )
