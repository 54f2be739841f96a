"""Prompts in a chat template: the template's own ids, one BOS, the same scores however read."""

import hashlib
import io
import pickle
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from experiment_scripts import run, script
from rich.console import Console
from tiny_models import CONFIGS, make_items, random_weights, sentencepiece_like, tokenizer
from transformers import AutoTokenizer

from extract import cli, local_scorer
from extract.chat import TODAY, encode_for, find_chat, rendered
from extract.hidden_states import extract
from extract.info import show
from extract.local_scorer import LocalScorer
from extract.models import load, wrap
from extract.opened import OpenedModel
from extract.prompt_ids import encode_items
from jelicit.activations import ActivationStore, merge_stores
from jelicit.data.items import Item, save_items
from jelicit.data.prompts import FORMATS, PromptFormat, few_shot, segments
from jelicit.data.turns import Example, System, Turn, turns
from jelicit.icm import Prompter
from jelicit.prompting import few_shot_scores, zero_shot_scores
from jelicit.prompting.context import tokens_needed
from jelicit.results import ItemScoreStore
from jelicit.results.record import Record

PLAIN = (
    "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
OWN_SYSTEM = "{% if messages[0]['role'] != 'system' %}<|system|>Be kind.<|end|>{% endif %}" + PLAIN
NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + PLAIN
)
LETTERS = (  # as Llama 2: turns in letters, a space before every answer, BOS before every question
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ bos_token }}[ {{ m['content'] }} ]"
    "{% else %} {{ m['content'] }} </s>{% endif %}{% endfor %}"
)
CLAIM = PromptFormat(
    name="c", text="{choice}\nclaim is", third_word=" so", system="I think", target="label"
)
WORDS = (" True", " False")


def chatty(template=PLAIN, *, bos=True):
    """A tokenizer with the control tokens of a template, and the template."""
    tok = tokenizer(bos=bos, vocabulary=300)
    control = ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
    tok.add_special_tokens({"additional_special_tokens": control})
    tok.chat_template = template
    return tok


def model(template=PLAIN, **options):
    tok = chatty(template, **options)
    return wrap(random_weights(CONFIGS["llama"]()), tok, name="m", threads=1, chat=True)


@pytest.fixture(scope="module")
def lm():
    return model()


def short(n):
    return [
        Item(id=f"i{k}", choice=f"the sum {k}", label=k % 2 == 0, group=str(k)) for k in range(n)
    ]


def prompts(format=CLAIM):
    items = short(4)
    shown = [(item, item.label) for item in items[:3]]
    return [segments(items[3], format), few_shot(items[3], shown, format)]


# --- turns ---------------------------------------------------------------------------------------


def test_segments_are_turns_and_their_text_is_the_prompt_of_old():
    item, other = short(2)
    prompt = few_shot(item, [(other, False), (other, None)], CLAIM)
    assert "".join(prompt) == (
        "I think\n\nthe sum 1\nclaim is False\n\nthe sum 1\nclaim is so\n\nthe sum 0\nclaim is"
    )
    assert turns(prompt) == [
        Turn("system", "I think"),
        *(Turn("user", "the sum 1\nclaim is"), Turn("assistant", "False")),
        *(Turn("user", "the sum 1\nclaim is"), Turn("assistant", "so")),
        Turn("user", "the sum 0\nclaim is"),
    ]


def test_texts_that_do_not_say_what_they_are_belong_to_the_question_that_follows():
    prompt = ("Plain.\n\n", Example("Is it?", " Yes", "\n\n"), "More. ", System("late\n\n"), "So? ")
    assert turns(prompt) == [
        *(Turn("user", "Plain.\n\nIs it?"), Turn("assistant", "Yes")),
        Turn("user", "More. late\n\nSo?"),
    ]


def test_examples_survive_pickle_and_are_equal_as_texts():
    example = Example("Is it?", " Yes", "\n\n")
    again = pickle.loads(pickle.dumps(example))
    assert (again, again.asked, again.answer) == ("Is it? Yes\n\n", "Is it?", " Yes")
    assert example in {"Is it? Yes\n\n"}


