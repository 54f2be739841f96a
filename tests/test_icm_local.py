"""ICM with the local scorer: the same U as from prompts read whole, and lengths that are true."""

from itertools import product

import numpy as np
import pytest
from coherent import FORMAT, sums

from jelicit.data.prompts import few_shot
from jelicit.icm import Objective, Prompter, examples_that_fit
from jelicit.icm.objective import Judgement

tiny_models = pytest.importorskip("tiny_models", reason="needs the extract extra")

WORDS = (" True", " False")


def local_scorer(**options):
    from extract.local_scorer import LocalScorer

    return LocalScorer(tiny_models.tiny(), **options)


def test_utilities_do_not_depend_on_what_is_read_once():
    items = sums(6)
    labels = [item.label for item in items]
    values, tokens = [], []
    for shares in (True, False):
        scorer = local_scorer(match="tokens")
        scorer.shares &= shares
        one = Judgement(
            Prompter(scorer, items, FORMAT), Objective(), labels, others=range(2, 6), group=[0, 1]
        )
        one.judge(product([True, False], repeat=2))
        options = product([True, False], repeat=2)
        values.append([one.utility(option).value for option in options])
        tokens.append(scorer.tokens_read)
    np.testing.assert_allclose(values[0], values[1], atol=1e-3)
    assert len(set(np.round(values[0], 3))) == 4
    assert tokens[0] < tokens[1]


@pytest.mark.parametrize("match", ["words", "tokens"])
def test_lengths_are_the_tokens_that_are_read(match):
    scorer = local_scorer(match=match)
    scorer.shares = False
    items = sums(5)
    for shown in range(4):
        prompt = few_shot(items[4], [(item, True) for item in items[:shown]], FORMAT)
        (length,) = scorer.lengths([prompt], WORDS)
        before = scorer.tokens_read
        scorer.score([prompt], WORDS[:1])
        assert scorer.tokens_read - before == length


def test_what_fits_is_what_the_model_takes():
    scorer = local_scorer(match="tokens")
    assert scorer.context is not None
    items = sums(200)
    fit = examples_that_fit(scorer, items, FORMAT, targets=items[:1])
    assert 0 < fit < len(items)
    longest = [(item, False) for item in items[: fit + 1]]
    scorer.score([few_shot(items[0], longest[:-1], FORMAT)], WORDS)
    with pytest.raises(ValueError, match="tokens"):
        scorer.score([few_shot(items[0], longest, FORMAT)], WORDS)
