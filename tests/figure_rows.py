"""Rows of every method with AUROCs at random, and what a figure drew of them."""

import itertools

import numpy as np
from matplotlib.axes import Axes

from jelicit.method_names import known
from jelicit.probes.methods import PAPER, PEERS
from jelicit.prompting import METHODS as PROMPTING

# Tests of the field's proposals have a file of their own.
CORE = (*PAPER, *PEERS)

NAN = float("nan")
KEYS = {"zero_shot", "ccs_rebalanced", "pca_rebalanced", "control_length"}
METHODS = [m for m in known() if m.key in {*KEYS, *CORE, *PROMPTING}]
"""What the studies of the three challenges measure."""

NEED_NO_SIGN = {"zero_shot", "e2h", "ue_e2h", "supervised", "control_length"}
NO_LAYER = {"zero_shot", "control_length"}
SALIENCE = {"tense": 0.23, "none": NAN, "sycophancy": 0.091, "punctuation": 0.0123}
MORE = {"sexual_explicit": 0.24, "republican": 0.004}


def rows_of(salience, *, seeds=2, layers=(18,), unknown=0, dataset="gsm8k", sign="oracle"):
    """Rows of every known method (and some unknown ones), AUROCs at random."""
    rng = np.random.default_rng(0)
    methods = [m.key for m in METHODS] + [f"unknown_method_{i}" for i in range(unknown)]
    methods += ["control_elm"] * (unknown > 0)
    rows = []
    for feature, key in itertools.product(salience, methods):
        for layer, seed in itertools.product(
            layers if key not in NO_LAYER else [None], range(seeds)
        ):
            for role in ("truth", "spurious") if feature != "none" else ("truth",):
                area = rng.uniform(0.1, 0.95)
                row = {
                    "dataset": dataset,
                    "feature": feature,
                    "role": role,
                    "method": key,
                    "orientation": "none" if key in NEED_NO_SIGN else sign,
                    "layer": layer,
                    "seed": seed,
                    "auroc": area,
                    "auroc_low": area - 0.05,
                    "auroc_high": area + 0.03,
                    "salience_feature": salience[feature],
                    "salience_truth": 0.031,
                }
                rows.append(row)
    return rows


def drawn(axes: Axes, gid: str):
    (line,) = (line for line in axes.get_lines() if line.get_gid() == gid)
    return np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)


def mean_auroc(rows, **where):
    found = [r["auroc"] for r in rows if all(r[name] == value for name, value in where.items())]
    return np.mean(found)


def names_of(axes: Axes):
    return [label.get_text() for label in axes.get_yticklabels()]
