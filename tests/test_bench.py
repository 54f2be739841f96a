"""The benchmark measures what it says: numbers that fit together, and work that is the same."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

pytest.importorskip("torch", reason="the benchmark's torch loop needs the extract extra")

ROOT = Path(__file__).resolve().parents[1]
BENCH = [sys.executable, str(ROOT / "experiments/bench.py")]


@pytest.mark.slow
def test_numbers_fit_together(tmp_path):
    words = "--n 60 --d 16 --runs 1 6 --steps 12 --repeats 1 --no-whole --json out.json"
    done = subprocess.run(
        [*BENCH, "probes", *words.split()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out.json").read_text())
    assert set(found["pooled_ms"]) == {"1", "6"}
    for runs, ms in found["pooled_ms"].items():
        assert found["ratio"][runs] == pytest.approx(found["torch_ms"] / ms)
        gflops = 8 * 60 * 16 / (ms * 1e-3) / 1e9
        assert found["peak_fraction"][runs] == pytest.approx(gflops / found["peak_gflops"])
    assert {int(n) for n in found["by_n"]} == {15, 30, 60}
    assert {int(d) for d in found["by_d"]} == {4, 8, 16}
    assert "load average" in done.stdout
    assert 0.1 < found["peak_memory_gb"] < 20
    assert (tmp_path / "out.png").stat().st_size > 5000


def test_the_torch_loop_descends_the_loss_of_the_pooled_fits(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))
    bench = importlib.import_module("bench_probes")
    from jelicit.probes.methods import SweepConfig
    from jelicit.probes.sweep import SweepData, sweep

    pairs, labels = bench.pairs_like_a_models(200, 32, seed=0)
    theirs = bench.torch_loop(pairs, 300, 1)()
    data = SweepData(
        hard={1: pairs}, layers=(1,), subsets=np.ones((5, 200), bool), seeds=np.arange(5)
    )
    ours = np.asarray(sweep(data, SweepConfig(methods=("ccs",), ccs_steps=300)).info["ccs"].loss)
    # Other starts, one loss: CCS ends in few optima.
    assert ours.min() * 0.5 <= theirs <= ours.max() * 1.5
    assert 0.3 < labels.mean() < 0.7


def test_a_whole_sweep_is_held_against_the_steps_that_the_loop_would_take(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))
    bench = importlib.import_module("bench_probes")
    steps = {"ccs": 100.0, "ue_e2h": 40.0, "supervised": 20.0, "e2h": 10.0}
    parts = {"before": 1.0, "ccs": 2.0, "ue_e2h": 3.0, "supervised": 1.0, "e2h": 0.5, "pca": 6.0}
    ends = {method: {"passes": n} for method, n in steps.items()}
    measured = {"sweep_s": 14.0, "sweep_parts_s": parts, "ends": ends}
    found = bench._against_the_loop(measured, 39, 5.0)
    # UE+E2H reads the easy rows as well, half as many; E2H is fitted once per seed.
    loop = 0.005 * (39 * (100 + 60 + 20) + 3 * 10)
    assert found["torch_sweep_s"] == pytest.approx(loop)
    assert found["sweep_ratio"] == pytest.approx(loop / 14)
    assert found["trained_ratio"] == pytest.approx(loop / 6.5)


def test_settings_that_cannot_work_are_refused_in_one_line():
    done = subprocess.run(
        [*BENCH, "probes", "--n", "3", "--runs", "0"], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "--n 3: at least 20" in done.stderr
    assert "--runs 0: at least 1" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_both_ways_of_extraction_say_the_same(tmp_path):
    words = "--model pocket --n 5 --n-prefix 0 --repeats 1 --json out.json"
    done = subprocess.run(
        [*BENCH, "extraction", *words.split()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["max_difference"] < 1e-4
    assert found["ratio_b1"] == pytest.approx(found["ours_items_s"] / found["plain_b1_items_s"])
    peaks = found["peak_mb"]
    assert found["memory_ratio"] == pytest.approx(peaks["ours"] / peaks["plain"])
    assert "plain, batch 1" in done.stdout


def test_the_floor_counts_what_no_way_can_leave_out(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))
    bench = importlib.import_module("bench_extraction")
    from tiny_models import tiny

    from extract.verdicts import Encoded

    lm = tiny()  # embeddings of 320 x 32, an output embedding of its own
    blocks = sum(w.numel() for n, w in lm.model.named_parameters() if "layers" in n or "norm" in n)
    # 1 2 3 | 4 and 1 2 3 | 5, and 1 2 6 7 | 4 and 1 2 6 7 | 5: nine tokens once each, two prompts.
    encoded = [Encoded((1, 2, 3), ((4,), (5,))), Encoded((1, 2, 6, 7), ((4,), (5,)))]
    assert bench.least_operations(lm, encoded) == 2 * (blocks * 9 + 320 * 32 * 2)
    assert bench.least_operations(lm, [*encoded, encoded[0]]) == bench.least_operations(lm, encoded)


def test_the_texts_have_gsm8ks_lengths(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))
    made = importlib.import_module("bench_models")
    items = made.claims(200, per_question=2)
    texts = [f"{item.question} {item.choice}" for item in items]
    lengths = [len(ids) for ids in made.tokenizer(texts)(texts)["input_ids"]]
    assert 140 < np.mean(lengths) < 220
    assert np.std(lengths) > 20
    assert items[0].question == items[1].question != items[2].question


def test_shared_and_whole_prompts_have_the_same_scores(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))
    bench = importlib.import_module("bench_scoring")
    found = bench.measure(
        bench.Scoring(prompts=16, shots=8, sample=4, repeats=1, dataset="pocket/facts")
    )
    assert found["max_difference"] < 1e-4
    assert found["ratio_tokens"] > 2
    assert found["prompts"] == 16
    tokens, blocks = found["tokens_trie"], pocket_blocks()
    least = 2 * (blocks * tokens + 1024 * 128 * 16) / found["peak_gflops"] / 1e9
    assert found["floor_share"] == pytest.approx(least / found["seconds_trie"])


def pocket_blocks():
    """Weights of the pocket model but for its embeddings, which are the output's, too."""
    folder = ROOT / "extract/pocket"
    shapes = [
        w.shape for n, w in load_file(folder / "model.safetensors").items() if "embed" not in n
    ]
    return sum(int(np.prod(shape)) for shape in shapes)


