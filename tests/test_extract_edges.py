"""Extraction at its edges: numbers that overflow, and items that are too long."""

import numpy as np
import pytest
import torch
from test_extract_cli import fact, page
from tiny_models import long_items, make_items, tiny, tokenizer

from extract.hidden_states import extract
from extract.local_scorer import LocalScorer
from extract.models import load
from extract.verdicts import encode
from jelicit.data.prompts import FORMATS, segments
from jelicit.prompting import few_shot_scores, zero_shot_scores

CLAIM = FORMATS["claim"]


def overflowing(value, *, dtype=torch.float32):
    """A tiny model whose second block writes this value into every state."""
    lm = tiny(dtype=dtype)
    with torch.no_grad():
        lm.model.model.layers[1].mlp.down_proj.weight[0] = value
    return lm


@pytest.mark.parametrize("value", [1e30, 1e25, 1e17])
def test_a_huge_finite_value_is_an_error_naming_item_and_layer(tmp_path, value):
    message = r"'item/\d': layer 2 of tiny-llama has the value [\d.]+e\+\d+, whose square"
    with pytest.raises(ValueError, match=message):
        extract(overflowing(value), make_items(3), CLAIM, tmp_path / "s", progress=False)


def test_large_activations_as_real_models_have_them_are_kept(tmp_path):
    store = extract(overflowing(1e6), make_items(3), CLAIM, tmp_path / "s", progress=False)
    assert np.abs(np.asarray(store.pairs(2).pos)).max() > 1e5


def test_a_run_that_overflowed_leaves_nothing_in_the_way_of_its_cure(tmp_path):
    with pytest.raises(ValueError, match=r"not finite in float16; load .*bfloat16 or float32"):
        extract(
            overflowing(6e4, dtype=torch.float16), make_items(3), CLAIM, tmp_path, progress=False
        )
    lm = overflowing(6e4, dtype=torch.bfloat16)
    assert extract(lm, make_items(3), CLAIM, tmp_path, progress=False).spec.dtype == "bfloat16"


def test_a_store_with_shards_is_never_removed_and_the_error_names_it(tmp_path, monkeypatch):
    lm, items, written = tiny(), make_items(6), tmp_path / "s"
    extract(lm, items, CLAIM, written, shard_size=3, progress=False)
    first = (written / "shard-00000.safetensors").read_bytes()
    (written / "shard-00001.safetensors").unlink()
    with torch.no_grad():
        lm.model.model.layers[1].mlp.down_proj.weight.fill_(float("nan"))
    with pytest.raises(ValueError, match=r"not finite in float32; no dtype is wider.*holds shards"):
        extract(lm, items, CLAIM, written, shard_size=3, progress=False)
    assert (written / "shard-00000.safetensors").read_bytes() == first


def test_a_store_that_was_killed_before_its_first_shard_does_not_refuse_other_settings(
    tmp_path, monkeypatch
):
    items = make_items(3)
    extract(tiny(), items, CLAIM, tmp_path, progress=False)
    (tmp_path / "shard-00000.safetensors").unlink()
    other = tiny(dtype=torch.bfloat16)
    assert extract(other, items, CLAIM, tmp_path, progress=False).complete


def test_items_beyond_the_context_are_left_out_when_asked_and_recorded(tmp_path):
    lm, items = tiny(), long_items()
    with pytest.raises(ValueError, match=r"item 'long'.*--skip-long"):
        extract(lm, items, CLAIM, tmp_path / "a", progress=False)
    store = extract(lm, items, CLAIM, tmp_path / "b", skip_long=True, progress=False)
    assert [item.id for item in store.items] == ["item/0", "item/1", "item/2"]
    assert store.spec.texts["left_out"] == {"longer_than_context": 1, "ids": ["long"]}
    assert fact(page(store), "left out") == "1 longer than the context: long"
    alone = extract(lm, make_items(3), CLAIM, tmp_path / "c", progress=False)
    np.testing.assert_array_equal(store.pairs(3).pos, alone.pairs(3).pos)
    with pytest.raises(ValueError, match="all 1 items are longer than the 160 tokens"):
        extract(lm, items[2:3], CLAIM, tmp_path / "d", skip_long=True, progress=False)


def test_a_scorer_shows_the_item_that_a_prompt_too_long_asks_about():
    prompts = [segments(item, CLAIM) for item in long_items()]
    with pytest.raises(ValueError, match=r"prompt 2 .*asks about: 'Question: q\\nClaim: so so"):
        LocalScorer(tiny()).score(prompts, (" True", " False"))


def test_info_shows_what_was_checked_and_how_prompts_begin(tmp_path):
    store = extract(tiny(), make_items(3), CLAIM, tmp_path / "s", progress=False)
    text = page(store, width=200)
    assert "the last is what the output embeddings read" in fact(text, "hidden states")
    assert fact(text, "begin with").startswith("<s> (")
    assert fact(text, "verdict's joint") == "3 clean"
    assert "checks" not in fact(text, "batches")


def test_healthy_ids_are_what_they_were():
    """BOS and the segments' own ids: no number of a store changes by what is recorded."""
    lm = tiny()
    (row,) = encode(lm.tokenizer, [segments(make_items(1)[0], CLAIM)], [" True"])
    text = "".join(segments(make_items(1)[0], CLAIM))
    assert list(row.prompt) == lm.tokenizer(text)["input_ids"]


def test_a_prompt_that_is_too_long_is_told_by_its_item():
    scorer = LocalScorer(tiny())
    items = long_items()
    says = r"^item 'long': its prompt has \d+ tokens .* reads at most"
    with pytest.raises(ValueError, match=says):
        zero_shot_scores(scorer, items, CLAIM)
    with pytest.raises(ValueError, match=says):
        few_shot_scores(scorer, items, make_items(4), [True, False] * 2, CLAIM, shots=1)


def test_spoilt_weights_are_told_with_the_folder_they_lie_in(tmp_path):
    tiny().model.save_pretrained(tmp_path)
    tokenizer(bos=True).save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    spoilt = bytearray(file.read_bytes())
    # The highest bits of the last number: an exponent beyond all others.
    spoilt[-2:] = b"\xc0\x7f"
    file.write_bytes(spoilt)
    lm = load(str(tmp_path), threads=1)
    with pytest.raises(ValueError, match=rf"not finite.*|{tmp_path}") as refused:
        extract(lm, make_items(3), CLAIM, tmp_path / "store", progress=False)
    assert f"({tmp_path})" in str(refused.value)
