"""Hidden states of texts after the verdict, against a plain forward pass over the whole text."""

import hashlib
import io
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from experiment_scripts import planned
from rich.console import Console
from test_chat import chatty
from tiny_models import CONFIGS, make_items, random_weights, sentencepiece_like, tiny
from tokenizers import Tokenizer, models, trainers
from transformers import PreTrainedTokenizerFast

from extract import opened
from extract.chat import rendered
from extract.hidden_states import extract
from extract.info import show
from extract.models import LanguageModel, wrap
from extract.passes import longest
from extract.prompt_ids import encode_items
from extract.verdicts import Encoded, encode, with_after
from jelicit.data.features import add_feature
from jelicit.data.items import digest
from jelicit.data.prompts import FORMATS, after_verdict, contrast_pair, segments
from jelicit.studies import salience

CLAIM = FORMATS["claim"]
LAYERS = (1, 3)


def worded(n=6):
    """Items with random words; the last has none."""
    items = make_items(n)
    return [*add_feature(items[:-1], "random_words", seed=0), items[-1]]


@torch.inference_mode()
def states_of(lm: LanguageModel, text: str, *, special=True) -> dict[int, np.ndarray]:
    """The states at the last token of a text in one piece."""
    ids = torch.tensor([lm.tokenizer(text, add_special_tokens=special)["input_ids"]])
    hidden = lm.model(ids, output_hidden_states=True).hidden_states
    return {layer: hidden[layer][0, -1].numpy() for layer in LAYERS}


@pytest.mark.parametrize(
    ("kind", "method"), [("llama", "shared"), ("llama", "separate"), ("mamba", "separate")]
)
def test_states_are_those_of_the_whole_texts_last_token(tmp_path, kind, method):
    lm, items = tiny(kind), worded()
    options = {"layers": LAYERS, "method": method, "progress": False}
    store = extract(lm, items, CLAIM, tmp_path / "words", **options)
    for layer in LAYERS:
        pairs = store.pairs(layer)
        for row, item in enumerate(items):
            for side, text in zip((pairs.pos, pairs.neg), contrast_pair(item, CLAIM), strict=True):
                expected = states_of(lm, text)[layer]
                np.testing.assert_allclose(np.asarray(side)[row], expected, atol=1e-4)
    # The verdict stands before the word, so what the model says of it knows nothing of the word.
    plain = extract(lm, make_items(6), CLAIM, tmp_path / "plain", **options)
    np.testing.assert_allclose(store.log_probs, plain.log_probs, atol=1e-5)
    apart = np.abs(np.asarray(store.pairs(1).pos) - np.asarray(plain.pairs(1).pos)).max(1)
    assert (apart[:-1] > 0.1).all()
    assert apart[-1] < 1e-4


def test_in_a_chat_template_the_text_goes_on_with_the_answer(tmp_path):
    lm = wrap(random_weights(CONFIGS["llama"]()), chatty(), name="m", threads=1, chat=True)
    items = worded(3)
    assert lm.chat is not None
    store = extract(lm, items, CLAIM, tmp_path / "s", layers=LAYERS, progress=False)
    pos = np.asarray(store.pairs(3).pos)
    for row, item in enumerate(items):
        text = rendered(lm.tokenizer, lm.chat, segments(item, CLAIM)) + "True" + after_verdict(item)
        np.testing.assert_allclose(pos[row], states_of(lm, text, special=False)[3], atol=1e-4)


def test_a_store_without_such_texts_is_the_one_it_was(tmp_path):
    """Numbers of the code that knew none: stores are found again by them."""
    made = {
        "none": ("817cef30015f4cbd", "a43e11112f444893"),
        "sycophancy": ("25691c2d6a1317c3", "f32e93af75041b0b"),
        "punctuation": ("4c051c1214d6f9b4", "0c7c5762bb98f142"),
        "tense": ("6e0f8c213de7ec98", "74065c959a74b0fb"),
    }
    for name, (of_items, of_store) in made.items():
        items = add_feature(make_items(), name, seed=0)
        out = tmp_path / name
        spec = extract(tiny(), items, CLAIM, out, layers=(1,), progress=False).spec
        kept = [
            spec.item_digest,
            spec.texts,
            spec.shards,
            spec.batch_plan,
            spec.prompt_format,
            sorted(spec.settings),
        ]
        told = hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()
        assert (digest(items)[:16], told[:16]) == (of_items, of_store)