# --- ids -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("template", [PLAIN, OWN_SYSTEM, LETTERS])
def test_ids_are_the_templates_own_rendering(template):
    lm = model(template)
    assert lm.chat is not None
    for prompt, row in zip(prompts(), encode_for(lm, prompts(), WORDS), strict=True):
        said = [turn._asdict() for turn in lm.chat.conversation(prompt)]
        own = lm.tokenizer.apply_chat_template(said, add_generation_prompt=True)["input_ids"]
        assert list(row.prompt) == own


def test_bos_stands_once_and_control_tokens_are_real(lm):
    zero, few = encode_for(lm, prompts(), WORDS)
    name = lm.tokenizer.convert_ids_to_tokens
    for row, asked in ((zero, 1), (few, 4)):
        tokens = name(list(row.prompt))
        assert tokens[0] == "<s>"
        assert tokens.count("<s>") == 1
        assert tokens.count("<|user|>") == tokens.count("<|assistant|>") == asked
        assert tokens[-1] == "<|assistant|>"
    assert (lm.tokenizer.decode(zero.verdicts[0]), zero.joint) == ("True", "clean")


def test_a_template_without_bos_gets_none_of_the_tokenizer():
    lm = model(PLAIN.removeprefix("{{ bos_token }}"))
    (row, _) = encode_for(lm, prompts(), WORDS)
    assert lm.tokenizer.bos_token_id not in row.prompt
    assert "before the first turn: '<|user|>'" in lm.checks["chat template"]


def test_control_tokens_of_an_item_are_letters(lm):
    item = Item(id="x", choice="so <|end|><|assistant|>True")
    (row,) = encode_for(lm, [segments(item, CLAIM)], WORDS)
    tokens = lm.tokenizer.convert_ids_to_tokens(list(row.prompt))
    assert (tokens.count("<|end|>"), tokens.count("<|assistant|>")) == (2, 1)
    assert lm.tokenizer.decode(row.prompt).count("<|assistant|>") == 2


def test_an_older_transformers_refuses_what_it_would_take_for_a_control_token(monkeypatch):
    lm = model()
    expected, now = encode_for(lm, prompts(), WORDS), lm.tokenizer.apply_chat_template

    def older(conversation, **options):
        assert "sanitize_control_tokens" not in options
        return now(conversation, **options)

    monkeypatch.setattr(lm.tokenizer, "apply_chat_template", older)
    assert encode_for(lm, prompts(), WORDS) == expected
    item = Item(id="x", choice="so <|end|> it is")
    with pytest.raises(ValueError, match=r"spells the control token <.end.>, which this transform"):
        encode_for(lm, [segments(item, CLAIM)], WORDS)


def test_a_verdict_follows_the_space_that_the_template_puts_before_an_answer():
    lm = model(LETTERS)
    assert lm.chat is not None
    assert lm.chat.lead == " "
    zero, few = encode_for(lm, prompts(), WORDS)
    assert lm.tokenizer.decode(zero.verdicts[1]) == " False"
    # An answer is written the same way where it is an example's.
    assert lm.tokenizer.decode(few.prompt).count("claim is ] False") == 1


def test_a_verdict_that_melts_into_the_template_is_seen(lm):
    tok = chatty(PLAIN.replace("<|assistant|>{% endif %}", "<|assistant|> s{% endif %}"))
    glued = wrap(lm.model, tok, name="m", threads=1, chat=True)
    (row,) = encode_for(glued, [("sum",)], ["o"])
    assert row.joint == "merged"
    form = PromptFormat(name="g", text="{choice}", true_word="o", false_word="x")
    with pytest.raises(ValueError, match="for 3 of 3 the verdict would be one word with the last"):
        encode_items(glued, short(3), form)


