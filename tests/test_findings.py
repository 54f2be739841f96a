"""Which findings rows show: planted AUROCs, whose findings are known."""

import numpy as np
import pandas as pd
import pytest

from jelicit.studies.findings import (
    cases_of,
    icm_findings,
    imbalance_findings,
    impossible_findings,
    salience_findings,
)

NAN = float("nan")


def row(method, auroc, *, role="truth", **about):
    signed = method in ("supervised", "bootstrapped")
    return {
        "dataset": "pocket/arithmetic",
        "feature": "none",
        "method": method,
        "orientation": "none" if signed else "oracle",
        "seed": 0,
        "role": role,
        "auroc": auroc,
        **about,
    }


def both(method, truth, spurious, **about):
    return [row(method, truth, **about), row(method, spurious, role="spurious", **about)]


def verdicts(findings):
    return [finding.appears for finding in findings]


# ------------------------------------------------------------- challenge 1


def salience_rows(*, truth=0.6, spurious=0.97, supervised=0.95, asked=(0.4, 0.9)):
    """Every method on plain claims, beside three added features, and on a set with two labels."""
    rows = [row("ccs", 0.95), row("pca", 0.93), row("supervised", 0.99)]
    for feature, salience in (("sycophancy", 0.3), ("tense", 0.2), ("punctuation", 0.1)):
        about = {"feature": feature, "salience_feature": salience, "salience_truth": 0.05}
        rows += both("ccs", truth - salience, spurious, **about)
        rows += both("pca", truth, spurious, **about)
        rows += both("supervised", supervised, 0.5, **about)
    about = {"feature": "elm, asked for truth", "salience_feature": 0.3, "salience_truth": 0.1}
    rows += [r for method in ("ccs", "pca") for r in both(method, *asked, **about)]
    return pd.DataFrame(rows)


def test_all_findings_of_salience_appear_in_rows_that_show_them():
    assert verdicts(salience_findings(salience_rows())) == [True] * 5


@pytest.mark.parametrize(
    ("changed", "place"),
    [
        ({"truth": 1.0}, 1),  # the truth is not lost, at least by PCA
        ({"spurious": 0.85}, 1),  # the feature is not found
        ({"supervised": 0.85}, 2),
        ({"asked": (0.9, 0.4)}, 4),
    ],
)
def test_a_finding_of_salience_does_not_appear_where_the_rows_say_otherwise(changed, place):
    found = verdicts(salience_findings(salience_rows(**changed)))
    assert found[place] is False
    assert found[:place] == [True] * place


def test_methods_that_lose_the_truth_of_plain_claims_are_said_to():
    rows = salience_rows()
    rows.loc[rows["feature"] == "none", "auroc"] = 0.7
    finding = salience_findings(rows)[0]
    assert finding.appears is False
    assert "CCS 0.70 (truth); PCA 0.70 (truth) (holds in 0 of 2 cases)" in finding.measured


def test_what_was_not_found_on_plain_claims_is_not_lost():
    rows = salience_rows()
    plain = rows["feature"] == "none"
    unfound = rows.assign(auroc=rows["auroc"].where(~plain, 0.7))
    for gone, why in (
        (unfound, "the truth of plain claims was not found"),
        (rows.loc[~plain], "plain claims were not measured"),
    ):
        lost, kept, order, asked = salience_findings(gone)[1:]
        assert [lost.appears, kept.appears, order.appears] == [None] * 3
        assert f"({why})" in lost.measured
        assert "CCS 0.30 to 0.50 (truth), 0.97 (feature)" in lost.measured
        assert asked.appears is True
    # One method that found it decides alone.
    of_ccs = plain & (rows["method"] == "ccs")
    lost = salience_findings(rows.assign(auroc=rows["auroc"].where(~of_ccs, 0.7)))[1]
    assert lost.appears is True
    # Of the others, no numbers: they were not judged.
    said = "PCA 0.60 (truth), 0.97 (feature) (holds in 3 of 3 cases; in 3 others the truth of "
    assert lost.measured == said + "plain claims was not found)"


