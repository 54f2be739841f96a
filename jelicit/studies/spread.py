"""What an AUROC is uncertain from: test questions, seeds, the choice of the prompt.

With P prompts and S seeds, each seed fitted under each prompt (crossed, no replication), and all
fits measured on the same questions, the AUROC of seed s under prompt p is

    A_ps = m + a_p + b_s + c_ps + e_ps,

random effects of prompts (variance v_p), seeds (v_s) and their interaction (v_ps), and the error
of a finite set of questions. Errors of different fits are of the same questions: their covariance
is known from a bootstrap that draws questions once for all fits (A*_ps). With the mean squares

    M_p  = S sum_p (A_p. - A_..)^2 / (P - 1),
    M_s  = P sum_s (A_.s - A_..)^2 / (S - 1),
    M_ps = sum_ps (A_ps - A_p. - A_.s + A_..)^2 / ((P - 1) (S - 1)),

and Q_x the same mean squares of the errors, expectations are

    E M_p = S v_p + v_ps + Q_p,    E M_s = P v_s + v_ps + Q_s,    E M_ps = v_ps + Q_ps.

The estimates are the solution (analysis of variance, the method of moments):

    v_ps = M_ps - Q_ps,    v_p = (M_p - Q_p - v_ps) / S,    v_s = (M_s - Q_s - v_ps) / P,

where Q_x is the sum of the mean squares of A*_ps - mean A*_ps over the B resamples, over B - 1.
The plain variance between the prompts' means is M_p / S: it holds 1 / S of the interaction of
prompts and seeds, and the part of the questions' error that is not the same under all prompts.
What is the same under all prompts (the seeds' own effects, questions that are hard for every fit)
drops out of it. The estimates are unbiased up to the bootstrap's own error, and may be below 0
where a component is small beside its noise; a standard deviation is then 0, and that is said.

With one prompt there is v_s = M_s - Q_s, of fits under this very prompt: seeds and prompt x seed
together. With one seed, likewise, v_p.

Sources: Searle, Casella and McCulloch, Variance Components (1992), chapter 4 (balanced crossed
data; estimates below 0); Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 6.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jelicit import metrics

SOURCES = ("questions", "seeds", "prompts", "prompt_seed")
"""What an AUROC is uncertain from; prompt_seed: seeds that differ under one prompt only."""


class Components(NamedTuple):
    """Variances of the AUROC of one fit under one prompt, by where they are from.

    They may be below 0 (see the module), and are nan where these numbers cannot tell: of one
    prompt, of one seed, of a single resample. Their sum is the variance of the AUROC if questions,
    seed and prompt were all drawn anew.
    """

    questions: float
    """Of the test questions, with whatever fits make of them: the mean over fits."""
    seeds: float
    prompts: float
    prompt_seed: float

    @property
    def below_zero(self) -> tuple[str, ...]:
        """The components whose estimates are below 0."""
        return tuple(name for name in SOURCES if getattr(self, name) < 0)

    def sd(self, source: str) -> float:
        """The standard deviation from a source, in units of AUROC: 0 of a variance below 0."""
        return float(np.sqrt(np.maximum(getattr(self, source), 0.0)))


class _MeanSquares(NamedTuple):
    """Mean squares [...] between prompts, between seeds, and of their interaction."""

    prompts: np.ndarray
    seeds: np.ndarray
    both: np.ndarray


def components(areas: np.ndarray, samples: np.ndarray) -> Components:
    """The components of variance of AUROCs in a crossed design.

    Args:
        areas: AUROCs [P, S] of S seeds under P prompts. A seed without a number under any prompt
            (a fit that failed) counts under none.
        samples: The same under every bootstrap resample of questions [P, S, B]; resamples that
            miss a class (nan) do not count.

    Raises:
        ValueError: The shapes do not fit each other.
    """
    areas, samples = np.asarray(areas, float), np.asarray(samples, float)
    if areas.ndim != 2 or samples.shape[:-1] != areas.shape:
        raise ValueError(
            f"areas has shape {areas.shape} and samples {samples.shape}; give [prompts, seeds] and "
            "[prompts, seeds, resamples]"
        )
    fitted = seeds_fitted(areas)
    areas, samples = areas[:, fitted], samples[:, fitted]
    samples = samples[..., ~np.isnan(samples).any((0, 1))]
    if areas.size == 0 or samples.shape[-1] < 2:
        return Components(np.nan, np.nan, np.nan, np.nan)
    errors = _centred(samples - samples[..., :1], 2)
    degrees = samples.shape[-1] - 1
    pairs = zip(_mean_squares(areas), _mean_squares(errors), strict=True)
    left = _MeanSquares(*(square - noise.sum() / degrees for square, noise in pairs))
    questions = float(np.square(errors).sum(-1).mean() / degrees)
    return Components(questions, *_solved(left, *areas.shape))


def seeds_fitted(areas: np.ndarray) -> np.ndarray:
    """Which seeds have an AUROC under every prompt: of AUROCs [P, S], bool [S]."""
    return np.asarray(np.isfinite(areas).all(axis=0))


def components_of(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> Components:
    """The components of variance of the AUROC of scores.

    Args:
        scores: Truth scores [P, S, n] of S seeds under P prompts, of the same n questions' rows.
        labels: Of the rows [n], 1 or 0; rows with nan are left out.
        weights: How often each row was drawn in each resample [B, n] (`metrics.group_bootstrap`).

    Raises:
        ValueError: The lengths differ.
    """
    return components(
        np.asarray(metrics.auroc(scores, labels), float),
        np.asarray(metrics.auroc_samples(scores, labels, weights), float),
    )


def _solved(left: _MeanSquares, prompts: int, seeds: int) -> tuple[float, float, float]:
    """Variances of seeds, prompts and both, from mean squares less those of questions."""
    if prompts > 1 and seeds > 1:
        both = float(left.both)
        return float(left.seeds - both) / prompts, float(left.prompts - both) / seeds, both
    # One of the two is nan or both are: there is no interaction to be told apart.
    return float(left.seeds), float(left.prompts), np.nan


def _mean_squares(areas: np.ndarray) -> _MeanSquares:
    """Of AUROCs [P, S, ...], each [...]; nan where there is one prompt, or one seed."""
    prompts, seeds = areas.shape[:2]
    # The same contrasts as of the numbers themselves, and exactly 0 where nothing differs.
    to_seed, to_prompt = areas - areas[:, :1], areas - areas[:1]
    to_both = to_seed - to_seed[:1]
    between_prompts = np.square(_centred(to_prompt.mean(1), 0)).sum(0)
    between_seeds = np.square(_centred(to_seed.mean(0), 0)).sum(0)
    beyond_both = np.square(_centred(to_both, 0, 1)).sum((0, 1))
    return _MeanSquares(
        _per(seeds * between_prompts, prompts - 1),
        _per(prompts * between_seeds, seeds - 1),
        _per(beyond_both, (prompts - 1) * (seeds - 1)),
    )


def _centred(values: np.ndarray, *axes: int) -> np.ndarray:
    for axis in axes:
        values = values - values.mean(axis, keepdims=True)
    return values


def _per(squares: np.ndarray, degrees: int) -> np.ndarray:
    return squares / degrees if degrees else np.full_like(squares, np.nan)
