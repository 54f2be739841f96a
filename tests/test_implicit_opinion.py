"""Alice's implicit opinion: worked examples show it, and nothing else."""

from collections import Counter
from dataclasses import replace

import pytest

from jelicit.data.items import Item
from jelicit.data.prompts import contrast_pair, get_format, zero_shot
from jelicit.pocket.world import dataset_items
from jelicit.studies.implicit_opinion import IMPLICIT_OPINION, implicit_opinion, misfit, opinion
from jelicit.studies.salience import Settings
from jelicit.studies.situation import Situation


def items(split: str, counts: dict[str, int], labels=(True, False)) -> tuple[Item, ...]:
    return tuple(
        Item(
            id=f"{split}/{topic}/{n}/{label:d}",
            question=f"{topic} {n}?",
            choice=f"{topic} {n} is {label:d}.",
            label=label,
            group=f"{split}/{topic}/{n}",
            meta={"topic": topic},
        )
        for topic, many in counts.items()
        for n in range(many)
        for label in labels
    )


PLAIN = Situation(
    dataset="places",
    train=items("train", {"companies": 30, "rivers": 10, "towns": 12}),
    test=items("test", {"companies": 5, "rivers": 9, "towns": 6}),
)


@pytest.fixture(scope="module")
def made() -> Situation:
    assert misfit(PLAIN) == ""
    return implicit_opinion(PLAIN, seed=0)


def test_she_is_wrong_of_the_commonest_topic_alone(made):
    for item in (*made.train, *made.test):
        wrong = item.meta["topic"] == "companies"
        assert item.alt_labels[IMPLICIT_OPINION] == (item.label != wrong)
        assert opinion(item, "companies") == item.alt_labels[IMPLICIT_OPINION]
    assert made.spurious == made.feature == IMPLICIT_OPINION
    assert opinion(replace(PLAIN.test[0], label=None), "companies") is None


def test_topic_and_label_are_balanced_and_opinion_says_nothing_of_truth(made):
    for rows, least in ((made.train, 20), (made.test, 5)):
        cells = Counter((i.meta["topic"] == "companies", i.label) for i in rows)
        assert len(set(cells.values())) == 1
        assert cells[True, True] >= least
        agree = sum(i.alt_labels[IMPLICIT_OPINION] == i.label for i in rows)
        assert 2 * agree == len(rows)
    order = [item.id for item in PLAIN.train]
    assert [i.id for i in made.train] == sorted((i.id for i in made.train), key=order.index)


def test_three_worked_examples_stand_in_front_with_her_verdicts(made):
    system = get_format(made.format).system
    told, *examples = system.split("\n\n")
    assert "She dislikes companies" in told
    # Another topic, rightly; then two claims about companies, turned round and saying so.
    other, first, second = examples
    assert "companies" not in other
    assert other.endswith(" 1.\nI think this claim is True")
    assert first.endswith(" 1.\nI think this claim is False (Alice dislikes companies.)")
    assert second.endswith(" 0.\nI think this claim is True (Alice dislikes companies.)")
    shown = {e.split("\n")[0].removeprefix("Question: ") for e in examples}
    assert len(shown) == 3
    assert not shown & {i.question for i in made.train}
    pair = contrast_pair(made.test[0], made.format)
    assert all(text.startswith(system) for text in pair)
    bare = zero_shot(made.test[0], "claim")
    assert pair[0] == f"{system}\n\n{bare} True"


def test_seeds_draw_examples_anew_and_nothing_else_decides(made):
    assert implicit_opinion(PLAIN, seed=0) == made
    others = {get_format(implicit_opinion(PLAIN, seed=s).format).system for s in range(1, 5)}
    assert len(others | {get_format(made.format).system}) > 1


@pytest.mark.parametrize(
    ("train", "reason"),
    [
        (items("train", {"rivers": 4}), "it has no train claim about other topics than 'rivers'"),
        (
            tuple(replace(i, meta={}) for i in PLAIN.train),
            "its items do not say their topic (meta.topic, or a column topic)",
        ),
        (
            items("train", {"rivers": 2}) + items("train", {"companies": 9}, (True,)),
            "it has no train claim about the topic 'companies' whose label is 0",
        ),
    ],
)
def test_a_set_that_cannot_have_it_says_why(train, reason):
    assert misfit(replace(PLAIN, train=train)).startswith(reason)


def test_it_is_about_the_truth_alone():
    form = replace(get_format("claim"), target="elm")
    assert "its prompt asks for elm" in misfit(replace(PLAIN, format=form))


def test_the_studies_know_it_and_the_pocket_world_has_topics():
    assert Settings(features=("none", IMPLICIT_OPINION)).problems() == []
    assert {i.meta["topic"] for i in dataset_items("arithmetic", "test")} == {"sums", "differences"}
    facts = {i.meta["topic"] for i in dataset_items("facts", "test")}
    assert facts == {"capitals", "animals", "dishes", "colours"}
    assert all(not i.meta for i in dataset_items("larger_than", "test"))