def test_extraction_alone_is_timed_against_the_floor(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))
    bench = importlib.import_module("bench_extraction")
    asked = []

    def part(settings, *, prefix):
        asked.append(prefix)
        ends = {"tokens": 50, "batch": 4, "operations": 8e9, "peak_gflops": 2.0}
        return {"device": "d", "seconds": {"ours": 16.0}, "peak": {"ours": 3e6}, **ends}

    monkeypatch.setattr(bench, "part", part)
    found = bench.measure(bench.Extraction(model="pocket", n=5, alone=True))
    assert asked == [False]  # no other way, and no system prompt
    assert found["floor_share"] == pytest.approx(8e9 / 2e9 / 16)
    assert found["ours_items_s"] == pytest.approx(5 / 16)
    bench.show(found)


def test_fine_tuning_is_timed_against_a_plain_loop_and_the_floor(monkeypatch, capsys):
    pytest.importorskip("peft", reason="training needs the train extra")
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))
    bench = importlib.import_module("bench_training")
    found = bench.measure(bench.Training(model="pocket", steps=2, batch=4, repeats=1))
    assert found["weights"] == "all"
    forward = 2 * (pocket_blocks() * found["tokens"] + 1024 * 128 * 8)
    assert found["floor_s"] == pytest.approx(3 * forward / found["peak_gflops"] / 1e9)
    assert found["floor_share"] == found["six_share"]
    assert found["ratio"] == found["seconds"]["plain"] / found["seconds"]["ours"]
    bench.show(found)
    assert "plain loop" in capsys.readouterr().out
    with pytest.raises(ValueError, match="--steps 0: at least 1"):
        bench.check(bench.Training(steps=0))


def test_the_plain_loop_and_the_trainer_descend_the_same_loss(monkeypatch, random_model, tmp_path):
    pytest.importorskip("peft", reason="training needs the train extra")
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))
    bench = importlib.import_module("bench_training")
    from extract.finetune_settings import FinetuneSettings
    from extract.models import load
    from extract.verdict_data import examples_of
    from jelicit.data.items import Item
    from jelicit.data.prompts import FORMATS

    items = [Item(id=f"a{i}", choice=f"{i} is even.", label=i % 2 == 0) for i in range(4)]
    first = []
    for way in (bench.plain_loop, bench.library):
        lm = load(str(random_model), dtype="float32")
        own = FinetuneSettings(weights="all", batch_size=4, epochs=1).fitting(lm.n_parameters)
        examples = examples_of(lm, items, [1.0, 0.0, 1.0, 0.0], FORMATS["statement"])
        given = (lm.model,) if way is bench.plain_loop else (lm, lm.model)
        first.append(way(*given, examples, own)[1])  # one step: the loss before any change
    assert first[0] == pytest.approx(first[1], abs=1e-3)


def test_numbers_are_written_where_asked_and_the_place_is_told(monkeypatch, tmp_path, capsys):
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))
    common = importlib.import_module("common")
    common.write_numbers({"seconds": 1.5}, None)
    assert not list(tmp_path.iterdir())
    common.write_numbers({"seconds": 1.5}, tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text()) == {"seconds": 1.5}
    assert "numbers: " in capsys.readouterr().out
