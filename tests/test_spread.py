"""Questions, seeds and prompts as sources of variance: planted ones are found, by exact forms."""

import io
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from scipy.stats import norm

from jelicit.method_names import readable
from jelicit.metrics import auroc, auroc_samples
from jelicit.studies.spread import SOURCES, components, components_of
from jelicit.studies.stress_cases import Case
from jelicit.studies.stress_spread import spread_rows
from jelicit.studies.stress_tables import print_text_table, spread_table


def sure(areas: np.ndarray) -> np.ndarray:
    """Resamples in which nothing moves."""
    return np.repeat(np.asarray(areas)[..., None], 3, axis=-1)


def test_two_prompts_and_two_seeds_come_to_what_a_hand_comes_to():
    areas = np.array([[0.6, 0.8], [0.7, 1.0]])
    # Prompts are 0.15 apart, seeds 0.25, and each cell is 0.025 from their sum.
    known = {"questions": 0.0, "seeds": 0.03, "prompts": 0.01, "prompt_seed": 0.0025}
    assert components(areas, sure(areas))._asdict() == pytest.approx(known, abs=1e-12)
    samples = np.repeat(areas[..., None], 2, axis=-1)
    samples[0, 0] += [0.01, -0.01]
    # One cell in four moves, with a variance of 2e-4 over resamples: each mean square of the
    # errors is a quarter of it.
    known = {"questions": 5e-5, "seeds": 0.03, "prompts": 0.01, "prompt_seed": 0.00245}
    assert components(areas, samples)._asdict() == pytest.approx(known, abs=1e-12)


def test_what_all_fits_share_is_of_questions_alone():
    areas = np.array([[0.6, 0.8], [0.7, 1.0]])
    moved = areas[..., None] + np.array([-0.1, 0.0, 0.1])
    known = {"questions": 0.01, "seeds": 0.03, "prompts": 0.01, "prompt_seed": 0.0025}
    assert components(areas, moved)._asdict() == pytest.approx(known, abs=1e-12)


def test_one_prompt_or_one_seed_leaves_its_own_variance_unknown():
    areas = np.array([[0.6, 0.8]])
    samples = np.stack([areas - 0.1, areas, areas + 0.1], -1)
    of_prompt, of_seed = components(areas, samples), components(areas.T, samples.swapaxes(0, 1))
    assert of_prompt.seeds == pytest.approx(0.02)
    assert of_seed.prompts == pytest.approx(0.02)
    assert of_prompt.questions == of_seed.questions == pytest.approx(0.01)
    unknown = (of_prompt.prompts, of_seed.seeds, of_prompt.prompt_seed, of_seed.prompt_seed)
    assert np.isnan(unknown).all()
    assert np.isnan(of_prompt.sd("prompts"))
    # No number of resamples but two tells how far they lie apart.
    assert np.isnan(components(areas, samples[..., :1])).all()


def test_an_estimate_below_zero_is_taken_as_zero_and_told():
    areas = np.array([[0.6, 0.8], [0.8, 0.6]])
    turned = components(areas, sure(areas))
    assert (turned.seeds, turned.prompts) == pytest.approx((-0.02, -0.02))
    assert turned.below_zero == ("seeds", "prompts")
    assert (turned.sd("seeds"), turned.sd("prompts")) == (0.0, 0.0)
    assert turned.sd("prompt_seed") == pytest.approx(0.2)


def test_a_seed_that_failed_under_one_prompt_counts_under_none():
    rng = np.random.default_rng(0)
    areas, noise = rng.random((3, 4)), rng.random((3, 4, 9))
    samples = areas[..., None] + noise
    without = components(areas[:, [0, 1, 3]], samples[:, [0, 1, 3], :-1])
    areas[1, 2] = samples[1, 2] = np.nan
    samples[:, :, -1] = np.nan  # a resample without one of the classes
    assert components(areas, samples) == pytest.approx(without, rel=1e-9)
    assert np.isnan(components(np.full((2, 2), np.nan), samples[:2, :2])).all()


def test_arrays_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"shape \(2, 3\) and samples \(2, 3\)"):
        components(np.zeros((2, 3)), np.zeros((2, 3)))


PLANTED = {"questions": 0.03**2, "seeds": 0.02**2, "prompts": 0.04**2, "prompt_seed": 0.01**2}
OWN = 0.02**2  # of the variance from questions, what each fit has by itself


def drawn(rng: np.random.Generator, prompts: int, seeds: int, times: int) -> np.ndarray:
    """Errors of questions [P, S, times]: a part that all fits share, and each fit's own."""
    shared = rng.normal(scale=np.sqrt(PLANTED["questions"] - OWN), size=(1, 1, times))
    return shared + rng.normal(scale=np.sqrt(OWN), size=(prompts, seeds, times))


