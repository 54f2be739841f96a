"""The card of a pocket model: measured on held-out rows, per layer, and honest about misses."""

import copy
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from jelicit.data.items import Item, labels
from jelicit.pairs import Pairs
from jelicit.pocket import card
from jelicit.pocket.evaluate import RIVALS
from jelicit.pocket.world import KINDS, dataset_items
from jelicit.pocket.world import lexicon as lex

WIDTH = 12
TRUTH, FEATURE, VERDICT = np.eye(WIDTH)[:3]


def test_every_kind_with_truth_is_measured_plain_and_with_what_fits_it():
    made = {(s.dataset, s.feature): s for s in card.situations(train_rows=16, test_rows=16)}
    added = {"sycophancy", "punctuation", "tense"}
    for kind in ("arithmetic", "larger_than"):
        assert {f for k, f in made if k == kind} == {"none", *added}
    for kind in ("facts", "far_facts"):
        assert {f for k, f in made if k == kind} == {"none", "elm", *added}
    assert {f for k, f in made if k == "comments"} == {"none", "food"}
    for kind in ("commands", "pairs", "poems"):
        assert {f for k, f in made if k == kind} == {"none"}
    assert not any(k == "opinions" for k, _ in made)
    # The user's opinion stands in the question: the format has to show it.
    assert made["facts", "sycophancy"].format == "claim"
    assert made["facts", "elm"].format == "facts/truth"
    for situation in made.values():
        for item in situation.test:
            assert item.split == "test"
            assert situation.spurious is None or situation.spurious in item.alt_labels


def _items(n: int, split: str) -> tuple[Item, ...]:
    return tuple(
        Item(
            id=f"{split}{i}",
            question="q",
            choice="c",
            label=i % 2 == 0,
            group=f"{split}{i}",
            alt_labels={"tense": i % 4 < 2},
        )
        for i in range(n)
    )


@dataclass
class Store:
    made: dict[int, Pairs]

    @property
    def layers(self) -> tuple[int, ...]:
        return tuple(self.made)

    def pairs(self, layer: int) -> Pairs:
        return self.made[layer]


def _store(items, strengths, seed: int):
    """Layers in which truth and feature are as strong as said: {layer: (truth, feature)}."""
    rng = np.random.default_rng(seed)
    truth, feature = (2 * labels(items, name) - 1 for name in ("label", "tense"))
    found = {}
    for layer, (of_truth, of_feature) in strengths.items():
        signal = np.outer(truth, of_truth * TRUTH) + np.outer(feature, of_feature * FEATURE)
        content, noise = (rng.normal(size=(len(items), WIDTH)) for _ in range(2))
        found[layer] = Pairs(
            (content + 5 * VERDICT + signal + 0.3 * noise).astype(np.float32),
            (content - 5 * VERDICT - signal - 0.3 * noise).astype(np.float32),
        )
    return Store(found)


def test_layers_are_measured_on_truth_and_on_the_feature():
    # Layer 1 holds the truth alone; in layer 2 the feature is larger; layer 0 holds nothing.
    strengths = {0: (0.0, 0.0), 1: (2.0, 0.0), 2: (0.8, 3.0)}
    train, test = _items(80, "train"), _items(80, "test")
    situation = card.Situation(
        dataset="arithmetic", feature="tense", spurious="tense", train=train, test=test
    )
    found = card.measure_layers(situation, _store(train, strengths, 1), _store(test, strengths, 2))
    assert abs(found["supervised"][0] - 0.5) < 0.2
    assert min(found["supervised"][1:]) > 0.97
    assert found["ccs"][1] > 0.97
    assert found["pca"][1] > 0.97
    assert found["pca_spurious"][2] > 0.97
    assert found["ccs_spurious"][2] > 0.97
    assert abs(found["pca_spurious"][1] - 0.5) < 0.2
    # Of a variance of 0.64 + 9 + (12 * 0.09) / 2 per sign of the planted numbers.
    assert found["salience"][2] == pytest.approx(9 / 10.18, abs=0.1)
    assert found["salience_truth"][1] == pytest.approx(4 / 4.54, abs=0.1)
    assert card.at_best_layer(found) == found["ccs"][1]
    [line] = card.followed({"arithmetic": {"tense": found}})
    assert "layer 2" in line