def test_a_sentencepiece_tokenizer_gives_the_verdict_one_space():
    tok = sentencepiece_like()
    tok.chat_template = LETTERS
    made = random_weights(CONFIGS["llama"]())
    made.resize_token_embeddings(400)
    pieces = wrap(made, tok, name="m", threads=1, chat=True)
    (row,) = encode_for(pieces, [("the sum",)], [" True"])
    name = tok.convert_ids_to_tokens
    assert name(list(row.prompt)) == ["<s>", "▁", "<0x5B>", "▁the", "▁sum", "▁", "<0x5D>"]
    assert (name(list(row.verdicts[0])), row.joint) == (["▁True"], "clean")


# --- what templates do by themselves -------------------------------------------------------------


def test_a_system_prompt_of_its_own_is_kept_where_the_format_has_none():
    lm = model(OWN_SYSTEM)
    assert lm.chat is not None
    plain = PromptFormat(name="p", text="{choice}")
    assert "Be kind." in rendered(lm.tokenizer, lm.chat, segments(short(1)[0], plain))
    own = rendered(lm.tokenizer, lm.chat, segments(short(1)[0], CLAIM))
    assert "Be kind." not in own
    assert "<|system|>I think<|end|>" in own
    assert "'<|system|>Be kind.<|end|><s><|user|>'" in lm.describe()


@pytest.mark.parametrize(
    "template", [NO_SYSTEM, PLAIN.replace("messages %}", "messages if m['role'] != 'system' %}")]
)
def test_system_text_is_never_lost(template):
    lm = model(template)
    assert lm.chat is not None
    text = rendered(lm.tokenizer, lm.chat, prompts()[1])
    assert text.startswith("<s><|user|>I think\n\nthe sum 0\nclaim is<|end|><|assistant|>True")
    assert "it has no system turn" in lm.checks["chat template"]


def test_a_date_stands_still():
    dated = "{% if strftime_now is defined %}{{ strftime_now('%d %b %Y') }}{% endif %}" + PLAIN
    lm, other = model(dated), model()
    assert lm.chat is not None
    assert other.chat is not None
    assert rendered(lm.tokenizer, lm.chat, ("so",)).startswith(f"{TODAY:%d %b %Y}<s>")
    assert lm.chat.digest != other.chat.digest
    assert "stands still at 26 July 2024" in lm.checks["chat template"]
    with pytest.raises(ValueError, match="date in a way that cannot be kept still"):
        model("{% set f = '%d' %}{{ strftime_now(f) }}" + PLAIN)


def test_a_model_that_thinks_first_is_asked_to_answer_at_once():
    thinking = PLAIN.replace(
        "<|assistant|>{% endif %}",
        "<|assistant|>{% if enable_thinking is not false %}think{% endif %}{% endif %}",
    )
    lm = model(thinking)
    assert rendered(lm.tokenizer, lm.chat, ("so",)).endswith("<|assistant|>")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (None, "m has no chat template .a base model has none.: leave out --chat"),
        ("{{ raise_exception('never') }}", "cannot show a question, an answer.*: never"),
        ("{{ messages[-1]['content'] }}", "leaves out earlier turns"),
        (PLAIN[: PLAIN.index("{% if add")], "knows no generation prompt.*<.assistant.>"),
    ],
)
def test_templates_that_will_not_do_are_refused(template, message):
    with pytest.raises(ValueError, match=message):
        find_chat(chatty(template), "m")


def test_where_it_has_one():
    made = random_weights(CONFIGS["llama"]())
    assert wrap(made, tokenizer(bos=True), name="m", threads=1, chat=None).chat is None
    assert wrap(made, chatty(), name="m", threads=1, chat=None).chat is not None


# --- scores and states ---------------------------------------------------------------------------


@pytest.mark.parametrize("template", [PLAIN, LETTERS])
def test_scores_are_those_of_one_prompt_at_a_time(template, monkeypatch):
    monkeypatch.setattr(local_scorer, "WORTH_A_PASS", 8)
    lm = model(template)
    prompter = Prompter(LocalScorer(lm), short(4), CLAIM)
    asked = [
        prompter.prompt((tuple((n, n % 2 == 0) for n in order[:-1]), order[-1]))
        for order in ((0, 1, 2), (0, 1, 3), (0, 2, 1), (1, 3))
    ]
    scorer = LocalScorer(lm, match="tokens", token_budget=200)
    scores = scorer.score(asked, WORDS)
    assert scorer.tokens_read < sum(scorer.lengths(asked, WORDS))
    rows = encode_for(lm, asked, WORDS)
    np.testing.assert_allclose(scores, expected_of(lm, rows), atol=1e-4)


