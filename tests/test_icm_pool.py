"""Which train items a seed labels: as many as fit, or all of them in batches."""

import re
from dataclasses import replace

import numpy as np
import pytest
from coherent import FORMAT, Coherent, sums
from experiment_scripts import joined, session_of
from rich.console import Console

from jelicit.data.prompts import few_shot
from jelicit.studies.icm import STUDY, Settings
from jelicit.studies.icm_pool import Pool, to_label
from jelicit.studies.icm_tasks import Task
from jelicit.studies.situation import Situation

WORDS_SHOWN, WORDS_JUDGED = 9, 8
"""Words of a sum as an example, and as the item that is judged."""


class Words(Coherent):
    """Counts words, and reads no more than so many."""

    def __init__(self, context):
        super().__init__()
        self.context = context

    def lengths(self, prompts, verdicts):
        return np.array([len("".join(prompt).split()) for prompt in prompts])


def room_for(examples):
    return WORDS_SHOWN * examples + WORDS_JUDGED


@pytest.fixture(scope="module")
def pools(tmp_path_factory):
    """Draws a pool: (scorer, train items, n, options) -> (the pool, what was said)."""
    folder, console = tmp_path_factory.mktemp("pools"), Console()

    def draw(scorer, train, n, **options) -> tuple[Pool, str]:
        test = [replace(item, id=f"t{n}", group=f"t{n}") for n, item in enumerate(train[:6])]
        situation = Situation(dataset="sums", format=FORMAT, train=tuple(train), test=tuple(test))
        session = session_of(STUDY, Settings(n=n, **options), folder, console=console)
        with console.capture() as printed:
            pool = to_label(Task(situation, "answer"), scorer, session, seed=0)
        return pool, joined(printed.get())

    return draw


def fits(scorer, items, most):
    """Whether each item fits after all the others, by whole prompts."""
    prompts = [
        few_shot(one, [(other, False) for other in items if other is not one], FORMAT)
        for one in items
    ]
    return scorer.lengths(prompts, ()).max() <= most


def test_items_that_do_not_fit_are_left_out_and_that_is_said(pools):
    scorer = Words(room_for(100))
    pool, said = pools(scorer, sums(40), 20, limit=room_for(11))
    # Before a test item 11 of them fit, and questions have two.
    assert len(pool.items) == pool.size == pool.shown == 10
    assert "sums,seed0:10of--n20itemsarelabelled,nomorefitapromptof107tokens" in said
    assert "--batch20labelsall" in said
    assert "raise--limit(themodelreads908)" in said
    # Where the model itself reads no more, a larger limit is no advice.
    assert "raise--limit" not in pools(Words(room_for(11)), sums(40), 20)[1]
    assert pools(scorer, sums(40), 20)[1] == ""
    assert pools(Coherent(), sums(40), 20)[1] == ""


@pytest.mark.parametrize(("per_question", "n", "most"), [(2, 30, 30), (3, 30, 12), (1, 23, 7)])
def test_batches_hold_all_items_and_each_fits(pools, per_question, n, most):
    limit = room_for(9)
    scorer = Words(room_for(100))
    longer = [
        replace(item, choice=item.choice.replace("+", "and " * (row % 3) + "+"))
        for row, item in enumerate(sums(60, per_question=per_question))
    ]
    pool, said = pools(scorer, longer, n, batch=most, limit=limit)
    assert len(pool.items) == n
    batches = [[pool.items[number] for number in batch] for batch in pool.batches]
    assert sorted(item.id for batch in batches for item in batch) == sorted(
        item.id for item in pool.items
    )
    for batch in batches:
        assert 2 <= len(batch) <= most
        assert fits(scorer, batch, limit)
    sizes = [len(batch) for batch in batches]
    assert max(sizes) - min(sizes) <= per_question * 2
    assert 2 <= pool.shown < n
    assert f"{n}itemsin{len(batches)}searchesofatmost{pool.size}" in said
    assert f"showthefirst{pool.shown}" in said


def test_what_fits_one_search_is_one_batch_and_the_same_items(pools):
    scorer = Words(room_for(100))
    alone, _ = pools(scorer, sums(40), 20)
    batched, _ = pools(scorer, sums(40), 20, batch=256)
    assert batched == alone
    assert alone.batches == [tuple(range(20))]


@pytest.mark.parametrize("batch", [None, 8])
@pytest.mark.parametrize("per_question", [1, 4])
def test_items_that_are_too_long_are_refused_with_the_limit_that_they_need(
    pools, batch, per_question
):
    train, scorer = sums(40, per_question=per_question), Words(1000)
    with pytest.raises(ValueError, match=r"raise --limit to \d+ or more") as error:
        pools(scorer, train, 20, batch=batch, limit=10)
    assert "sums: a prompt of 10 tokens holds too few of its items" in str(error.value)
    [least] = map(int, re.findall(r"--limit to (\d+)", str(error.value)))
    pool, _ = pools(scorer, train, 20, batch=batch, limit=least)
    assert all(fits(scorer, [pool.items[n] for n in b], least) for b in pool.batches)
    with pytest.raises(ValueError, match="holds too few"):
        pools(scorer, train, 20, batch=batch, limit=least - 1)
    [everything] = map(int, re.findall(r"all 20 need (\d+)", str(error.value)))
    pool, said = pools(scorer, train, 20, limit=everything)
    assert (len(pool.items), said) == (20, "")
    with pytest.raises(ValueError, match="the model reads 10; choose another set or model"):
        pools(Words(10), train, 20, batch=batch)


def test_questions_larger_than_what_is_asked_for_are_refused(pools):
    with pytest.raises(ValueError, match=r"--n 3 takes 0 of its 40 .* give a larger --n"):
        pools(Coherent(), sums(40, per_question=4), 3)
    with pytest.raises(ValueError, match=r"--batch 3 is less than the 4 items .* at least 4"):
        pools(Coherent(), sums(40, per_question=4), 20, batch=3)