def test_the_best_layer_is_chosen_on_train_rows_and_never_the_embeddings():
    found = {"ccs_train": [0.99, 0.6, 0.9], "ccs": [0.1, 1.0, 0.7]}
    assert card.at_best_layer(found) == 0.7


@dataclass
class Answers:
    items: list[Item]
    log_probs: np.ndarray


def test_what_is_seldom_said_has_an_accuracy_of_its_own():
    """A model that knows the ten nearest of forty lands, and says True of all others."""
    items = dataset_items("far_facts", "test")
    known = set(sorted(lex.FREQUENCY, key=lambda land: -lex.FREQUENCY[land])[:10])
    says = np.array([item.group.split("/")[-1] not in known or bool(item.label) for item in items])
    store: Any = Answers(items, np.stack([says, ~says], axis=1).astype(np.float32))
    found = card.by_frequency(store, "far_facts")
    assert list(found) == ["nearest", "middle", "farthest"]
    assert found["nearest"] > 0.8
    # A question may lie across the border of two thirds.
    assert found["farthest"] == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_no_kind_has_a_shortcut(kind):
    found = card.shortcuts(kind)
    # Opinions have few held-out questions; their bound is three standard errors of chance.
    few = 0.5 + 3 * 0.5 / np.sqrt(len(KINDS[kind].keys("test"))) if kind == "opinions" else 0
    assert found["length"] <= max(0.55, few)
    assert found["word"] <= max(0.60, few)


def test_a_word_that_gives_the_label_away_is_found(monkeypatch):
    monkeypatch.setattr(lex, "RUDE", [f"{phrase} clown" for phrase in lex.RUDE])
    found = card.shortcuts("comments")
    assert found["which"] == "clown"
    assert found["word"] > 0.95


CARD = {
    "zero_shot_accuracy": dict.fromkeys(
        ("arithmetic", "larger_than", "facts", "comments", "commands", "pairs", "poems"), 0.97
    ),
    "few_shot_accuracy": dict.fromkeys(
        ("truth", "sycophancy", "punctuation", "tense", "elm"), 0.93
    ),
    "few_shot_accuracy_24": dict.fromkeys(
        ("truth", "sycophancy", "punctuation", "tense", "elm"), 0.96
    ),
    "label_reading": {"tense": 0.52, "opposite": 0.5},
    "label_reading_16": dict.fromkeys(RIVALS, 0.91),
    "label_reading_24": {"tense": 0.66, "opposite": 0.5},
    "supervised_auroc": {"arithmetic": {"none": [0.5, 0.99]}},
    "salience": {"arithmetic": {"tense": [0.1, 0.2]}},
    "ccs_auroc_plain": dict.fromkeys(("arithmetic", "larger_than", "facts"), 0.95),
    "real_larger_than_accuracy": 0.98,
    "shortcuts": {"arithmetic": {"length": 0.51, "word": 0.52, "which": "seven"}},
    "layers": {
        "arithmetic": {
            "none": {},
            "tense": {
                "ccs_spurious": [0.5, 0.91],
                "pca_spurious": [0.5, 0.92],
                "ccs": [0.5, 0.61],
                "pca": [0.5, 0.62],
                "supervised": [0.5, 0.97],
                "salience": [0.1, 0.2],
                "salience_truth": [0.01, 0.02],
            },
        }
    },
    "size": "middle",
    "seed": 3,
    "marks": True,
    "tokens": 12_000_000,
    "minutes": 31.0,
    "machine": "2 CPU cores",
    "parameters": 1_410_000,
    "megabytes": 5.6,
}


def test_a_card_that_reaches_its_aims_misses_none():
    assert card.missed(CARD) == []
    assert "None." in card.page(CARD)


@pytest.mark.parametrize(
    ("group", "name", "value", "line"),
    [
        ("zero_shot_accuracy", "facts", 0.94, "zero shot accuracy, facts: 0.94 (aim 0.95)"),
        ("few_shot_accuracy", "tense", 0.5, "few shot accuracy, tense: 0.50 (aim 0.90)"),
        ("ccs_auroc_plain", "facts", float("nan"), "ccs auroc plain, facts: nan (aim 0.90)"),
        ("label_reading_16", "opposite", 0.6, "label reading 16, opposite: 0.60 (aim 0.85)"),
        ("real_larger_than_accuracy", None, 0.2, "real larger_than accuracy: 0.20 (aim 0.90)"),
    ],
)
def test_a_missed_aim_is_said(group, name, value, line):
    found = copy.deepcopy(CARD)
    if name is None:
        found[group] = value
    else:
        found[group][name] = value
    assert card.missed(found) == [line]
    assert f"- {line}" in card.page(found)


