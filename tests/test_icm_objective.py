"""U against its definition, computed prompt by prompt; and what one traversal costs."""

from itertools import product

import numpy as np
import pytest
from coherent import FORMAT, Coherent, sums
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jelicit.data.prompts import few_shot
from jelicit.icm.fix import TOGETHER, fix
from jelicit.icm.objective import Judgement, Objective, predict_all
from jelicit.icm.orders import held_out, leave_one_out
from jelicit.icm.prompter import Prompter, Reading
from jelicit.prompting.consistency import Rule, inconsistent_pairs


def judgement(items, labels, *, others, group, scorer=None, **objective):
    prompter = Prompter(scorer or Coherent(by_order=0.5), items, FORMAT)
    return Judgement(prompter, Objective(**objective), labels, others=others, group=group)


def expected_utility(items, labels, asked, *, alpha, predictability, rule):
    """U by its formula: one call of the scorer for every labelled item."""
    scorer, terms = Coherent(by_order=0.5), []
    for context, target in asked:
        prompt = few_shot(items[target], [(items[n], labels[n]) for n in context], FORMAT)
        true, false = scorer.score([prompt], (" True", " False"))[0]
        if predictability == "mean":
            terms.append(true - false if labels[target] else false - true)
        else:
            terms.append(true if labels[target] else false)
    if predictability == "mean":
        weighted = alpha * np.mean(terms)
    else:
        weighted = alpha / len(items) * sum(terms)
    return weighted - len(inconsistent_pairs(items, labels, rule))


@settings(max_examples=60, deadline=None)
@given(
    data=st.data(),
    predictability=st.sampled_from(["mean", "sum"]),
    rule=st.sampled_from(["answer", "none"]),
    seed=st.integers(0, 3),
)
def test_utilities_are_the_formula_in_one_order(data, predictability, rule, seed):
    items = sums(9, per_question=3)
    labels = data.draw(st.lists(st.sampled_from([True, False, None]), min_size=9, max_size=9))
    group = np.random.default_rng(seed).permutation(3).tolist()
    others = np.random.default_rng([seed, 1]).permutation(np.arange(3, 9)).tolist()
    others = [number for number in others if labels[number] is not None]
    settings_ = {"alpha": 7.0, "predictability": predictability, "rule": rule}
    one = judgement(items, labels, others=others, group=group, **settings_)
    options = data.draw(
        st.lists(st.sampled_from(list(product([True, False, None], repeat=3))), min_size=1)
    )
    one.judge(options)
    for option in options:
        proposed = list(labels)
        for number, label in zip(group, option, strict=True):
            proposed[number] = label
        last = [number for number in group if proposed[number] is not None]
        # The order stays, however many of the group are labelled.
        asked = [((*context, *last), n) for context, n in held_out(others) if n is not None]
        asked += [((*others, *context), n) for context, n in leave_one_out(last)]
        if not asked:
            continue
        expected = expected_utility(items, proposed, asked, **settings_)
        assert one.utility(option).value == pytest.approx(expected)


def in_trie_order(prompts):
    left, before = set(), set()
    for prompt in prompts:
        now = {prompt[:end] for end in range(1, len(prompt))}
        left |= before - now
        if now & left:
            return False
        before = now
    return True


