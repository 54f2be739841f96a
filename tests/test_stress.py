"""The stress test of methods: what was planted decides who survives, and intervals are paired."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import rich
from rich.console import Console
from sklearn.metrics import roc_auc_score

from jelicit.commands import cli
from jelicit.pairs import Pairs
from jelicit.studies import salience, stress
from jelicit.studies.model import Cases
from jelicit.studies.situation import Situation
from jelicit.studies.states import States
from jelicit.studies.stress_card import KEPT, RULE, card_rows, verdict_of
from jelicit.studies.stress_cases import Case, with_sign
from jelicit.studies.study import StudyResult
from jelicit.studies.warning_cases import LINE as FAILED

D, TRAIN, TEST = 12, 160, 120
TRUTH, MOOD = 0, 1

OWN = '''
"""A method in a file outside the project: it knows where the truth is."""

import jax.numpy as jnp

from jelicit.probes import LinearProbe, Method


def fit(run, data, settings):
    """The first coordinate."""
    weight = jnp.zeros(data.hard.pos.shape[1]).at[0].set(1.0)
    return LinearProbe(weight=weight, bias=jnp.zeros(()), offset=jnp.zeros(()))


KNOWING = Method(
    name="knowing", title="Knows the place", group="Unsupervised", fit=fit, free_sign=False,
    source="here", by_seed=False, by_subset=False,
)
'''

SMALL: dict[str, Any] = {
    "seeds": 2,
    "boot": 200,
    "shares": (0.0, 1.0),
    "methods": ("pca", "mean_difference"),
}


def planted_case(name: str, *, mood: float = 0.0, unknown: bool = False, seed: int = 0) -> Any:
    """A truth along the first coordinate, and a mood along the second, of one set of questions."""
    rng = np.random.default_rng(seed)
    truth, moods = np.random.default_rng(7).random((2, TRAIN + TEST)) < 0.5
    planted = np.zeros((TRAIN + TEST, D))
    planted[:, TRUTH] = 2.0 * truth - 1
    planted[:, MOOD] = mood * (2.0 * moods - 1)
    known = truth.astype(float)
    if unknown:
        known[::3], planted[::3, TRUTH] = np.nan, 0.0
    sides = (rng.normal(scale=0.5, size=planted.shape) + sign * planted for sign in (1, -1))
    pairs = Pairs(*(side.astype(np.float32) for side in sides))
    train, test = slice(TRAIN), slice(TRAIN, None)
    others = {"mood": (moods[train], moods[test])} if mood else None
    situation = Situation.of_labels(
        known[train],
        known[test],
        others=others,
        groups=[row // 2 for row in range(TEST)],
        dataset=name,
        feature="mood" if mood else "none",
    )
    return situation, States.of_arrays(pairs.take(train), pairs.take(test))


def planted_cases() -> Cases:
    """Two sets as they are, one of them with a mood that is larger than the truth, and mixed."""
    return Cases(
        [
            planted_case("one"),
            planted_case("two", seed=1),
            planted_case("one", mood=4.0, seed=2),
            planted_case("one", unknown=True, seed=3),
        ]
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("stress")
    (folder / "own.py").write_text(OWN, encoding="utf-8")
    return folder


def run(place: Path, out: str = "out", **options: Any) -> tuple[StudyResult, str]:
    """The result, and what was printed."""
    said = Console(file=io.StringIO(), width=300)
    methods = (*SMALL["methods"], f"{place / 'own.py'}:KNOWING")
    settings = {**SMALL, "methods": methods, **options}
    result = stress.run(planted_cases(), out=place / out, console=said, **settings)
    return result, said.file.getvalue()  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def first(place):
    return run(place)


def card(rows: pd.DataFrame) -> pd.DataFrame:
    """The scorecard: a line per challenge and method."""
    return stress.scorecard(rows).set_index(["challenge", "method"])


def test_a_planted_direction_survives_everything_and_pca_fails_beside_a_larger_feature(first):
    worst = card(first[0].rows)
    challenges = ["plain", "salience", "imbalance", "impossible", "transfer"]
    assert list(dict.fromkeys(worst.index.get_level_values("challenge"))) == challenges
    for challenge in challenges:
        assert worst.loc[(challenge, "knowing"), "verdict"] == "survives"
    assert worst.loc[("plain", "pca"), "verdict"] == "survives"
    assert worst.loc[("salience", "pca"), "verdict"] == "fails"
    assert worst.loc[("salience", "pca"), "feature"] == "mood"
    assert worst.loc[("salience", "mean_difference"), "verdict"] == "survives"
    # At the ends PCA has one class only: of the truth, which all rows share, nothing is left.
    assert worst.loc[("imbalance", "pca"), "share"] < KEPT
    assert worst.loc[("imbalance", "pca"), "verdict"] != "survives"


def test_a_sign_that_no_train_label_can_pick_is_not_held_against_a_direction():
    labels = np.arange(40) % 2.0
    scores = np.stack([labels, -labels])
    for share in (0.0, 1.0):
        turned = with_sign(scores, labels, ("ccs", "oracle"), share)
        np.testing.assert_array_equal(turned, [labels, labels])
    # Elsewhere train labels have picked it, and a method with a sign of its own keeps that.
    for key, share in ((("ccs", "oracle"), 0.1), (("ccs", "easy"), 0.0), (("e2h", "none"), 1.0)):
        assert with_sign(scores, labels, key, share) is scores


def test_loss_and_share_of_the_ceiling_are_what_their_definitions_say(first):
    rows = first[0].rows
    worst = card(rows)
    pca = worst.loc[("salience", "pca")]
    plain = rows[(rows["challenge"] == "plain") & (rows["dataset"] == "one")]
    plain = plain.set_index("method")["auroc"]
    assert pca["loss"] == pytest.approx(plain["pca"] - pca["auroc"], abs=1e-6)
    beside = rows[(rows["challenge"] == "salience") & (rows["method"] == "supervised")]
    (ceiling,) = beside["auroc"]
    assert pca["share"] == pytest.approx((pca["auroc"] - 0.5) / (ceiling - 0.5), abs=1e-6)
    # Where train rows have one class, labels could teach all the same: the ceiling is the plain
    # set's.
    ends = rows[(rows["challenge"] == "imbalance") & (rows["dataset"] == "one")]
    np.testing.assert_allclose(ends["ceiling"], plain["supervised"], atol=1e-6)


def test_what_seeds_differ_by_stands_beside_intervals_of_questions():
    """The interval is of the mean over seeds; how far seeds lie apart is a column of its own."""
    labels = np.arange(40) % 2.0
    draw = np.random.default_rng(0).normal(size=(3, 40))
    of = {("pca", "none"): labels + draw, ("drc", "none"): (labels + draw)[:1]}
    case = Case(
        challenge="plain", dataset="d", name="none", labels=labels, scores=of,
        groups=np.arange(40).astype(str),
    )  # fmt: skip
    rows = {row["method"]: row for row in card_rows([case], boot=20)}
    areas = [roc_auc_score(labels, seed) for seed in labels + draw]
    assert rows["pca"]["auroc"] == pytest.approx(np.mean(areas), abs=1e-6)
    assert rows["pca"]["seed_sd"] == pytest.approx(np.std(areas, ddof=1), abs=1e-6)
    assert np.isnan(rows["drc"]["seed_sd"])


def bootstrap(
    scores: dict[str, np.ndarray], labels: np.ndarray, groups: np.ndarray, draws: np.ndarray
) -> dict[str, np.ndarray]:
    """Mean AUROC over seeds [B] of each method under the same draws of questions [B, G], in NumPy.

    By its definition: the share of pairs of a true and a false row, each as often as it was drawn,
    in which the true one is above.
    """
    members = np.unique(groups)[:, None] == groups[None, :]
    times = np.stack([np.bincount(drawn, minlength=len(members)) @ members for drawn in draws])
    true, false = times[:, labels == 1], times[:, labels == 0]
    pairs = true.sum(1) * false.sum(1)

    def sampled(one: np.ndarray) -> np.ndarray:
        above = (one[labels == 1][:, None] > one[labels == 0][None, :]).astype(float)
        return ((true @ above) * false).sum(1) / pairs

    return {name: np.mean([sampled(one) for one in s], axis=0) for name, s in scores.items()}


def test_paired_intervals_are_those_of_a_plain_bootstrap_of_questions():
    """Other draws: intervals agree as far as two bootstraps of 2,000 samples do."""
    rng = np.random.default_rng(0)
    groups = np.array([f"q{k // 2}" for k in range(160)])
    labels = (rng.random(160) < 0.5).astype(float)
    common = rng.normal(size=160)  # what both methods get wrong alike
    scores = {
        name: np.stack([shift * labels + common + 0.3 * rng.normal(size=160) for _ in range(2)])
        for name, shift in (("better", 1.6), ("worse", 1.2))
    }
    scores["supervised"] = np.stack([2.5 * labels + common + 0.3 * rng.normal(size=160)] * 2)
    plain = {name: s + 1.5 * labels for name, s in scores.items()}
    rows = card_rows(
        [
            Case(
                challenge=challenge,
                dataset="d",
                name=name,
                labels=labels,
                groups=groups,
                scores={(method, "none"): s for method, s in of.items()},
            )
            for challenge, name, of in (("plain", "none", plain), ("salience", "mood", scores))
        ],
        boot=2000,
    )
    draws = np.random.default_rng(5).integers(0, 80, size=(2000, 80))
    ours = bootstrap(scores, labels, groups, draws)
    before = bootstrap(plain, labels, groups, draws)
    by = {row["method"]: row for row in rows if row["challenge"] == "salience"}

    def agrees(row: dict[str, Any], name: str, sampled: np.ndarray) -> None:
        low, high = np.quantile(sampled, [0.025, 0.975])
        width = high - low
        assert row[f"{name}_low"] == pytest.approx(low, abs=0.12 * width), name
        assert row[f"{name}_high"] == pytest.approx(high, abs=0.12 * width), name

    for method in ("better", "worse"):
        row, other = by[method], "better"
        agrees(row, "auroc", ours[method])
        agrees(row, "loss", before[method] - ours[method])
        agrees(row, "share", (ours[method] - 0.5) / (ours["supervised"] - 0.5))
        if method != other:
            ceiling = ours["supervised"] - 0.5
            agrees(row, "behind", (ours[other] - ours[method]) / ceiling)
    # Unpaired, the two intervals overlap; the same resamples tell the methods apart.
    assert by["worse"]["auroc_high"] > by["better"]["auroc_low"]
    assert by["worse"]["behind_low"] > 0
    assert (by["better"]["near_best"], by["worse"]["near_best"]) == (True, False)


def test_a_case_that_even_labels_do_not_solve_is_not_held_against_anybody():
    rng = np.random.default_rng(1)
    labels = np.arange(120) % 2.0
    groups = np.arange(120).astype(str)

    def case(name: str, **strength: float) -> Case:
        scores = {
            (m, "none"): (s * labels + rng.normal(size=120))[None] for m, s in strength.items()
        }
        of = {"labels": labels, "groups": groups, "scores": scores}
        return Case(challenge="salience", dataset="d", name=name, **of)

    cases = [case("seen", pca=3.0, supervised=4.0), case("unseen", pca=0.0, supervised=0.0)]
    rows = card_rows(cases, boot=100)
    counted = {(row["feature"], row["method"]): row["counted"] for row in rows}
    assert counted == {
        (name, method): name == "seen"
        for name in ("seen", "unseen")
        for method in ("pca", "supervised")
    }
    (worst,) = (row for row in rows if row["worst"] and row["method"] == "pca")
    assert (worst["feature"], worst["verdict"]) == ("seen", "survives")


def test_the_worst_case_is_that_of_the_lowest_share_and_not_the_hardest_claims():
    """Claims that labels hardly solve do not hide those of which a method finds half."""

    def scores(labels: np.ndarray, area: float) -> np.ndarray:
        """Scores of an AUROC: so many of the true rows lie above all false ones, the rest below."""
        rank = np.arange(len(labels)) // 2
        return np.where(labels == 1, np.where(rank < area * rank[-1], 2.0, 0.0), 1.0)[None]

    labels = np.arange(400) % 2.0
    of = {"labels": labels, "groups": np.arange(400).astype(str)}
    cases = [
        Case(
            challenge="salience",
            dataset="d",
            name=name,
            scores={
                ("pca", "none"): scores(labels, area),
                ("supervised", "none"): scores(labels, ceiling),
            },
            **of,
        )
        for name, area, ceiling in (("hard", 0.71, 0.78), ("led", 0.73, 1.0))
    ]
    rows = card_rows(cases, boot=200)
    (worst,) = (row for row in rows if row["worst"] and row["method"] == "pca")
    assert (worst["feature"], worst["verdict"]) == ("led", "fails")
    assert worst["share"] == pytest.approx(0.46, abs=0.02)
    (ceiling,) = (row for row in rows if row["worst"] and row["method"] == "supervised")
    assert ceiling["verdict"] == "ceiling"


def test_one_layer_at_a_time():
    pairs = Pairs(np.ones((4, 2), np.float32), np.ones((4, 2), np.float32))
    situation = Situation.of_labels([0, 1, 0, 1], [0, 1, 0, 1])
    two = {3: pairs, 5: pairs}
    with pytest.raises(ValueError, match=r"2 layers \(3, 5\)"):
        stress.run(Cases([(situation, States.of_arrays(two, two))]), methods=("pca",), quiet=True)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.67, 0.9, "survives"), (0.4, 0.66, "fails"), (0.6, 0.67, "open"), (np.nan, np.nan, "fails")],
)
def test_the_rule_of_survival(low, high, verdict):
    assert verdict_of(low, high) == verdict
    assert "two thirds" in RULE
    assert KEPT == 2 / 3


def test_the_line_is_not_where_scores_led_by_a_feature_lie():
    """Truth and feature +-1 and independent: the feature leads, the truth settles the rest."""
    truth, feature = (np.ravel(grid) for grid in np.meshgrid([False, True], [-1.0, 1.0]))
    area = roc_auc_score(truth, 2 * feature + truth)
    assert area == 0.75
    assert (area - 0.5) / 0.5 < KEPT < (roc_auc_score(truth, feature + 2 * truth) - 0.5) / 0.5
    assert area < FAILED < 1


def test_methods_with_labels_stand_apart_and_the_supervised_probe_is_always_there(first):
    rows = first[0].rows
    blocks = rows.groupby("method")["block"].agg(lambda names: " / ".join(sorted(set(names))))
    assert blocks.to_dict() == {
        "knowing": "without labels",
        "pca": "without labels",
        "mean_difference": "with labels",
        "supervised": "with labels",
    }


@pytest.mark.slow
def test_a_second_run_reads_everything_back_and_says_the_same(first, place):
    result, printed = run(place)
    assert "fitted and measured" not in printed
    assert printed.count("reused") >= 6
    pd.testing.assert_frame_equal(result.rows, first[0].rows)


@pytest.mark.slow
def test_what_was_finished_before_a_stop_is_not_measured_again(first, place, monkeypatch):
    """Stopped in the last challenge; another method's scorecard is another."""

    def stop(*args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("jelicit.studies.transfer.measure_on", stop)
        with pytest.raises(KeyboardInterrupt):
            run(place, "stopped")
    result, printed = run(place, "stopped")
    done = [line for line in printed.splitlines() if "fitted and measured" in line]
    assert len(done) == 4  # of two sets on two
    assert printed.count("reused") >= 5
    pd.testing.assert_frame_equal(result.rows, first[0].rows)


def test_the_scorecard_is_printed_drawn_and_in_the_report(first):
    result, printed = first
    table = printed[printed.rindex("Scorecard") :]
    assert "Knows the place" in table
    assert "without labels" in table
    assert " ".join(RULE.split()) in " ".join(table.split())
    assert set(result.figures) == {"stress"}
    report = (result.folder / "report.html").read_text(encoding="utf-8")
    assert "Knows the place" in report
    assert (result.folder / "salience" / "report.html").is_file()
    again = pd.concat(map(pd.read_parquet, (result.folder / "rows").glob("*.parquet")))
    assert len(again) == len(result.rows)


def test_what_areas_are_uncertain_from_is_printed_last_and_in_the_report(first):
    result, printed = first
    spread = stress.spread(result).set_index(["dataset", "method"])
    assert set(spread.index.get_level_values("dataset")) == {"one", "two"}
    rows = result.rows[result.rows["challenge"] == "plain"].set_index(["dataset", "method"])
    np.testing.assert_allclose(spread["auroc"], rows["auroc"][spread.index], atol=1e-6)
    # Nothing of this method is drawn, and train rows decide nothing: runs are the same.
    knowing = pd.DataFrame(spread.xs("knowing", level="method"))
    assert knowing["sd_seeds"].tolist() == [0.0, 0.0]
    # Where every true claim is above every false one, no draw of questions moves anything.
    assert (spread["sd_questions"] > 0).tolist() == (spread["auroc"] < 1).tolist()
    assert np.all(spread["sd_prompts"].isna())
    title = "What an AUROC on the plain claims is uncertain from"
    assert "Knows the place" in printed[printed.rindex(title) :]
    assert printed.rindex(title) > printed.rindex("Scorecard")
    assert f"<p>{title}</p>" in (result.folder / "report.html").read_text(encoding="utf-8")


def test_the_figure_says_of_every_worst_case_its_area_and_verdict(first):
    result, _ = first
    written = [
        (axes.get_yticklabels()[int(text.get_position()[1])].get_text(), text.get_text())
        for axes in result.figures["stress"].axes
        for text in axes.texts
    ]
    worst = card(result.rows)
    marks = {"survives": "✓", "fails": "✗", "open": "?"}
    assert len(written) == len(worst) == 5 * 4
    for name, method in (("PCA *", "pca"), ("Knows the place", "knowing")):
        cells = [text.removeprefix("= ") for of, text in written if of == name]
        rows = worst.xs(method, level="method").to_dict("records")
        assert cells == [f"{row['auroc']:.2f} {marks[row['verdict']]}" for row in rows]


def test_scores_of_a_study_alone_are_those_of_its_rows(first, place):
    """What the scorecard says of a case is the mean over seeds that the study's own table has."""
    rows = first[0].rows
    own = salience.run(
        Cases(planted_cases().cases[2:3]), methods=("pca",), seeds=2, boot=10, quiet=True
    ).rows
    own = own[(own["method"] == "pca") & (own["role"] == "truth")]
    (ours,) = rows.loc[(rows["challenge"] == "salience") & (rows["method"] == "pca"), "auroc"]
    assert ours == pytest.approx(float(np.mean(own["auroc"])), abs=1e-4)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"challenges": ("magic",)}, "--challenges magic is unknown; known: salience, imbalance"),
        ({"layers": ("1", "2")}, "--layers 1 2: give one, or best"),
        ({"format": ("claim", "statement")}, "--format claim statement: give one"),
        ({"impossible": "pocket/arithmetic"}, "--impossible pocket/arithmetic is among --dataset"),
        ({"sign": "coin"}, "sign"),
        ({"formats": ("claim",)}, "--formats claim: name two or more"),
        ({"challenges": ("salience",), "shares": (0.5,)}, "--shares does nothing without"),
    ],
)
def test_settings_that_cannot_work_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        stress.Settings(**options).check()