def test_estimates_are_right_on_average_even_of_three_prompts_and_four_seeds():
    rng = np.random.default_rng(0)
    estimates, naive = [], []
    for _ in range(1200):
        a, b, c = (
            rng.normal(scale=np.sqrt(PLANTED[name]), size=shape)
            for name, shape in (("prompts", (3, 1)), ("seeds", (1, 4)), ("prompt_seed", (3, 4)))
        )
        areas = 0.8 + a + b + c + drawn(rng, 3, 4, 1)[..., 0]
        estimates.append(components(areas, areas[..., None] + drawn(rng, 3, 4, 60)))
        naive.append(areas.mean(1).var(ddof=1) - estimates[-1].prompts)
    means, errors = np.mean(estimates, 0), np.std(estimates, 0) / np.sqrt(len(estimates))
    for name, mean, error in zip(SOURCES, means, errors, strict=True):
        assert abs(mean - PLANTED[name]) < 3 * error, name
        assert error < 0.1 * PLANTED[name], name  # or the line above would say little
    # How far the prompts' means lie apart has more in it: of four fits, and of their questions.
    assert np.mean(naive) == pytest.approx((PLANTED["prompt_seed"] + OWN) / 4, rel=0.1)


def scores_of(rng: np.random.Generator, areas: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Scores [P, S, n] whose AUROCs are these but for their questions: normal, of two classes."""
    size = (*areas.shape, len(labels))
    noise = np.sqrt(0.7) * rng.normal(size=len(labels)) + np.sqrt(0.3) * rng.normal(size=size)
    return np.sqrt(2) * norm.ppf(areas)[..., None] * labels + noise


def weights_of(rng: np.random.Generator, n: int, samples: int) -> np.ndarray:
    return rng.multinomial(n, np.full(n, 1 / n), size=samples).astype(float)


def test_planted_effects_come_out_of_scores():
    """Questions are drawn once: what they do to all fits alike is no effect of a prompt."""
    rng = np.random.default_rng(0)
    labels = np.arange(400) % 2.0
    prompts, seeds = np.linspace(-0.1, 0.1, 6)[:, None], np.linspace(-0.05, 0.05, 8)[None, :]
    scores = scores_of(rng, 0.75 + prompts + seeds, labels)
    estimate = components_of(scores, labels, weights_of(rng, 400, 200))
    assert estimate.sd("prompts") == pytest.approx(prompts.std(ddof=1), rel=0.12)
    assert estimate.sd("seeds") == pytest.approx(seeds.std(ddof=1), rel=0.15)
    # No seed differs under one prompt only; cells lie apart since each is measured with noise.
    cells = np.asarray(auroc(scores, labels), float)
    apart = cells - cells.mean(0) - cells.mean(1)[:, None] + cells.mean()
    naive = np.square(apart).sum() / (5 * 7)
    assert naive > 0.008**2
    assert abs(estimate.prompt_seed) < 0.5 * naive
    # Hanley and McNeil's standard error of an AUROC of 200 true and 200 false rows.
    assert estimate.sd("questions") == pytest.approx(hanley(0.75, 200), rel=0.15)


def hanley(area: float, each: int) -> float:
    """The standard error of an AUROC of as many true as false rows (Hanley and McNeil 1982)."""
    one, two = area / (2 - area), 2 * area**2 / (1 + area)
    rest = (each - 1) * (one + two - 2 * area**2)
    return float(np.sqrt((area * (1 - area) + rest) / each**2))


def test_where_nothing_differs_only_questions_are_left():
    rng = np.random.default_rng(1)
    labels = np.arange(60) % 2.0
    one = labels + rng.normal(size=60)
    same = components_of(np.tile(one, (3, 5, 1)), labels, weights_of(rng, 60, 50))
    assert (same.seeds, same.prompts, same.prompt_seed) == (0.0, 0.0, 0.0)
    assert same.below_zero == ()
    assert same.questions > 0
    # A fit that no seed decides: prompts differ, and seeds do not at all.
    by_prompt = labels + rng.normal(size=(3, 1, 60))
    fixed = components_of(np.repeat(by_prompt, 5, axis=1), labels, weights_of(rng, 60, 50))
    assert (fixed.seeds, fixed.prompt_seed) == (0.0, 0.0)


def test_the_order_of_prompts_and_seeds_is_nothing():
    rng = np.random.default_rng(2)
    areas = rng.random((4, 5))
    samples = areas[..., None] + 0.1 * rng.normal(size=(4, 5, 30))
    mixed = np.ix_(rng.permutation(4), rng.permutation(5), rng.permutation(30))
    again = components(areas[mixed[0][..., 0], mixed[1][..., 0]], samples[mixed])
    assert again == pytest.approx(components(areas, samples), rel=1e-9)


# --- of the stress test --------------------------------------------------------------------------

LABELS, GROUPS = np.arange(60) % 2.0, np.array([f"q{row // 2}" for row in range(60)])


def case(challenge: str, dataset: str, name: str, *, seed: int) -> Case:
    """PCA in four runs, and the model's own answer, which has none."""
    rng = np.random.default_rng(seed)
    sizes = {("pca", "oracle"): 4, ("pca", "easy"): 4, ("zero_shot", "none"): 1}
    hard = 0.8 * np.repeat(rng.normal(size=30), 2)
    scores = {key: LABELS + hard + 0.6 * rng.normal(size=(size, 60)) for key, size in sizes.items()}
    return Case(
        challenge=challenge, dataset=dataset, name=name, labels=LABELS, groups=GROUPS,
        scores=scores, untrained=frozenset({("zero_shot", "none")}),
    )  # fmt: skip


@pytest.fixture(scope="module")
def spread() -> pd.DataFrame:
    prompts = [
        case("prompts", "asked", f"as {name}", seed=seed)
        for seed, name in enumerate(("claim", "statement", "asking"))
    ]
    others = [
        case("plain", "asked", "none", seed=5),
        case("plain", "arrays", "none", seed=6),
        case("salience", "arrays", "mood", seed=7),
    ]
    return pd.DataFrame(spread_rows([*others, *prompts], boot=100))


def test_rows_are_of_all_prompts_where_there_are_some_and_of_plain_claims_elsewhere(spread):
    lines = spread.set_index(["dataset", "method"])
    assert set(spread["orientation"]) == {"oracle", "none"}
    assert list(lines.index) == [
        (dataset, method) for dataset in ("asked", "arrays") for method in ("pca", "zero_shot")
    ]
    pca, plain = lines.loc[("asked", "pca")], lines.loc[("arrays", "pca")]
    assert (pca["n_prompts"], pca["n_seeds"], pca["prompts"]) == (3, 4, "claim, statement, asking")
    assert (plain["n_prompts"], plain["n_seeds"], plain["prompts"]) == (1, 4, "")
    scores = np.stack(
        [case("prompts", "asked", "", seed=seed).scores["pca", "oracle"] for seed in range(3)]
    )
    areas = np.asarray(auroc(scores, LABELS), float)
    assert pca["auroc"] == pytest.approx(areas.mean(), abs=1e-6)
    assert np.all(plain[["sd_prompts", "sd_prompt_seed"]].isna())
    assert plain["sd_seeds"] >= 0


def test_a_method_that_the_first_prompt_lacks_has_a_row_of_the_others():
    first, *others = (case("prompts", "asked", f"as {n}", seed=n) for n in range(3))
    pca = ("pca", "oracle")
    first = replace(first, scores={k: of for k, of in first.scores.items() if k != pca})
    lines = pd.DataFrame(spread_rows([first, *others], boot=100)).set_index("method")
    assert set(lines.index) == {"pca", "zero_shot"}
    assert lines.loc["pca", "prompts"] == "1, 2"
    assert lines.loc["zero_shot", "n_prompts"] == 3


def test_rows_have_the_bootstrap_of_whole_questions(spread):
    """Two rows of a question move together; other draws agree as far as a hundred resamples do."""
    scores = case("plain", "arrays", "none", seed=6).scores["pca", "oracle"]
    weights = np.repeat(weights_of(np.random.default_rng(0), 30, 4000), 2, axis=1)
    samples = np.asarray(auroc_samples(scores, LABELS, weights), float)
    line = spread.set_index(["dataset", "method"]).loc[("arrays", "pca")]
    assert line["sd_questions"] == pytest.approx(np.sqrt(samples.var(-1).mean()), rel=0.2)


def test_what_no_number_tells_is_told_by_a_dash_and_never_as_zero(spread):
    table = spread_table(spread)
    cells = {(line[1], line[0]): line[3:] for line in table.lines}
    assert table.heads[3:] == ("Questions", "Seeds", "Prompts", "Prompt x seed")
    asked, arrays = readable("asked"), readable("arrays")
    assert cells[arrays, "PCA *"][2:] == ("-", "-")
    assert cells[asked, "Zero-shot"][1] == cells[asked, "Zero-shot"][3] == "-"
    assert "-" not in cells[asked, "PCA *"]
    clipped = spread.assign(sd_prompts=0.0, below_zero="prompts")
    assert {line[5] for line in spread_table(clipped).lines} == {"0 (<0)"}
    said = Console(file=io.StringIO(), width=120)
    print_text_table(table, said)
    printed = said.file.getvalue()  # type: ignore[attr-defined]
    assert table.title in printed
    assert "Zero-shot" in printed