def test_labellings_judged_together_are_one_call_in_trie_order_with_the_rest_read_once():
    items = sums(35, per_question=3)
    labels = [item.label for item in items]
    group, others = [0, 1, 2], list(range(3, 35))
    scorer = Coherent()
    prompter = Prompter(scorer, items, FORMAT)
    one = Judgement(prompter, Objective(), labels, others=others, group=group)
    options = list(product([True, False], repeat=3))
    one.judge(options)
    (prompts,) = scorer.calls
    assert len(set(prompts)) == len(prompts)
    assert in_trie_order(prompts)
    # 32 others after 31 of each other and 8 labellings of the group; the group's own three items
    # after all 32 and the other two, whose labels are four.
    assert len(prompts) == 32 * 8 + 3 * 4
    beginnings = {prompt[:end] for prompt in prompts for end in range(1, len(prompt))}
    assert prompter.done == Reading(
        prompts=len(prompts), reads=len(beginnings), reads_alone=sum(len(p) - 1 for p in prompts)
    )
    before_group = {
        prompt[:end]
        for prompt in prompts
        for end in range(1, len(prompt))
        if prompt[end - 1][: len("Say: 0 + 0")] != "Say: 0 + 0"
    }
    assert len(before_group) <= 33 * 6
    # Each labelling's own examples: at most 14 (a trie of three labels) for each of 33 contexts.
    assert len(beginnings) <= 33 * 6 + 33 * 14
    one.judge(options)
    assert len(scorer.calls) == 1


def test_utilities_of_different_orders_are_not_compared():
    items = sums(6)
    labels = [item.label for item in items]
    labels[5] = True
    a = judgement(items, labels, others=[2, 3, 4, 5], group=[0, 1])
    b = judgement(items, labels, others=[5, 4, 3, 2], group=[0, 1])
    here, there = a.utility((True, False)), b.utility((True, False))
    assert here.value != there.value  # the scorer minds the order
    assert here.gain_over(a.utility((False, True))) > 0
    with pytest.raises(ValueError, match="different orders"):
        here.gain_over(there)
    with pytest.raises(TypeError):
        _ = here > there  # type: ignore[operator]


def test_a_prediction_is_the_likelier_label_after_all_other_examples():
    items = sums(8)
    gold = [item.label for item in items]
    flipped = [not label for label in gold]
    for labels, expected in ((gold, [True, False]), (flipped, [False, True])):
        one = judgement(items, labels, others=list(range(2, 8)), group=[0, 1])
        assert [one.predict(0), one.predict(1)] == expected
    scorer = Coherent()
    one = judgement(
        items, [*gold[:1], None, *gold[2:]], others=[3, 2, 5, 4, 7, 6], group=[0, 1], scorer=scorer
    )
    one.predict(1)
    order = [3, 2, 5, 4, 7, 6, 0]
    assert scorer.calls == [[few_shot(items[1], [(items[n], gold[n]) for n in order], FORMAT)]]
    one.predict(0)  # its own label is not shown to it
    shown = [(items[number], gold[number]) for number in order[:6]]
    assert scorer.calls[1] == [few_shot(items[0], shown, FORMAT)]
    # The prompt is one of those that judging the label needs, and is not asked again.
    one.judge([(True, True), (True, False)])
    assert scorer.calls[0][0] not in scorer.calls[2]


def test_all_predictions_at_once_are_those_of_each_item_after_all_others():
    items = sums(9, per_question=3)
    labels = [True, None, False, True, True, None, False, None, True]
    order = [8, 3, 0, 6, 2, 4]
    scorer = Coherent(by_order=1.5)
    found = predict_all(Prompter(scorer, items, FORMAT), labels, order)
    (prompts,) = scorer.calls
    assert len(prompts) == 9
    assert in_trie_order(prompts)
    for target, predicted in enumerate(found):
        prompt = next(p for p in prompts if items[target].choice + "\n" in p[-1])
        shown = [items[n].choice for n in order if n != target]
        assert sorted(text.split("Say: ")[1].split("\n")[0] for text in prompt[:-1]) == sorted(
            shown
        )
        true, false = Coherent(by_order=1.5).score([prompt], (" True", " False"))[0]
        assert predicted == (true > false)
    assert len(set(found)) == 2


def brute_force_fix(one, start, pairs, rounds):
    """Algorithm 2 in the plainest words."""
    best, tried = start, []
    for _ in range(rounds):
        bad = [pair for pair in pairs if pair in one.inconsistent(best) and pair not in tried]
        if not bad:
            break
        values = {option: one.utility(option).value for option in one.repaired(best, bad[0])}
        found = max(values, key=values.__getitem__)
        if values[found] > one.utility(best).value:
            best, tried = found, []
        else:
            tried.append(bad[0])
    return best