def test_the_negated_twin_of_a_set_is_among_those_that_transfer_tests_on():
    settings = stress.Settings(dataset=("cities",), challenges=("transfer",))
    assert settings.sets_of_transfer == ("cities", "neg_cities")
    both = stress.Settings(dataset=("neg_cities", "cities"))
    assert both.sets_of_transfer == ("neg_cities", "cities")


# --- the command ---------------------------------------------------------------------------------

OPENER = '''
"""Opens a model whose hidden states know the truth and nothing else but the words."""

import numpy as np
from asked_model import AskedModel

from jelicit.data.items import labels
from jelicit.pairs import Pairs


class Planted:
    """A store with the truth in the last coordinate."""

    layers = (1,)

    def __init__(self, store, truth):
        self.log_probs, self._store = store.log_probs, store
        self._truth = np.where(np.isnan(truth), 0, 4 * truth - 2).astype(np.float32)[:, None]

    def pairs(self, layer):
        pos, neg = self._store.pairs(layer)
        return Pairs(np.hstack([pos, self._truth]), np.hstack([neg, -self._truth]))


class Knowing(AskedModel):
    def store(self, name, items, format, layers):
        return Planted(super().store(name, items, format, layers), labels(items))


def open_model(*, model, say, **settings):
    say(f"opened {model} from {settings['stores']}")
    return Knowing()
'''