def test_an_area_on_another_label_is_not_called_one_on_the_truth():
    rows = salience_rows()
    place = rows["feature"].str.contains("asked for")
    for others, said in (((), "elm"), (("truth",), "asked for")):
        beside = [rows.assign(target=name).loc[place] for name in ("elm", *others)]
        found = pd.concat(each.assign(dataset=f"set{number}") for number, each in enumerate(beside))
        measured = salience_findings(found)[-1].measured
        assert f"CCS 0.40 ({said}), 0.90 (feature)" in measured
        assert "(truth)" not in measured


def test_the_order_of_features_by_salience_is_a_rank_correlation():
    rows = salience_rows()
    assert "rank correlation -1.00 over 3 cases" in salience_findings(rows)[3].measured
    ccs = (rows["method"] == "ccs") & (rows["role"] == "truth") & rows["feature"].ne("none")
    for areas, appears in (((0.2, 0.5, 0.6), True), ((0.6, 0.5, 0.2), False)):
        changed = rows.copy()
        changed.loc[ccs & ~rows["feature"].str.contains("asked"), "auroc"] = areas
        assert salience_findings(changed)[3].appears is appears


def test_saliences_that_lie_together_order_nothing():
    rows = salience_rows()
    rows["salience_feature"] = 0.2 + 0.1 * rows["salience_feature"]
    finding = salience_findings(rows)[3]
    assert finding.appears is None
    assert "too near to order features" in finding.measured
    few = rows.loc[rows["feature"] != "tense"]
    assert "fewer than three" in salience_findings(few)[3].measured


def test_a_method_that_finds_neither_label_follows_none():
    found = salience_findings(salience_rows(asked=(0.4, 0.8)))[4]
    assert found.appears is None
    assert found.measured.endswith("(neither label was found)")


def test_where_the_asked_for_label_is_the_more_salient_one_nothing_can_be_told():
    rows = salience_rows()
    asked = rows["feature"].str.contains("asked for")
    rows.loc[asked, "salience_truth"] = 0.9
    assert salience_findings(rows)[4].appears is None


def test_what_was_not_measured_cannot_be_told():
    rows = pd.DataFrame([row("random", 0.9), row("zero_shot", 0.9)])
    for findings in (salience_findings, imbalance_findings, impossible_findings):
        for finding in findings(rows):
            assert finding.appears is None
    assert salience_findings(rows)[0].measured == "no such case was measured"


def test_a_finding_appears_in_more_than_half_of_its_cases_and_names_the_others():
    rows = pd.DataFrame(
        [row("ccs", 0.95, dataset=name) for name in ("gsm8k", "liar", "pocket/facts")]
    )
    rows.loc[2, "auroc"] = 0.7
    finding = salience_findings(rows)[0]
    assert finding.appears is True
    assert "holds in 2 of 3 cases, not for CCS on Facts (pocket)" in finding.measured
    half = salience_findings(rows.iloc[1:])[0]
    assert half.appears is False


def test_cases_that_were_not_measured_are_no_cases():
    rows = salience_rows()
    plain = rows["feature"] == "none"
    rows.loc[plain & (rows["method"] == "pca"), "auroc"] = NAN
    finding = salience_findings(rows)[0]
    assert finding.appears is True
    assert finding.measured == "CCS 0.95 (truth) (holds in 1 of 1 cases)"
    assert verdicts(salience_findings(rows.assign(auroc=NAN))) == [None] * 5


def test_features_without_an_auroc_have_no_place_in_the_order():
    rows = salience_rows()
    of_ccs = (rows["method"] == "ccs") & (rows["role"] == "truth")
    more = rows.loc[of_ccs & (rows["feature"] == "tense")]
    more = more.assign(feature="length", salience_feature=0.4, auroc=NAN)
    finding = salience_findings(pd.concat([rows, more], ignore_index=True))[3]
    assert finding.appears is True
    assert "rank correlation -1.00 over 3 cases" in finding.measured


# ------------------------------------------------------------- challenge 2


def imbalance_rows(areas, methods=("ccs", "pca", "bootstrapped")):
    return pd.DataFrame(
        [
            row(method, area, class_share=share)
            for share, area in areas.items()
            for method in methods
        ]
    )


