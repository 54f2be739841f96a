"""A number and its bootstrap interval as columns of a row."""

import numpy as np


def with_interval(name: str, value: float, samples: np.ndarray) -> dict[str, float]:
    """`<name>`, `<name>_low` and `<name>_high`: the 2.5 % and 97.5 % quantiles of the samples.

    Samples that are nan (a resample without one of the classes) do not count.
    """
    known = samples[~np.isnan(samples)]
    low, high = np.quantile(known, [0.025, 0.975]) if known.size else (np.nan, np.nan)
    return {name: float(value), f"{name}_low": float(low), f"{name}_high": float(high)}
