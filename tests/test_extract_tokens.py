"""What a model reads is what its own files make of a text; what is done besides is recorded."""

import dataclasses
import json
import shutil

import pytest
from tiny_models import (
    CONFIGS,
    TRAINING_TEXT,
    make_items,
    random_weights,
    sentencepiece_like,
    tiny,
    tokenizer,
)
from tokenizers import Tokenizer, processors

from extract import tokenizer_files
from extract.hidden_states import extract
from extract.load_errors import RefusedModelError
from extract.local_scorer import LocalScorer
from extract.models import load, wrap
from extract.prompt_ids import encode_items
from extract.tokenizer_files import load_tokenizer
from extract.verdicts import check_joints, encode, joint_counts, own_prefix
from jelicit.data.items import Item
from jelicit.data.prompts import FORMATS, PromptFormat

CLAIM = FORMATS["claim"]
DIGITS = {"type": "Digits", "individual_digits": True}


@pytest.fixture
def folder(tmp_path):
    """A tiny model with a tokenizer that has 345 as one token."""
    text = [*TRAINING_TEXT, "345 345 345 345"]
    random_weights(CONFIGS["llama"]()).save_pretrained(tmp_path / "m")
    tokenizer(bos=True, text=text, vocabulary=300).save_pretrained(tmp_path / "m")
    return tmp_path / "m"


def change(path, edit):
    values = json.loads(path.read_text())
    edit(values)
    path.write_text(json.dumps(values))


def split_digits(folder, *, named="GPT2Tokenizer"):
    """tokenizer.json reads digits one by one; its config names a class that does not."""

    def rules(values):
        values["pre_tokenizer"] = {
            "type": "Sequence",
            "pretokenizers": [DIGITS, values["pre_tokenizer"]],
        }

    change(folder / "tokenizer.json", rules)
    change(folder / "tokenizer_config.json", lambda config: config.update(tokenizer_class=named))


def test_ids_are_those_of_tokenizer_json_whatever_class_is_named(folder):
    split_digits(folder)
    with pytest.warns(UserWarning, match=r"names GPT2Tokenizer.*'345 .*tokenizer\.json is taken"):
        lm = load(folder, threads=1)
    (row,) = encode(lm.tokenizer, [("so 345",)], [" True"])
    expected = Tokenizer.from_file(str(folder / "tokenizer.json")).encode("so 345").ids
    assert list(row.prompt) == expected
    assert "GPT2Tokenizer of tokenizer_config.json would change them" in lm.checks["tokenizer"]


def test_ids_that_differ_either_way_are_refused(folder, monkeypatch):
    split_digits(folder)
    monkeypatch.setattr(tokenizer_files, "PreTrainedTokenizerFast", tokenizer_files.AutoTokenizer)
    with pytest.raises(RefusedModelError, match=r"other ids than its own tokenizer\.json.*'345 "):
        load_tokenizer(str(folder))


def test_the_digest_tells_a_tokenizer_that_had_to_be_corrected(folder, tmp_path, monkeypatch):
    split_digits(folder)
    with pytest.warns(UserWarning, match="is taken"):
        corrected = load(folder, threads=1).digest
    monkeypatch.setattr(tokenizer_files, "differing", lambda *_, **__: None)
    assert load(folder, threads=1).digest != corrected


def with_prefix(tok, *tokens):
    """Has a tokenizer begin every text with these special tokens."""
    tok.add_special_tokens({"extra_special_tokens": [t for t in tokens if t != "<s>"]})
    ids = [(token, tok.convert_tokens_to_ids(token)) for token in tokens]
    tok.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=" ".join([*tokens, "$A", "</s>"]), special_tokens=[*ids, ("</s>", 1)]
    )
    return tok


def test_a_whole_prefix_is_kept_once_and_recorded(folder, tmp_path):
    tok = with_prefix(tokenizer(bos=False, vocabulary=300), "[gMASK]", "<sop>")
    tok.save_pretrained(folder)
    lm = load(folder, threads=1)
    begins = tuple(lm.tokenizer.convert_tokens_to_ids(["[gMASK]", "<sop>"]))
    rows = encode_items(lm, make_items(3), CLAIM)
    assert own_prefix(lm.tokenizer) == begins
    assert all(row.prompt[:2] == begins and not {*begins} & {*row.prompt[2:]} for row in rows)
    spec = extract(lm, make_items(3), CLAIM, tmp_path / "s", progress=False).spec
    assert spec.texts["prefix"] == {"ids": list(begins), "tokens": ["[gMASK]", "<sop>"]}
    assert spec.settings["checks"]["prompts begin with"].startswith("[gMASK] <sop>")
    assert "</s>" not in spec.texts["prefix"]["tokens"]


def test_a_bos_that_is_set_but_not_added_is_told():
    told = tiny(bos=False).checks["prompts begin with"]
    assert told == "nothing (it has the BOS token '<s>', but does not add it)"
    assert tiny(bos=True).checks["prompts begin with"] == "<s>"


# --- control tokens, segments --------------------------------------------------------------------