def test_findings_of_imbalance_read_their_own_shares():
    shown = {0.0: 0.55, 0.01: 0.8, 0.1: 0.85, 0.2: 0.5, 0.5: 0.97, 0.99: 0.7, 1.0: 0.6}
    assert verdicts(imbalance_findings(imbalance_rows(shown))) == [True] * 4


@pytest.mark.parametrize(
    ("areas", "expected"),
    [
        ({0.5: 0.6}, [False, None, None, None]),
        ({0.0: 0.98, 0.5: 0.97, 1.0: 0.98}, [True, False, None, False]),
        ({0.01: 0.98, 0.5: 0.97, 0.9: 0.98}, [True, None, False, None]),
        ({0.2: 0.5, 0.7: 0.5}, [None] * 4),
        # What balanced rows do not find, or were not there to find, no imbalance takes away.
        ({0.0: 0.5, 0.1: 0.5, 0.4: 0.97, 0.5: 0.8, 1.0: 0.5}, [False, None, None, None]),
        ({0.0: 0.5, 0.1: 0.5, 1.0: 0.5}, [None] * 4),
    ],
)
def test_a_finding_of_imbalance_does_not_appear_or_cannot_be_told(areas, expected):
    assert verdicts(imbalance_findings(imbalance_rows(areas))) == expected


def test_a_sign_that_nothing_picks_is_no_loss_of_the_truth():
    """At one class the labels say nothing of a direction's sign: runs at 0.01 and 0.99 know all."""
    one, two = (imbalance_rows({0.0: area, 0.5: 0.95}).assign(seed=area) for area in (0.01, 0.99))
    lost = imbalance_findings(pd.concat([one, two]))[1]
    assert lost.appears is False
    assert lost.measured.startswith("CCS 0.99 (truth, better sign); PCA 0.99")
    assert "holds in 0 of 2 cases" in lost.measured


def test_prompts_are_judged_at_the_ends_alone():
    rows = imbalance_rows({0.5: 0.5, 0.1: 0.5}, methods=("bootstrapped",))
    assert imbalance_findings(rows)[3].appears is None
    rows = imbalance_rows({0.0: 0.95, 0.5: 0.95, 1.0: 0.95}, methods=("bootstrapped",))
    assert imbalance_findings(rows)[3].appears is False


# ------------------------------------------------------------- challenge 3


def impossible_rows(share, *, ceiling=0.9, truth=0.95):
    rows = [row(method, truth, variance_share=share) for method in ("ccs", "pca")]
    return pd.DataFrame([*rows, row("supervised", 0.99, variance_share=ceiling)])


@pytest.mark.parametrize(
    ("share", "appears"), [(0.5, True), (0.84, True), (0.86, False), (0.95, False)]
)
def test_as_sure_of_opinions_is_a_smaller_share_of_variance_than_the_supervised_probes(
    share, appears
):
    found = impossible_findings(impossible_rows(share))
    assert verdicts(found) == [True, appears]
    assert f"CCS 0.95 (truth), {share:.2f} (share of variance)" in found[1].measured
    assert "of 2 cases" in found[1].measured  # the supervised probe is no case of its own


def test_the_ceiling_is_that_of_the_same_set():
    rows = impossible_rows(0.6)
    other = impossible_rows(0.6, ceiling=0.62).assign(dataset="pocket/facts")
    found = impossible_findings(pd.concat([rows, other], ignore_index=True))
    assert "holds in 2 of 4 cases" in found[1].measured


def test_without_a_ceiling_or_shares_nothing_can_be_told_of_how_sure_they_are():
    rows = impossible_rows(0.5)
    for lacking in (
        rows.loc[rows["method"] != "supervised"],
        rows.assign(variance_share=NAN),
        impossible_rows(0.5, ceiling=NAN),
    ):
        found = impossible_findings(lacking)
        assert verdicts(found) == [True, None]
        assert found[1].measured == "no such case was measured"


# ------------------------------------------------------------- cases


def test_cases_are_means_over_seeds_under_the_oracle_sign():
    rows = [row("ccs", area, seed=seed) for seed, area in enumerate((0.8, 1.0))]
    rows += [{**r, "orientation": "easy", "auroc": 0.0} for r in rows]
    rows += [{**rows[0], "role": "spurious", "auroc": 0.3}]
    [case] = cases_of(pd.DataFrame(rows))
    assert (case.truth, case.spurious) == pytest.approx((0.9, 0.3))
    assert np.isnan(case.class_share)
    assert np.isnan(case.variance_share)