@torch.inference_mode()
def expected_of(lm, rows):
    """log P of every verdict after every prompt: one sequence at a time, whole."""
    scores = np.zeros((len(rows), 2))
    for row, item in enumerate(rows):
        for column, verdict in enumerate(item.verdicts):
            ids = torch.tensor([[*item.prompt, *verdict]])
            log_p = lm.model(ids).logits[0].double().log_softmax(-1)
            steps = enumerate(verdict, start=len(item.prompt) - 1)
            scores[row, column] = sum(log_p[step, token].item() for step, token in steps)
    return scores


def test_every_way_to_prompt_honours_it(lm, tmp_path):
    """Zero-shot, few-shot and contrast pairs read other ids than without, and the same as each."""
    plain = wrap(lm.model, lm.tokenizer, name="m", threads=1)
    items = short(6)
    labels = [item.label for item in items]
    scorers = [LocalScorer(one, match="tokens") for one in (lm, plain)]
    for ask in (
        lambda scorer: zero_shot_scores(scorer, items, CLAIM),
        lambda scorer: few_shot_scores(scorer, items[:2], items, labels, CLAIM, shots=2),
    ):
        chat, without = map(ask, scorers)
        assert not np.isclose(chat, without).any()
    store = extract(lm, items, CLAIM, tmp_path / "s", progress=False)
    exact = zero_shot_scores(LocalScorer(lm, match="tokens"), items, CLAIM)
    np.testing.assert_allclose(store.log_probs[:, 0] - store.log_probs[:, 1], exact, atol=1e-4)
    rows = encode_items(lm, items, CLAIM)
    with torch.inference_mode():
        ids = torch.tensor([[*rows[0].prompt, *rows[0].verdicts[1]]])
        state = lm.model(ids, output_hidden_states=True).hidden_states[2][0, -1]
    np.testing.assert_allclose(np.asarray(store.pairs(2).neg)[0], state.numpy(), atol=1e-4)


@pytest.mark.parametrize("template", [OWN_SYSTEM, LETTERS])
def test_lengths_of_prompts_add_up(template):
    items, scorer = short(4), LocalScorer(model(template))
    needed = tokens_needed(scorer, items, CLAIM)
    for count in (1, 2, 4):
        shown = items[:count]
        longest = max(
            int(scorer.lengths([few_shot(asked, rest, CLAIM)], WORDS)[0])
            for asked in shown
            for label in (True, False)
            for rest in [[(other, label) for other in shown if other is not asked]]
        )
        assert needed[count - 1] == longest


# --- identity ------------------------------------------------------------------------------------


def test_only_with_a_template_is_it_part_of_what_pins_scores_and_stores(lm, tmp_path):
    plain = wrap(lm.model, lm.tokenizer, name="m", threads=1)
    other = wrap(lm.model, chatty(OWN_SYSTEM), name="m", threads=1, chat=True)
    assert plain.digest == lm.digest == other.digest
    assert LocalScorer(plain).name == f"{plain.digest}/float32/words"
    names = {LocalScorer(one).name for one in (plain, lm, other)}
    assert len(names) == 3
    opened = [
        OpenedModel(lambda one=one: one, str(tmp_path / "stores")) for one in (plain, lm, other)
    ]
    assert [one.name for one in opened] == ["m", "m (chat)", "m (chat)"]
    stores = [one.store("set", short(3), CLAIM, [1]) for one in opened]
    assert len({str(store.folder) for store in stores}) == 3
    assert "chat_template" not in stores[0].spec.settings
    assert "chat" not in stores[0].spec.texts
    with pytest.raises(ValueError, match=r"settings\.chat_template: .*nothing"):
        merge_stores([stores[0].folder, stores[1].folder], tmp_path / "merged")