@pytest.fixture(scope="module")
def commanded(place) -> tuple[str, Path]:
    """`jelicit stress` with a model and a method that are the user's own: what it prints."""
    (place / "opener.py").write_text(OPENER, encoding="utf-8")
    words = [
        *("stress", "--opener", f"{place / 'opener.py'}:open_model", "--model", "mine"),
        *("--methods", "pca", f"{place / 'own.py'}:KNOWING", "--max-rows", "60", "--seeds", "1"),
        *("--challenges", "salience", "transfer", "prompts", "--features", "sycophancy"),
        *("--layers", "1", "--boot", "50", "--out", str(place / "commanded")),
    ]
    with rich.get_console().capture() as printed:
        cli.main(words)
    return printed.get(), place / "commanded"


def test_the_command_gives_a_model_and_a_method_of_ones_own_their_line(commanded):
    printed, out = commanded
    assert "opened mine from runs/stores" in printed
    rows = pd.concat(map(pd.read_parquet, (out / "rows").glob("*.parquet")))
    worst = card(rows)
    for challenge in ("plain", "salience", "transfer", "prompts"):
        its_own = "survives" if challenge == "transfer" else "ceiling"
        assert worst.loc[(challenge, "supervised"), "verdict"] == its_own
        assert worst.loc[(challenge, "supervised"), "auroc"] > 0.9
        # The first coordinate is drawn, and PCA finds the largest.
        assert worst.loc[(challenge, "knowing"), "share"] < KEPT
    assert worst.loc[("plain", "pca"), "verdict"] == "survives"
    assert "Knows the place" in (out / "report.html").read_text(encoding="utf-8")


