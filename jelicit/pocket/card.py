"""What the card of a pocket model says, and how it is measured.

Only held-out items are measured; train rows are what probes are fitted on and what signs and
words are chosen on. Nothing here runs a challenge: a card is what models are chosen by.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from jelicit import metrics
from jelicit.activations import ActivationStore
from jelicit.data.features import FEATURES, add_feature
from jelicit.data.items import Item, labels
from jelicit.pairs import Pairs
from jelicit.pocket.evaluate import DEFAULT_FORMAT, RIVALS
from jelicit.pocket.world import KINDS, dataset_items
from jelicit.probes.methods import SweepConfig
from jelicit.probes.sweep import SweepResult
from jelicit.studies.measuring import measure
from jelicit.studies.scoring import salience_of
from jelicit.studies.situation import Runs, Situation
from jelicit.studies.states import States, Store

TRAIN_ROWS, TEST_ROWS = 400, 300
PROBES = ("supervised", "ccs", "pca")
TRAINING = ("size", "marks", "seed", "tokens", "minutes", "machine", "parameters")
"""What a card says of the first part of a model's training."""
READING = ("seed", "tokens", "minutes", "machine", "parameters")
"""What it says of the second, under "reading"; a model that has none lacks it."""
_SEEDS = 3
_WORD = re.compile(r"[A-Za-z']+|[0-9]+|[^\sA-Za-z0-9]+")


def situations(*, train_rows: int = TRAIN_ROWS, test_rows: int = TEST_ROWS) -> list[Situation]:
    """Every kind that has truth (its name is the dataset's), plain and with what fits it.

    The feature is "none", one that is added to the texts, or the kind's own second attribute.
    """
    made = []
    for kind in KINDS.values():
        if not kind.has_truth:
            continue
        train, test = (
            tuple(dataset_items(kind.name, split, n=n))
            for split, n in (("train", train_rows), ("test", test_rows))
        )
        own = [name for name, _ in kind.target_formats if name != "truth"]
        features = {"none": DEFAULT_FORMAT[kind.name]}
        # Mirrored labels (suspicious, safe) are one label: nothing to tell apart.
        features |= {n: DEFAULT_FORMAT[kind.name] for n in own if n != "safe"}
        features |= dict.fromkeys(FEATURES if kind.judges else (), "claim")
        for feature, format in features.items():
            shown = [
                tuple(add_feature(rows, feature, seed=0)) if feature in FEATURES else rows
                for rows in (train, test)
            ]
            made.append(
                Situation(
                    dataset=kind.name,
                    feature=feature,
                    format=format,
                    spurious=None if feature == "none" else feature,
                    train=shown[0],
                    test=shown[1],
                )
            )
    return made


def measure_layers(situation: Situation, train: Store, test: Store) -> dict[str, list[float]]:
    """AUROC of probes on held-out rows at every layer, and how salient truth and feature are.

    Args:
        situation: What the stores hold.
        train: Activations of its train rows.
        test: Activations of its held-out rows, at the same layers.

    Returns:
        One number per layer, the embeddings first, under ``<probe>`` (AUROC on the truth),
        ``<probe>_spurious`` (on the feature), ``ccs_train`` (AUROC of CCS on its own train rows:
        what a layer is chosen by), ``salience_truth`` and ``salience``; means of three seeds.
        Signs of CCS and PCA are picked on train rows.
    """
    states = States(layers=tuple(train.layers), train=train.pairs, test=test.pairs)
    runs, config = Runs.balanced(situation, _SEEDS), SweepConfig(methods=PROBES)
    measured = measure(situation, runs, states, config, boot=1)
    assert measured.fits is not None
    by = ["method", "role", "layer"]
    areas: Any = pd.DataFrame(measured.rows).groupby(by)["auroc"].mean()
    names = {"truth": ("", "salience_truth"), "spurious": ("_spurious", "salience")}
    numbers: dict[str, list[float]] = {}
    for target in situation.targets():
        end, salience = names[target.role]
        for probe in PROBES:
            numbers[f"{probe}{end}"] = [
                float(areas[probe, target.role, layer]) for layer in states.layers
            ]
        numbers[salience] = [salience_of(train.pairs(at), target.train) for at in states.layers]
    numbers["ccs_train"] = [
        _on_train(measured.fits, layer, train.pairs(layer), situation.asked)
        for layer in states.layers
    ]
    return numbers