def test_control_tokens_of_a_format_are_named_as_spelled_in_letters(tmp_path):
    lm = tiny()
    chat = dataclasses.replace(CLAIM, name="chat", system="<s>You judge claims.</s>")
    with pytest.warns(UserWarning, match=r"'chat' has </s>, <s>: control tokens .* letters"):
        store = extract(lm, make_items(2), chat, tmp_path / "a", progress=False)
    assert store.spec.texts["control_tokens_in_letters"] == ["</s>", "<s>"]
    plain = extract(lm, make_items(2), CLAIM, tmp_path / "b", progress=False)
    assert plain.spec.texts["control_tokens_in_letters"] == []


def test_prompts_with_other_tokens_than_their_text_in_one_piece_are_counted(tmp_path):
    model = random_weights(CONFIGS["llama"](), seed=0)
    model.resize_token_embeddings(400)
    spaced = wrap(model, sentencepiece_like(), name="m", threads=1)
    system = dataclasses.replace(CLAIM, name="s", system="the sum is")
    for number, (lm, expected) in enumerate(((spaced, 3), (tiny(), 0))):
        store = extract(lm, make_items(3), system, tmp_path / str(number), progress=False)
        assert store.spec.texts["apart_from_the_whole_text"] == expected


# --- joints --------------------------------------------------------------------------------------


def joints(tok, prompts, word):
    return joint_counts(encode(tok, [(prompt,) for prompt in prompts], [word]))


def test_joints_are_told_apart():
    tok, pieces = tokenizer(bos=True), sentencepiece_like()
    assert joints(tok, ["claim is"], " True") == {"clean": 1}
    assert joints(tok, ["claim is "], "True") == {"after a space": 1}
    # "w" + "as": the word "was" is one token, so it is neither word's.
    assert joints(tok, ["the sum w", "claim is."], "as") == {"clean": 1, "merged": 1}
    assert joints(pieces, ["claim is"], " True") == {"clean": 1}
    assert joints(pieces, ["claim is "], "True") == {"doubled": 1}


def test_verdicts_that_merge_are_refused_from_a_share_on(tmp_path):
    glued = PromptFormat(name="glued", text="{choice}", true_word="as", false_word="so")
    items = [Item(id=f"i{n}", choice="the sum w" if n < 1 else "sum.") for n in range(21)]
    lm = tiny()
    store = extract(lm, items, glued, tmp_path / "few", progress=False)
    assert store.spec.texts["joints"] == {"clean": 20, "merged": 1}
    with pytest.raises(ValueError, match=r"for 1 of 20 the verdict would be one word with the la"):
        extract(lm, items[:20], glued, tmp_path / "many", progress=False)
    assert not (tmp_path / "many").exists()
    with pytest.raises(ValueError, match="one word"):
        LocalScorer(lm, match="tokens").score([("the sum w",)], ("as", "so"))


def test_the_papers_template_that_ends_in_a_space_is_read_and_doubled_spaces_are_refused(tmp_path):
    form = FORMATS["claim_icm"]
    store = extract(tiny(), make_items(3), form, tmp_path / "s", progress=False)
    assert store.spec.texts["joints"] == {"after a space": 3}
    rows = encode(sentencepiece_like(), [("claim is ",)] * 3, ["True", "False"])
    with pytest.raises(ValueError, match="for 3 of 3 this tokenizer puts a second space before it"):
        check_joints(rows, ["True", "False"])


# --- ids and texts that cannot be read -----------------------------------------------------------


def test_a_token_beyond_the_embedding_is_named_at_load(folder):
    tok = tokenizer(bos=True)
    tok.add_tokens([*(f"word{n}" for n in range(320 - len(tok))), "zebra"])
    tok.save_pretrained(folder)
    with pytest.raises(RefusedModelError, match=r"'zebra' with id 320.* was not resized"):
        load(folder, threads=1)


def test_a_control_token_beyond_the_embedding_is_never_read_and_so_allowed(folder):
    tok = tokenizer(bos=True)
    assert len(tok) <= 320
    tok.add_tokens([f"word{n}" for n in range(320 - len(tok))])
    tok.add_special_tokens({"pad_token": "[PAD]"})
    assert tok.pad_token_id == 320
    tok.save_pretrained(folder)
    lm = load(folder, threads=1)
    assert "1 control tokens without an embedding" in lm.checks["vocabulary"]
    (row,) = encode(lm.tokenizer, [("so [PAD]",)], [" True"])
    assert max(row.prompt) < 320


def test_half_a_character_is_one_line_that_names_the_item(tmp_path):
    bad = Item(id="bad", question="w", choice="whole")
    object.__setattr__(bad, "choice", "cut \ud83d here")  # items themselves refuse it
    items = [Item(id="good", choice="so"), bad]
    form = dataclasses.replace(FORMATS["statement"], name="s")
    with pytest.raises(ValueError, match=r"item 'bad': half a character.*\\ud83d"):
        extract(tiny(), items, form, tmp_path / "s", progress=False)
    assert not (tmp_path / "s").exists()
    with pytest.raises(ValueError, match="half a character"):
        LocalScorer(tiny()).score([("cut \ud83d",)], (" True", " False"))


def test_a_folder_without_tokenizer_json_says_that_nothing_was_compared(folder, monkeypatch):
    assert "as of tokenizer.json" in load_tokenizer(str(folder)).said
    monkeypatch.setattr(tokenizer_files, "file_of", lambda *_: None)
    assert load_tokenizer(str(folder)).said == "no tokenizer.json to compare with"
    shutil.rmtree(folder)
