"""The weights that ship with the package: they load as they are, and know what they should."""

import dataclasses
import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the shipped model is read by the extract extra")

import jax.numpy as jnp  # noqa: E402
from flax import nnx  # noqa: E402
from safetensors.numpy import load_file  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402

import extract as package  # noqa: E402
from extract.hidden_states import extract  # noqa: E402
from extract.models import load  # noqa: E402
from extract.pocket_tokenizer import encoder  # noqa: E402
from jelicit.data.items import labels  # noqa: E402
from jelicit.data.prompts import FORMATS  # noqa: E402
from jelicit.pocket.card import mean_of_aims, missed, seeds_of, situations  # noqa: E402
from jelicit.pocket.curriculum import pretraining_config  # noqa: E402
from jelicit.pocket.evaluate import DEFAULT_FORMAT, RIVALS, label_reading  # noqa: E402
from jelicit.pocket.model import (  # noqa: E402
    PocketLM,
    build,
    config_from_llama,
    from_llama_state_dict,
    param_count,
    read_model,
)
from jelicit.pocket.reading import BLOCKS, reading_config  # noqa: E402
from jelicit.pocket.train import last_token_logits  # noqa: E402
from jelicit.pocket.world import dataset_items  # noqa: E402

FOLDER = Path(package.__file__).parent / "pocket"
REAL = Path(__file__).resolve().parents[2] / "shared" / "data" / "larger_than"


@pytest.fixture(scope="module")
def lm():
    return load("pocket", threads=1)


def zero_shot(lm, items, format_name: str, folder: Path) -> float:
    store = extract(lm, items, FORMATS[format_name], folder, layers=(1,), progress=False)
    says_true = store.log_probs[:, 0] > store.log_probs[:, 1]
    return float(np.mean(says_true == (labels(items) == 1)))


def test_size_and_heads_suit_a_package_and_a_model_server(lm):
    assert sum(f.stat().st_size for f in FOLDER.iterdir()) <= 10 * 2**20
    config = json.loads((FOLDER / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["hidden_size"] // config["num_attention_heads"] >= 32
    assert lm.trained_length == config["trained_length"] >= 128


def test_it_is_the_flax_model(lm):
    fields = json.loads((FOLDER / "config.json").read_text(encoding="utf-8"))
    config = config_from_llama(fields)
    model = build(config, from_llama_state_dict(load_file(FOLDER / "model.safetensors"), config))
    ids = np.array([lm.tokenizer("Question: What is 7 + 5?\nClaim: 7 + 5 = 12").input_ids])
    with torch.no_grad():
        theirs = lm.model(torch.tensor(ids)).logits.numpy()
    np.testing.assert_allclose(np.asarray(model(jnp.asarray(ids))), theirs, atol=1e-4)


@pytest.mark.parametrize("kind", ["arithmetic", "larger_than", "comments"])
def test_it_answers_held_out_questions(lm, kind, tmp_path):
    items = dataset_items(kind, "test")
    assert zero_shot(lm, items, DEFAULT_FORMAT[kind], tmp_path / "store") >= 0.90


@pytest.mark.parametrize("kind", ["arithmetic", "facts"])
def test_the_card_is_of_these_weights(lm, kind, tmp_path):
    card = json.loads((FOLDER / "card.json").read_text(encoding="utf-8"))
    [items] = [s.test for s in situations() if (s.dataset, s.feature) == (kind, "none")]
    measured = zero_shot(lm, items, DEFAULT_FORMAT[kind], tmp_path / "store")
    assert card["zero_shot_accuracy"][kind] == pytest.approx(measured, abs=1e-4)
    assert (FOLDER / "README.md").read_text(encoding="utf-8").count(f"{measured:.2f}") >= 1


def test_it_is_the_middle_of_three_seeds_and_neither_it_nor_their_median_misses_an_aim():
    found = json.loads((FOLDER / "card.json").read_text(encoding="utf-8"))
    seeds = seeds_of(found, found["seeds"][1:])
    assert sorted(seed["seed"] for seed in seeds) == [0, 1, 2]
    assert mean_of_aims(found) == sorted(map(mean_of_aims, seeds))[1]
    assert missed(found) == missed(*seeds) == []


def test_the_pretraining_command_would_train_it_again():
    written = json.loads((FOLDER / "pretraining.json").read_text(encoding="utf-8"))
    fields = json.loads((FOLDER / "config.json").read_text(encoding="utf-8"))
    config = pretraining_config(written["size"], seed=written["seed"], marks=written["marks"])
    assert written["settings"] == json.loads(json.dumps(dataclasses.asdict(config)))
    assert written["parameters"] == param_count(config.model)
    # The second part: blocks on top of that model, which is known by its digest alone.
    read = written["reading"]
    reader = dataclasses.replace(
        reading_config(PocketLM(config.model, rngs=nnx.Rngs(0)), seed=read["seed"]),
        base=read["settings"]["base"],
    )
    assert read["settings"] == json.loads(json.dumps(dataclasses.asdict(reader)))
    assert read["parameters"] == param_count(reader.model)
    assert fields["num_hidden_layers"] == reader.model.n_layers == config.model.n_layers + BLOCKS
    phases = (*config.phases, *reader.phases)
    assert fields["trained_length"] == max(phase.corpus.length for phase in phases)


@pytest.mark.parametrize("rival", RIVALS)
def test_it_reads_the_labels_of_sixteen_examples(rival):
    logits = partial(last_token_logits, read_model(FOLDER))
    encode = encoder(Tokenizer.from_file(str(FOLDER / "tokenizer.json")))
    assert label_reading(logits, encode, rival, shots=16, n=20) >= 0.85


@pytest.mark.skipif(not REAL.is_dir(), reason="the real larger_than is not beside the project")
def test_it_answers_the_real_larger_than(lm, tmp_path):
    from jelicit.data.datasets import load_dataset

    items = load_dataset(REAL).test
    assert zero_shot(lm, list(items), "claim", tmp_path / "store") >= 0.90


def test_an_unknown_size_is_refused_before_anything_is_trained(tmp_path):
    command = [sys.executable, str(FOLDER.parents[1] / "experiments/pretrain_pocket.py")]
    done = subprocess.run(
        [*command, "--sizes", "huge"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "error: --sizes huge is unknown; known: small, middle, large" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("base", "message"),
    [
        ("nowhere", "no pocket model is there (pretraining.json)"),
        (str(FOLDER), "this model reads labels already; give the one below it"),
    ],
)
def test_a_base_that_is_none_is_refused_before_anything_is_trained(tmp_path, base, message):
    command = [sys.executable, str(FOLDER.parents[1] / "experiments/pretrain_pocket.py")]
    done = subprocess.run(
        [*command, "--base", base], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert f"error: --base {base}: {message}" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
