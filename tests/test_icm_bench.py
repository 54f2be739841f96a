"""ICM's benchmark counts what it says, and what it samples stands for the whole."""

import dataclasses
import importlib
from pathlib import Path

import pytest
from stub_server import LlamaCppStub, Stub, serve

pytest.importorskip("torch", reason="the benchmark reads with the local scorer")

from transformers import AutoTokenizer

from extract.models import POCKET

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))
    return importlib.import_module("bench_icm")


def vocabulary():
    tokenizer = AutoTokenizer.from_pretrained(POCKET)
    return tokenizer.batch_decode([[token] for token in range(len(tokenizer))])


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


@pytest.mark.slow
def test_a_server_is_counted_with_and_without_its_cache(bench):
    """Without its cache a server reads what this process reads without its own; with it, less."""
    settings = bench.Icm(n=(24,), search=0, dataset="pocket/arithmetic")
    here = bench.measure(settings)["by_n"]["24"]
    server = Stub(vocabulary(), likely=range(100), block=1, model="pocket")
    with serve(server) as url:
        there = bench.measure(dataclasses.replace(settings, scorer=url))["by_n"]["24"]
    assert there["tokens_fixed"] == here["tokens_fixed"]
    # Short beginnings are not sent alone, so it is left to chance whether the cache has them.
    assert there["tokens_cached"] < 0.8 * there["tokens_fixed"]
    assert there["tokens_recursive"] < 0.8 * there["tokens_cached"]
    assert there["max_difference"] == 0


class Salted(LlamaCppStub):
    """llama.cpp's stub that remembers the salts that it was sent."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.salts = set()

    def _complete(self, body):
        self.salts.add(body.get("cache_salt"))
        return super()._complete(body)


def test_a_server_without_a_salt_is_read_with_its_own_cache_alone(bench, capsys):
    """Nothing is timed without a cache, and no order finds there what the other left."""
    texts, at_server = vocabulary(), bench.ServerSettings(tokenizer=str(POCKET), top_logprobs=40)
    server = Salted(texts, likely=range(100), block=1, model="alias", most=10**6, slots=1)
    with serve(server) as url:
        settings = bench.Icm(n=(12,), search=0, scorer=url, at_server=at_server)
        bench.check(settings)
        found = bench.measure(settings)
    one = found["by_n"]["12"]
    assert (found["cache_apart"], server.salts) == (False, {None})
    assert found["model"].startswith("alias/")
    assert "top40" in found["model"]
    assert not {"seconds_fixed", "tokens_fixed", "max_difference"} & one.keys()
    salted = Stub(texts, likely=range(100), block=1)
    with serve(salted) as url:
        at_server = bench.ServerSettings(tokenizer=str(POCKET), requests_at_once=1)
        settings = bench.Icm(n=(12,), search=0, scorer=url, at_server=at_server)
        apart = bench.measure(settings)["by_n"]["12"]
    # Items of other lengths are at the beginning, so the numbers differ a little.
    assert one["tokens_cached"] == pytest.approx(apart["tokens_cached"], rel=0.05)
    assert one["tokens_recursive"] == pytest.approx(apart["tokens_recursive"], rel=0.05)
    bench.show(found)
    shown = " ".join(capsys.readouterr().out.split())
    assert "cache cannot be turned off" in shown
    assert "not read" in shown


def test_a_sample_of_a_cache_that_is_not_kept_apart_stands_for_the_whole(bench):
    texts, found = vocabulary(), []
    for sample in (7, 14):
        server = LlamaCppStub(texts, likely=range(100), block=1, most=10**6, slots=1)
        with serve(server) as url:
            options = {"scorer": url, "at_server": bench.ServerSettings(tokenizer=str(POCKET))}
            settings = bench.Icm(n=(14,), sample=sample, search=0, **options)
            found.append(bench.measure(settings)["by_n"]["14"])
    some, whole = found
    assert (some["sampled"], whole["sampled"]) == (["cached"], [])
    assert some["tokens_cached"] == pytest.approx(whole["tokens_cached"], rel=0.3)


def test_options_that_would_do_nothing_are_refused(bench):
    at_server = bench.ServerSettings(tokenizer="x", patience=0)
    with pytest.raises(ValueError, match=r"--patience 0: .*--tokenizer does nothing without --sc"):
        bench.check(bench.Icm(at_server=at_server))
    at_server = bench.ServerSettings(max_tokens_total=9, requests_at_once=0)
    refused = r"--requests-at-once 0: .*--threads does nothing with --scorer.*the bench keeps none"
    with pytest.raises(ValueError, match=refused):
        bench.check(bench.Icm(at_server=at_server, scorer="http://h/v1", threads=1))


def test_settings_that_cannot_work_are_refused(bench):
    with pytest.raises(ValueError, match=r"--n 1: at least 2.*--sample 1: at least 2"):
        bench.check(bench.Icm(n=(1,), sample=1))
    with pytest.raises(ValueError, match=r"--n 2000: pocket/arithmetic has 1000 train items"):
        bench.measure(bench.Icm(n=(2000,)))
    with pytest.raises(
        ValueError, match=r"--n 260: \d+ items of pocket/facts fit the model's context"
    ):
        bench.measure(bench.Icm(n=(260,), dataset="pocket/facts"))