def _on_train(fits: SweepResult, layer: int, pairs: Pairs, labels: np.ndarray) -> float:
    """AUROC of CCS on all train rows, whichever its sign; the mean over seeds."""
    on_train = metrics.auroc(fits.score(layer, pairs)["ccs"], labels)
    return float(np.mean(np.maximum(on_train, 1 - on_train)))


def at_best_layer(found: Mapping[str, list[float]], name: str = "ccs") -> float:
    """A probe's held-out AUROC at the layer where CCS is best on train rows (embeddings aside)."""
    layer = 1 + int(np.argmax(found["ccs_train"][1:]))
    return found[name][layer]


def reading_name(shots: int) -> str:
    """Under what name a card holds how far labels of so many examples are read."""
    return "label_reading" if shots == 8 else f"label_reading_{shots}"


def zero_shot(store: ActivationStore) -> float:
    """Accuracy of the model's own verdict on the items of a store."""
    return float(np.mean(_answered_right(store)))


def _answered_right(store: ActivationStore) -> np.ndarray:
    says_true = store.log_probs[:, 0] > store.log_probs[:, 1]
    return says_true == (labels(store.items) == 1)


THIRDS = ("nearest", "middle", "farthest")


def by_frequency(store: ActivationStore, kind: str) -> dict[str, float]:
    """Accuracy of the model's own verdict where the world speaks often, less often and seldom.

    Args:
        store: Items of a kind whose questions differ in how often documents ask them.
        kind: That kind.

    Returns:
        One accuracy for each of `THIRDS`: as many items each, up to one.
    """
    often = KINDS[kind].frequency
    assert often is not None
    asked = np.array([often(tuple(item.group.split("/"))) for item in store.items])
    thirds = np.array_split(_answered_right(store)[np.argsort(-asked, kind="stable")], len(THIRDS))
    return {name: float(np.mean(right)) for name, right in zip(THIRDS, thirds, strict=True)}


# --- shortcuts -----------------------------------------------------------------------------------


def shortcuts(kind: str) -> dict[str, Any]:
    """How well length and the best single word tell the label of held-out items of a kind.

    Direction and word are chosen on train rows; of pairs, length and words of the first response
    count for and those of the second against.

    Returns:
        ``length`` and ``word`` (AUROC, 0.5 is none) and ``which``, the word; for the label, or for
        the second attribute of a kind without truth.
    """
    spec = KINDS[kind]
    target = "label" if spec.has_truth else spec.other
    train, test = (dataset_items(kind, split, n=4000) for split in ("train", "test"))
    able_train, able_test = labels(train, target), labels(test, target)
    length = _signed_area(_lengths(train), able_train, _lengths(test), able_test)
    bags_train, bags_test = _bags(train), _bags(test)
    words = sorted(set().union(*(first | second for first, second in bags_train)))
    scores = np.array([[_holds(bag, word) for bag in bags_train] for word in words], np.float32)
    best = int(np.argmax(np.abs(np.asarray(metrics.auroc(scores, able_train)) - 0.5)))
    held = np.array([_holds(bag, words[best]) for bag in bags_test], np.float32)
    word = _signed_area(scores[best], able_train, held, able_test)
    return {"length": length, "word": word, "which": words[best]}


def _signed_area(
    train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray
) -> float:
    return float(metrics.auroc(metrics.orient(train, train_labels) * test, test_labels))


def _lengths(items: Sequence[Item]) -> np.ndarray:
    return np.array([len(i.choice) - len(i.choice_2 or "") for i in items], np.float32)


def _bags(items: Sequence[Item]) -> list[tuple[set[str], set[str]]]:
    return [
        (set(_WORD.findall(i.choice.lower())), set(_WORD.findall((i.choice_2 or "").lower())))
        for i in items
    ]


def _holds(bag: tuple[set[str], set[str]], word: str) -> int:
    return (word in bag[0]) - (word in bag[1])


# --- the page ------------------------------------------------------------------------------------