def test_a_store_with_such_texts_is_no_other_and_says_so(tmp_path):
    items = worded()
    store = extract(tiny(), items, CLAIM, tmp_path / "s", layers=(1,), progress=False)
    without = [replace(item, meta={"features": item.meta.get("features", [])}) for item in items]
    assert store.spec.item_digest != digest(without)
    with pytest.raises(ValueError, match="item_digest"):
        extract(tiny(), without, CLAIM, tmp_path / "s", layers=(1,), progress=False)
    told = store.spec.texts["after_verdict"]
    assert (told["items"], told["texts"]) == (5, [". Banana", ". Shed"])
    assert told["byte_share"] == 1.0  # the tiny tokenizer knows neither word
    console = Console(width=200, file=io.StringIO(), color_system=None)
    show(store, console)
    assert isinstance(console.file, io.StringIO)
    line = "5 items have a text, at whose end states are read: '. Banana', '. Shed'"
    assert line in console.file.getvalue()


def test_the_text_counts_towards_the_models_context():
    lm, items = tiny(), worded(3)
    rows, plain = encode_items(lm, items, CLAIM), encode_items(lm, make_items(3), CLAIM)
    for item, row, short in zip(items, rows, plain, strict=True):
        ids = lm.tokenizer(contrast_pair(item, CLAIM)[1])["input_ids"]
        assert longest(row) == len(ids)
        assert list(row.prompt + row.branches[1]) == ids
        assert (row.prompt, row.verdicts) == (short.prompt, short.verdicts)
    assert longest(rows[0]) > longest(plain[0])


def test_sentencepieces_own_space_does_not_come_between():
    llama2, words = sentencepiece_like(), (" True", " False")
    rows = with_after(llama2, encode(llama2, [("is it",)], words), [". Shed"], words)
    for branch, word in zip(rows[0].branches, words, strict=True):
        whole = llama2(f"is it{word}. Shed")["input_ids"]
        assert list(rows[0].prompt + branch) == whole


def test_a_text_that_is_one_token_with_the_verdict_is_refused():
    made = Tokenizer(models.BPE())
    made.train_from_iterator(
        ["so True.", "so False."] * 3, trainers.BpeTrainer(vocab_size=60, show_progress=False)
    )
    glued = PreTrainedTokenizerFast(tokenizer_object=made)
    words = (" True", " False")
    rows = encode(glued, [("so",)], words)
    assert with_after(glued, rows, [""], words) == rows
    with pytest.raises(
        ValueError, match=r"the text '\.' after the verdicts ' True', ' False' adds"
    ):
        with_after(glued, rows, ["."], words)
    assert Encoded((1,), ((2,), (3, 4)), after=((5,), (5, 6))).branches == ((2, 5), (3, 4, 5, 6))


def test_studies_take_them_by_name_and_keep_their_stores_apart(tmp_path, monkeypatch):
    folders: list[str] = []
    monkeypatch.setattr(
        opened, "extract", lambda lm, items, form, folder, **rest: folders.append(folder)
    )
    model = opened.OpenedModel(tiny, "stores")
    settings = salience.Settings(
        dataset=("pocket/arithmetic",),
        features=("none", "random_words", "alice"),
        format=("claim", "literal"),
        max_rows=40,
    )
    in_formats = planned(salience.STUDY, settings, tmp_path)
    situations = [each for plan in in_formats for each in plan.situations]
    assert [each.feature for each in situations] == ["none", "random_words", "alice"] * 2
    for each in situations:
        words = {after_verdict(item) for item in each.test}
        assert words == ({". Banana", ". Shed"} if each.feature == "random_words" else {""})
        model.store("arithmetic", each.train, each.format, (1,))
    assert len(set(folders)) == 6