@settings(max_examples=60, deadline=None)
@example(start=(True, True, None, True), seed=1, rounds=4, alpha=3.0, flipped=True)
@given(
    start=st.tuples(*[st.sampled_from([True, False, None])] * 4),
    seed=st.integers(0, 5),
    rounds=st.integers(0, 4),
    alpha=st.sampled_from([0.0, 0.5, 3.0, 50.0]),
    flipped=st.booleans(),
)
def test_fixing_follows_algorithm_2_whatever_was_judged_beforehand(
    start, seed, rounds, alpha, flipped
):
    items = sums(12, per_question=4)
    # Against the truth, what is coherent is inconsistent: then repairs may not pay.
    labels = [None] * 4 + [item.label is not flipped for item in items[4:]]
    pairs = [(i, j) for j in range(4) for i in range(j)]
    pairs = [pairs[place] for place in np.random.default_rng(seed).permutation(6)]
    setting = {"others": range(4, 12), "group": range(4), "alpha": alpha}
    found = fix(judgement(items, labels, **setting), start, pairs, rounds=rounds)
    plain = judgement(items, labels, **setting)
    assert found == brute_force_fix(plain, start, pairs, rounds)
    if alpha == 0 and rounds == 4:
        before, after = len(plain.inconsistent(start)), len(plain.inconsistent(found))
        assert after == 0 or after < before


@pytest.mark.parametrize("seed", range(6))
def test_a_rule_is_asked_in_the_order_of_the_items_whatever_order_they_are_shown_in(seed):
    rising = Rule("rising", lambda a, x, b, y: not (x and not y))
    items = sums(8, per_question=4)
    labels = [True, False, True, False, False, True, True, False]
    rng = np.random.default_rng(seed)
    group, others = rng.permutation(4).tolist(), (4 + rng.permutation(4)).tolist()
    one = judgement(items, labels, others=others, group=group, rule=rising)
    pairs = inconsistent_pairs(items, labels, rising)
    assert one.utility(one.present).inconsistent == len(pairs)
    found = one.inconsistent(one.present)
    assert {tuple(sorted((group[i], group[j]))) for i, j in found} == {
        pair for pair in pairs if max(pair) < 4
    }
    for pair in found:
        assert pair[0] < pair[1]
        made = [
            {group[place]: one_made[place] for place in pair}
            for one_made in one.repaired(one.present, pair)
        ]
        first, second = sorted(made[0])
        assert {(labels[first], labels[second]) for labels in made} == {
            *((True, True), (False, True), (False, False))
        }


def test_fixing_judges_the_first_labellings_together():
    items = sums(8, per_question=2)
    labels = [item.label for item in items]
    scorer = Coherent()
    one = judgement(items, labels, others=range(2, 8), group=[0, 1], scorer=scorer)
    assert fix(one, (True, True), [(0, 1)], rounds=10) == (True, False)
    assert len(scorer.calls) == 1
    assert one.judged == 4 <= TOGETHER


def test_what_cannot_be_judged_is_refused():
    items = sums(4)
    with pytest.raises(ValueError, match="alpha is -1"):
        Objective(alpha=-1)
    with pytest.raises(ValueError, match="predictability is 'median'"):
        Objective(predictability="median")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unknown consistency rule"):
        Objective(rule="x")
    with pytest.raises(ValueError, match="others must be the labelled items"):
        judgement(items, [True] * 4, others=[2], group=[0, 1])
    with pytest.raises(ValueError, match="shares its group"):
        judgement(items, [True] * 4, others=[1, 2, 3], group=[0])

    class Blank:
        def score(self, prompts, verdicts):
            return np.full((len(prompts), 2), -np.inf)

    one = judgement(items, [True] * 4, others=[2, 3], group=[0, 1], scorer=Blank())
    with pytest.raises(ValueError, match=r"gave item 'claim 2' .* finite"):
        one.utility((True, False))