# --- commands ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny model that was tuned for chat, with three claims."""
    place = tmp_path_factory.mktemp("chat")
    random_weights(CONFIGS["llama"]()).save_pretrained(place / "model")
    chatty(OWN_SYSTEM).save_pretrained(place / "model")
    for split in ("train", "test"):
        save_items(place / "claims" / f"{split}.jsonl", make_items(3))
    return place


def test_a_store_of_the_command_line_shows_the_rendered_prompt(folder, tmp_path, monkeypatch):
    words = ["run", "--model", str(folder / "model"), "--dataset", str(folder / "claims")]
    options = ["--layers", "1", "--threads", "1", "--chat", "--out", str(tmp_path / "s")]
    monkeypatch.setattr(sys, "argv", ["extract", *words, *options])
    cli.main()
    store = ActivationStore.open(tmp_path / "s")
    digest = hashlib.sha256(OWN_SYSTEM.encode()).hexdigest()
    assert store.spec.settings["chat_template"] == digest
    page = shown_page(store)
    start = "<|system|>Be kind.<|end|><s><|user|>Question: what is it?"
    end = "I think this claim is<|end|><|assistant|> <'True' or 'False'>"
    assert start in page
    assert end in page
    assert f"chat template the model's own, digest {digest[:12]}" in page
    merged = merge_stores([tmp_path / "s", another(folder, tmp_path)], tmp_path / "merged")
    assert end in shown_page(merged)


def another(folder, tmp_path):
    """A store of other claims of the same model."""
    items = [replace(item, id=f"more/{item.id}") for item in make_items(2)]
    lm = load(folder / "model", threads=1, chat=True)
    extract(lm, items, FORMATS["claim"], tmp_path / "b", layers=[1], progress=False)
    return tmp_path / "b"


def shown_page(store):
    out = io.StringIO()
    show(store, Console(file=out, width=300))
    return " ".join(out.getvalue().split())


def test_a_folder_without_a_template_is_one_line(folder, tmp_path):
    shutil.copytree(folder / "model", tmp_path / "base")
    (tmp_path / "base" / "chat_template.jinja").unlink()
    with pytest.raises(ValueError, match="base has no chat template"):
        load(tmp_path / "base", threads=1, chat=True)


SMALL = (
    *("--dataset", "pocket/pairs", "--n", "4", "--tests", "8", "--seeds", "1", "--boot", "9"),
    *("--methods", "zero_shot"),
)


@pytest.fixture(scope="module")
def pocket(random_model, tmp_path_factory):
    """A pocket model with random weights, and the same with a chat template."""
    place = tmp_path_factory.mktemp("pocket") / "tuned"
    shutil.copytree(random_model, place)
    tok = AutoTokenizer.from_pretrained(place)
    tok.chat_template = LETTERS
    tok.save_pretrained(place)
    return random_model, place


def test_icm_runs_in_a_template_and_beside_a_chat_model(pocket, tmp_path):
    """--chat is the model's own; a chat model beside another is asked in its template anyway."""
    base, tuned = pocket
    stores = tmp_path / "stores"
    with script("icm") as icm:
        words = (*SMALL, "zero_shot_chat", "--chat-model", str(tuned))
        both = run(icm, *words, model=base, stores=stores, out=tmp_path / "both")
        words = (*SMALL, "icm", "--chat", "--initial", "2", "--draws", "4")
        alone = run(icm, *words, model=tuned, stores=stores, out=tmp_path / "alone")
    assert set(alone.rows["model"]) == {"tuned (chat)"}
    assert set(alone.rows["n_train"]) == {0, 4}
    (plain, chat), (own, _) = scores_of(both.out), scores_of(alone.out)
    np.testing.assert_allclose(chat, own, atol=1e-6)
    assert not np.isclose(plain, own).any()


def scores_of(out):
    """Item scores of the only run of a folder, method by method."""
    (name,) = Record.read(out).runs
    return ItemScoreStore(out / "items").read(name).scores.T
