"""ICM's benchmark counts what it says, and what it samples stands for the whole."""

import importlib
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the benchmark reads with the local scorer")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))
    return importlib.import_module("bench_icm")


def test_numbers_fit_together(bench):
    found = bench.measure(bench.Icm(n=(6, 14), sample=7, search=6, dataset="pocket/arithmetic"))
    six, more = found["by_n"]["6"], found["by_n"]["14"]
    assert (six["reads_fixed"], six["reads_cached"], six["reads_recursive"]) == (30, 20, 16)
    assert six["sampled"] == []
    assert more["sampled"] == ["fixed", "cached"]
    assert more["sample"] == 7
    for one in (six, more):
        assert one["tokens_recursive"] < one["tokens_cached"] < one["tokens_fixed"]
        assert one["max_difference"] < 1e-4
        ratio = one["seconds_cached"] / one["seconds_recursive"]
        assert one["ratio_seconds_cached"] == pytest.approx(ratio)
    assert "search" not in more
    searched = six["search"]
    assert searched["reads_recursive"] < searched["reads_fixed"]
    assert searched["evaluations_per_label"] == pytest.approx(searched["evaluations"] / 6)
    per_read = six["tokens_fixed"] / six["reads_fixed"]
    assert searched["tokens_fixed"] == pytest.approx(per_read * searched["reads_fixed"])
    # All contexts of a fixed order are about as long, so a half of them says how long all are.
    whole = bench.measure(bench.Icm(n=(14,), sample=14, search=0))["by_n"]["14"]
    assert more["tokens_fixed"] == pytest.approx(whole["tokens_fixed"], rel=0.02)
    assert more["tokens_cached"] == pytest.approx(whole["tokens_cached"], rel=0.3)


def test_settings_that_cannot_work_are_refused(bench):
    with pytest.raises(ValueError, match=r"--n 1: at least 2.*--sample 1: at least 2"):
        bench.check(bench.Icm(n=(1,), sample=1))
    with pytest.raises(ValueError, match=r"--n 2000: pocket/arithmetic has 1000 train items"):
        bench.measure(bench.Icm(n=(2000,)))
    with pytest.raises(ValueError, match=r"--n 260: pocket fits \d+ items of pocket/facts"):
        bench.measure(bench.Icm(n=(260,), dataset="pocket/facts"))