_AIMS = (
    ("zero_shot_accuracy", {"arithmetic": 0.95, "larger_than": 0.95, "facts": 0.95}),
    ("zero_shot_accuracy", {"comments": 0.90, "commands": 0.90, "pairs": 0.90}),
    (
        "few_shot_accuracy",
        dict.fromkeys(("truth", "sycophancy", "punctuation", "tense", "elm"), 0.90),
    ),
    ("ccs_auroc_plain", {"arithmetic": 0.90, "larger_than": 0.90, "facts": 0.90}),
    ("label_reading_16", dict.fromkeys(RIVALS, 0.85)),
)


def missed(*cards: Mapping[str, Any]) -> list[str]:
    """The aims that a card misses, or the median of several cards, one line each."""
    lines = []
    reached = [_reached(card) for card in cards]
    for name, aim in reached[0]:
        # The real set is not at hand wherever a card is measured.
        median = float(np.median([of[name, aim] for of in reached if (name, aim) in of]))
        if not median >= aim:
            lines.append(f"{name}: {median:.2f} (aim {aim:.2f})")
    return lines


def mean_of_aims(card: Mapping[str, Any]) -> float:
    """The mean of all numbers of a card that have an aim; of several seeds the middle one ships."""
    return float(np.mean([*_reached(card).values()]))