ACCURACIES = {
    **{"icm": 0.9, "golden_many_shot": 0.92, "wrong_many_shot": 0.3, "zero_shot": 0.7},
    **{"icm_perturbed": 0.8, "icm_wrong_start": 0.5, "icm_no_consistency": 0.9},
}
RIGHT = {"icm": 0.95, "icm_wrong_start": 0.93, "icm_no_consistency": 0.8}


def icm_rows(accuracies, right=RIGHT, dataset="facts"):
    return pd.DataFrame(
        {"dataset": dataset, "method": method, "seed": 0, "accuracy": value}
        | {"label_accuracy": right.get(method, NAN)}
        for method, value in accuracies.items()
    )


@pytest.mark.parametrize(
    ("place", "changed", "right"),
    [
        (0, {}, {"icm": 0.85}),
        (2, {"golden_many_shot": 0.94}, {}),
        (3, {"zero_shot": 0.9}, {}),
        (4, {"icm_perturbed": 0.9}, {}),
        (5, {}, {"icm_wrong_start": 0.89}),
        (6, {}, {"icm_no_consistency": 0.93}),
    ],
)
def test_findings_of_icm_follow_what_was_measured(place, changed, right):
    assert verdicts(icm_findings(icm_rows(ACCURACIES))) == [True] * 7
    other = verdicts(icm_findings(icm_rows(ACCURACIES | changed, RIGHT | right)))
    assert other[place] is False
    assert other[:place] + other[place + 1 :] == [True] * 6


def test_where_no_labels_are_read_nothing_is_said_of_their_worth():
    unread = icm_rows(ACCURACIES | {"wrong_many_shot": 0.9})
    assert verdicts(icm_findings(unread)) == [True, False, None, True, None, True, True]
    # Another set that can tell decides alone.
    reads = icm_rows(ACCURACIES | {"golden_many_shot": 0.97}, dataset="pairs")
    found = icm_findings(pd.concat([unread, reads], ignore_index=True))
    assert verdicts(found) == [True, False, False, True, True, True, True]
    assert "0 of 1 sets that can tell" in found[2].measured


@pytest.mark.parametrize(("right", "appears"), [(0.56, True), (0.55, None), (0.2, None)])
def test_errors_are_not_compared_where_labels_are_right_by_chance(right, appears):
    found = icm_findings(icm_rows(ACCURACIES, RIGHT | {"icm": right}))
    assert found[4].appears is appears
    assert (f"({right:.2f} of ICM's labels are right)" in found[4].measured) is (appears is None)
    assert found[2].appears is True  # what they are worth beside golden ones is told all the same


def test_what_was_not_measured_is_not_decided():
    assert verdicts(icm_findings(icm_rows({"zero_shot": 0.7}))) == [None] * 7
    without = icm_rows(ACCURACIES).drop(columns="label_accuracy")
    assert verdicts(icm_findings(without)) == [None, True, True, True, True, None, None]


@pytest.mark.parametrize(
    ("share", "appears"), [(0.5, True), (0.36, True), (0.64, True), (0.34, False), (0.67, False)]
)
def test_labels_of_a_target_that_is_not_salient_are_at_chance(share, appears):
    facts = icm_rows(ACCURACIES)
    poems = icm_rows(dict.fromkeys(ACCURACIES, 0.5), {"icm": share}, dataset="pocket/poems")
    found = icm_findings(pd.concat([facts, poems], ignore_index=True))
    assert "not salient" in found[-1].claim
    assert found[-1].appears is appears
    assert f"Poems (pocket) {share:.2f}" in found[-1].measured
    # A control has no say in what is found elsewhere.
    assert found[:-1] == icm_findings(facts)
    alone = icm_findings(poems)
    assert verdicts(alone) == [None] * 7 + [appears]


def test_a_control_without_a_search_is_not_decided():
    poems = icm_rows({"zero_shot": 0.5}, {}, dataset="pocket/poems")
    assert verdicts(icm_findings(poems)) == [None] * 8