def test_seeds_are_judged_by_their_median():
    """Of three seeds one is bad at facts and two at comments; other recipes do not count."""
    seeds = [copy.deepcopy(CARD) for _ in range(3)]
    seeds[1]["zero_shot_accuracy"].update(facts=0.5, comments=0.6)
    seeds[2]["zero_shot_accuracy"].update(comments=0.8)
    line = "zero shot accuracy, comments: 0.80 (aim 0.90)"
    assert card.missed(*seeds) == [line]
    other = {**copy.deepcopy(CARD), "size": "small"}
    other["zero_shot_accuracy"] = dict.fromkeys(CARD["zero_shot_accuracy"], 0.1)
    earlier = copy.deepcopy(CARD)
    del earlier["zero_shot_accuracy"]["commands"]
    assert card.seeds_of(seeds[0], [seeds[1], other, earlier, seeds[2]]) == seeds
    page = card.page(seeds[0], [seeds[1], other, seeds[2], other])
    assert page.endswith(f"This model:\n\nNone.\n\nThe median of its 3 seeds:\n\n- {line}\n")


def test_the_page_shows_what_was_measured_and_every_other_run():
    other = {**copy.deepcopy(CARD), "seed": 4, "marks": False}
    page = card.page(CARD, [other])
    assert "| arithmetic | 0.97 | 0.99 | 0.95 |" in page
    assert "| arithmetic, tense | 1 | 0.20 / 0.02 | 0.91 / 0.61 | 0.92 / 0.62 | 0.97 |" in page
    assert "| tense | 0.52 | 0.91 | 0.66 |" in page
    assert "1.41 M parameters" in page
    assert "further blocks" not in page
    assert "seed 4, no marks" in page
    assert "planted" in page


def test_a_run_of_an_earlier_world_is_said_to_lack_a_kind():
    card_now = copy.deepcopy(CARD)
    card_now["zero_shot_accuracy"]["far_facts"] = 0.72
    page = card.page(card_now, [CARD])
    assert " 0.97 0.72 |" in page
    assert " 0.97 - |" in page
    assert "an earlier world" in page
    assert "an earlier world" not in card.page(CARD, [CARD])


def test_a_model_that_reads_says_what_its_two_parts_were():
    part = {"seed": 5, "tokens": 6_500_000, "minutes": 14.2, "machine": "2 CPU cores"}
    reader = {**copy.deepcopy(CARD), "reading": {**part, "parameters": 2_260_000}}
    page = card.page(reader, [CARD])
    assert "2.26 M parameters, 5.6 MB. Trained in two parts" in page
    assert "1.41 M parameters, 12.0 M tokens in 31 minutes on 2 CPU cores; seed 3" in page
    assert "6.5 M tokens in 14 minutes on 2 CPU cores; seed 5" in page
    assert "| middle, seed 3, reading (seed 5) | 2.26 M | 18 M |" in page
    assert "| middle, seed 3 | 1.41 M | 12 M |" in page
    # A model that does not read is no further seed of one that does.
    assert "The median of" not in page


def test_without_pretraining_record_there_is_no_card(tmp_path):
    pytest.importorskip("torch", reason="cards are measured by the extract extra")
    from extract.card import model_folder, write

    with pytest.raises(ValueError, match=r"pretraining\.json"):
        model_folder(str(tmp_path))
    write(tmp_path, CARD, [CARD])
    found = json.loads((tmp_path / "card.json").read_text())
    assert found["zero_shot_accuracy"] == CARD["zero_shot_accuracy"]
    assert [run["seed"] for run in found["seeds"]] == [3, 3]
    # A card read back and written again holds no cards within cards.
    write(tmp_path, found, [found])
    assert json.loads((tmp_path / "card.json").read_text()) == found
    assert (tmp_path / "README.md").read_text() == card.page(CARD, [CARD])