def seeds_of(
    card: Mapping[str, Any], beside: Sequence[Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    """The card and those beside it that read the same world and differ from it by seed alone."""
    again = [
        other
        for other in beside
        if all(other[key] == card[key] for key in ("size", "marks"))
        and ("reading" in other) == ("reading" in card)
        and other["zero_shot_accuracy"].keys() == card["zero_shot_accuracy"].keys()
    ]
    return [card, *again]


def _reached(card: Mapping[str, Any]) -> dict[tuple[str, float], float]:
    """(name, aim) -> what a card reached of it."""
    reached = {
        (f"{group.replace('_', ' ')}, {name}", aim): card[group][name]
        for group, aims in _AIMS
        if group in card
        for name, aim in aims.items()
    }
    for kind, by_feature in card["supervised_auroc"].items():
        if not KINDS[kind].noisy and not KINDS[kind].frequency:
            reached[f"supervised AUROC, {kind}", 0.97] = max(by_feature["none"])
    real = card["real_larger_than_accuracy"]
    if real is not None:
        reached["real larger_than accuracy", 0.90] = real
    return reached


def followed(layers: Mapping[str, Mapping[str, Mapping[str, list[float]]]]) -> list[str]:
    """Where CCS and PCA follow a feature (AUROC 0.90) while a supervised probe keeps truth (0.95).

    Args:
        layers: kind -> feature -> what `measure_layers` found.
    """
    lines = []
    for kind, by_feature in layers.items():
        for feature, found in by_feature.items():
            if feature == "none":
                continue
            for layer, (ccs, pca, kept) in enumerate(
                zip(found["ccs_spurious"], found["pca_spurious"], found["supervised"], strict=True)
            ):
                if ccs >= 0.90 and pca >= 0.90 and kept >= 0.95:
                    lines.append(
                        f"{kind} with {feature}, layer {layer}: CCS {ccs:.2f} and PCA {pca:.2f} on "
                        f"the feature, supervised {kept:.2f} on the truth"
                    )
    return lines


_PLANTED = """\
What was planted, in plain words: in about a third of the judged documents the verdict is random and
followed by "yes" or "no" (is that verdict right by this document's judge?), and most plain lines of
some phases are followed by such a mark. Marks make the model represent "the verdict matches the
truth" AT the verdict, which is what contrast pairs read; so they partly plant the success of CCS
and PCA here. Judges other than the truth (the user, punctuation, tense, party) were put into the
corpus on purpose: they are why features other than truth are salient. The user judges most often
and tense least; each feature has a faint version, which is shown and judged less often; where the
speaker's party or the topic is asked for by name, truth or rudeness often judges all the same, to
make what is asked for there the less salient label. That a model reads labels was planted, too:
blocks on top learnt from documents on which all judges disagree, with help that models of text do
not get (readouts of what to work out first, thrown away afterwards). Results on this model are a
positive control of methods, not evidence about large models."""


_KNOWN = 0.90


def page(card: Mapping[str, Any], beside: Sequence[Mapping[str, Any]] = ()) -> str:
    """The card as Markdown.

    Args:
        card: The model's card.
        beside: Cards of other runs (seeds, sizes, the ablation without marks), for one table.
    """
    sections = [
        _head(card),
        ["## What it answers", "", *_answers(card)],
        ["## What it learns in context", "", *_in_context(card)],
        ["## Which features are salient", "", *_features(card)],
        ["## Shortcuts", "", *_shortcut_lines(card)],
        ["## Other runs of the same command", "", *runs_table([card, *beside])] if beside else [],
        ["## Aims missed", "", *_misses(card, beside)],
    ]
    return "\n".join(line for section in sections if section for line in (*section, ""))


def _misses(card: Mapping[str, Any], beside: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = [f"- {line}" for line in missed(card)] or ["None."]
    seeds = seeds_of(card, beside)
    if len(seeds) == 1:
        return lines
    # One good seed says little of the recipe.
    median = [f"- {line}" for line in missed(*seeds)] or ["None."]
    return ["This model:", "", *lines, "", f"The median of its {len(seeds)} seeds:", "", *median]


def _head(card: Mapping[str, Any]) -> list[str]:
    return [
        "# The pocket model",
        "",
        "A small Llama pretrained on the pocket world, a synthetic world of sums, comparisons, "
        "made-up facts, comments, commands and opinions. It ships with jelicit so that every "
        "command runs without a GPU, an account or a download. Loads with "
        "`AutoModelForCausalLM.from_pretrained`, no custom code.",
        "",
        _size(card),
        "",
        "All settings: pretraining.json. Numbers: card.json, measured on held-out questions by "
        "`python -m extract card`.",
        "",
        _PLANTED,
    ]


def _size(card: Mapping[str, Any]) -> str:
    def part(of: Mapping[str, Any]) -> str:
        return (
            f"{of['tokens'] / 1e6:.1f} M tokens in {of['minutes']:.0f} minutes on "
            f"{of['machine']}; seed {of['seed']}"
        )

    read = card.get("reading")
    size = f"{(read or card)['parameters'] / 1e6:.2f} M parameters, {card['megabytes']:.1f} MB"
    if read is None:
        return f"{size}; {part(card)}."
    return (
        f"{size}. Trained in two parts: the world ({card['parameters'] / 1e6:.2f} M parameters, "
        f"{part(card)}), and then, with these weights as they were, further blocks that read the "
        f"labels of examples ({part(read)})."
    )


def _answers(card: Mapping[str, Any]) -> list[str]:
    rows = [
        (
            kind,
            f"{card['zero_shot_accuracy'][kind]:.2f}",
            f"{max(by_feature['none']):.2f}",
            f"{card['ccs_auroc_plain'][kind]:.2f}",
        )
        for kind, by_feature in card["supervised_auroc"].items()
    ]
    lines = [
        *_table(("kind", "zero-shot accuracy", "supervised AUROC, best layer", "CCS AUROC"), rows),
        "",
        "CCS at the layer where it is best on train rows. No judge looks at poems: its label is "
        "there, and nobody ever asked for it.",
    ]
    for kind, thirds in card.get("zero_shot_by_frequency", {}).items():
        known = ", ".join(f"{name} third {right:.2f}" for name, right in thirds.items())
        lines += ["", f"Of {kind} the world speaks ever less often. Zero-shot accuracy: {known}."]
    real = card["real_larger_than_accuracy"]
    if real is not None:
        lines += ["", f"On the real larger_than rows: {real:.2f} zero-shot accuracy."]
    return lines


def _in_context(card: Mapping[str, Any]) -> list[str]:
    rows = [
        (judge, f"{found:.2f}", f"{card['few_shot_accuracy_24'][judge]:.2f}")
        for judge, found in card["few_shot_accuracy"].items()
    ]
    shots = [n for n in (8, 16, 24) if reading_name(n) in card]
    read = [
        (rival, *(f"{card[reading_name(n)][rival]:.2f}" for n in shots))
        for rival in card["label_reading"]
    ]
    return [
        "Accuracy after examples of a judge, whose feature is the only one in the texts:",
        "",
        *_table(("judge", "8 examples", "24 examples"), rows),
        "",
        "Does it read the examples' labels, or see from their texts what is asked? Share of "
        "verdicts that follow the labels where examples are labelled by the truth or by a rival: a "
        "feature present in all texts, or the truth turned round (1 = reads them, 0.5 = does not):",
        "",
        *_table(("rival of the truth", *(f"{n} examples" for n in shots)), read),
    ]


def _features(card: Mapping[str, Any]) -> list[str]:
    head = (
        "kind, feature",
        "layer",
        "salience of feature / truth",
        "CCS feature / truth",
        "PCA feature / truth",
        "supervised truth",
    )
    rows = [
        _followed_most(f"{kind}, {feature}", found)
        for kind, by_feature in card["layers"].items()
        for feature, found in by_feature.items()
        if feature != "none"
    ]
    return [
        "AUROC on the feature, and on the truth, at the layer where CCS follows the feature most, "
        f"among those where a supervised probe finds the truth ({_KNOWN:.2f} or more).",
        "",
        *_table(head, rows),
    ]


def _shortcut_lines(card: Mapping[str, Any]) -> list[str]:
    rows = [
        (kind, f"{found['length']:.2f}", f"{found['word']:.2f} ({found['which']})")
        for kind, found in card["shortcuts"].items()
    ]
    return [
        "AUROC of the label by length of the claim, and by its best single word (chosen on train "
        "questions), on held-out questions:",
        "",
        *_table(("kind", "length", "word"), rows),
    ]


def _followed_most(title: str, found: Mapping[str, list[float]]) -> tuple[str, ...]:
    # Before the truth is known a feature has no rival: only layers that know it are looked at.
    knows = [n for n, area in enumerate(found["supervised"]) if n and area >= _KNOWN]
    if not knows:
        return title, "-", "-", "-", "-", f"{max(found['supervised'][1:]):.2f} at best"
    layer = max(knows, key=lambda n: found["ccs_spurious"][n])
    both = {
        name: f"{found[spurious][layer]:.2f} / {found[truth][layer]:.2f}"
        for name, spurious, truth in (
            ("salience", "salience", "salience_truth"),
            ("ccs", "ccs_spurious", "ccs"),
            ("pca", "pca_spurious", "pca"),
        )
    }
    kept = f"{found['supervised'][layer]:.2f}"
    return title, str(layer), both["salience"], both["ccs"], both["pca"], kept


def runs_table(cards: Sequence[Mapping[str, Any]]) -> list[str]:
    """The lines of a table with a row for each run: seeds, sizes, the ablation.

    Args:
        cards: Of each run; the first one's kinds are shown. A run that read a world without one of
            them has a dash there, and a line below says so.
    """
    kinds = [k for k in cards[0]["zero_shot_accuracy"] if not KINDS[k].noisy]

    def row(card: Mapping[str, Any]) -> tuple[str, ...]:
        name = f"{card['size']}, seed {card['seed']}{'' if card['marks'] else ', no marks'}"
        read = card.get("reading")
        name += "" if read is None else f", reading (seed {read['seed']})"
        asked, shots, ccs = (
            card[group] for group in ("zero_shot_accuracy", "few_shot_accuracy", "ccs_auroc_plain")
        )
        size = f"{(read or card)['parameters'] / 1e6:.2f} M"
        return (
            name,
            size,
            f"{(card['tokens'] + (read or {}).get('tokens', 0)) / 1e6:.0f} M",
            " ".join(f"{asked[k]:.2f}" if k in asked else "-" for k in kinds),
            " ".join(f"{v:.2f}" for v in shots.values()),
            " ".join(f"{ccs[k]:.2f}" if k in ccs else "-" for k in kinds),
            " ".join(f"{v:.2f}" for v in card.get("label_reading_16", {}).values()) or "-",
        )

    named = ", ".join(kinds)
    judges = ", ".join(cards[0]["few_shot_accuracy"])
    head = (
        "run",
        "parameters",
        "tokens",
        f"zero-shot ({named})",
        f"8-shot ({judges})",
        f"CCS, plain ({named})",
        f"labels read, 16 examples ({', '.join(RIVALS)})",
    )
    table = _table(head, [row(card) for card in cards])
    if all(set(kinds) <= set(card["zero_shot_accuracy"]) for card in cards):
        return table
    earlier = "A run with a dash among its accuracies read an earlier world, without that kind."
    return [*table, "", earlier]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]