def test_what_is_not_trained_is_measured_on_other_sets_as_at_home(commanded):
    rows = pd.concat(map(pd.read_parquet, (commanded[1] / "rows").glob("*.parquet")))
    asked = rows[rows["method"] == "zero_shot"].set_index(["challenge", "dataset"])["auroc"]
    for name in ("pocket/arithmetic", "pocket/larger_than"):
        away, home = asked.loc[[("transfer", name), ("plain", name)]]
        assert away == home


def test_prompts_are_compared_in_all_formats_that_fit(commanded):
    rows = pd.concat(map(pd.read_parquet, (commanded[1] / "rows").glob("*.parquet")))
    shown = rows.loc[rows["challenge"] == "prompts", "feature"]
    assert set(shown) == {"as claim", "as statement", "as asking"}
    (file,) = (commanded[1] / "spread").glob("*.parquet")
    spread = pd.read_parquet(file)
    assert set(spread["prompts"]) == {"claim, statement, asking"}
    # One seed tells nothing of seeds, and something of prompts.
    assert np.all(spread["sd_seeds"].isna())
    assert np.all(spread["sd_prompts"].notna())


def test_the_list_of_commands_has_stress_and_its_help_has_the_options(capsys):
    for words, said in ((["--help"], "stress"), (["stress", "--help"], "--opener")):
        with pytest.raises(SystemExit):
            cli.main(words)
        assert said in capsys.readouterr().out


def test_a_run_in_which_no_case_counts_says_so(tmp_path):
    """Where labels find nothing there is nothing to hold against a method."""
    rng = np.random.default_rng(0)
    truth = rng.random(TRAIN + TEST) < 0.5
    pairs = Pairs(*rng.normal(size=(2, len(truth), D)).astype(np.float32))
    situation = Situation.of_labels(truth[:TRAIN], truth[TRAIN:])
    states = States.of_arrays(pairs.take(slice(TRAIN)), pairs.take(slice(TRAIN, None)))
    cases = Cases([(situation, states)])
    result = stress.run(
        cases, methods=("pca",), challenges=("salience",), boot=20, seeds=1, quiet=True
    )
    assert stress.scorecard(result.rows).empty
    assert result.figures == {}
    assert result.findings[0].appears is None
