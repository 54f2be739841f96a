"""Answers of a model's own, against plain loops over whole texts; and the set made of them."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="sampling needs the extract extra")

from tiny_models import tiny  # noqa: E402

from extract import own_words as module  # noqa: E402
from extract.own_words import (  # noqa: E402
    PROMPT,
    Question,
    answers,
    as_written,
    own_words,
    pair_up,
    questions_of,
    with_likelihoods,
)
from extract.sampling import Sampling, line_of, noise_of, sample_lines  # noqa: E402
from extract.verdicts import own_prefix, tokenise  # noqa: E402
from jelicit.data.datasets import load_dataset  # noqa: E402
from jelicit.data.items import Item  # noqa: E402
from jelicit.data.prompts import get_format  # noqa: E402
from jelicit.studies.scoring import control_scores  # noqa: E402

PROMPTS = {"a": "Question: what is it?\nAnswer:", "b": "so", "c": "Question: what was so so so?\n"}
SAMPLING = Sampling(max_new_tokens=6, seed=3)


@pytest.fixture(scope="module")
def lm():
    return tiny()


def ids_of(lm, text: str) -> list[int]:
    return [*own_prefix(lm.tokenizer), *tokenise(lm.tokenizer, {text})[text]]


@torch.inference_mode()
def alone(lm, key: str, text: str, sampling: Sampling) -> str:
    """One answer by reading the whole text again for every token."""
    ids, noise = ids_of(lm, text), noise_of(key, sampling.seed)
    end, start = lm.model.generation_config.eos_token_id, len(ids)
    while len(ids) - start < sampling.max_new_tokens:
        logits = lm.model(torch.tensor([ids])).logits[0, -1].double().numpy()
        if sampling.temperature:
            logits = logits / sampling.temperature + noise.gumbel(size=len(logits))
        token = int(np.argmax(logits))
        if token == end:
            break
        ids.append(token)
        if "\n" in lm.tokenizer.decode(ids[start:]).lstrip():
            break
    return line_of(lm.tokenizer, ids[start:])


@pytest.mark.parametrize("kind", ["llama", "gemma3"])
@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_an_answer_is_that_of_the_model_alone_whatever_stands_beside_it(kind, temperature):
    lm = tiny(kind)
    sampling = Sampling(temperature=temperature, max_new_tokens=6, seed=3)
    # What model files say of generation would bend the distribution.
    lm.model.generation_config.repetition_penalty = 3.0
    lm.model.generation_config.top_k = 2
    together = sample_lines(lm, PROMPTS, sampling)
    assert together == {key: alone(lm, key, text, sampling) for key, text in PROMPTS.items()}
    assert len(set(together.values())) > 1
    assert sample_lines(lm, {"b": PROMPTS["b"]}, sampling) == {"b": together["b"]}
    assert lm.model.generation_config.repetition_penalty == 3.0


def test_noise_samples_from_the_softmax():
    logits, draws = np.array([2.0, 1.0, 0.0, -1.0]), 4000
    taken = [int(np.argmax(logits + noise_of(str(k), 0).gumbel(size=4))) for k in range(draws)]
    share = np.bincount(taken, minlength=4) / draws
    expected = np.exp(logits) / np.exp(logits).sum()
    assert np.all(np.abs(share - expected) < 4 * np.sqrt(expected * (1 - expected) / draws))


def test_another_seed_draws_other_answers(lm):
    other = Sampling(max_new_tokens=6, seed=4)
    assert sample_lines(lm, PROMPTS, SAMPLING) != sample_lines(lm, PROMPTS, other)


def test_a_prompt_without_room_for_an_answer_is_refused(lm):
    with pytest.raises(ValueError, match=r"long: its prompt has \d+ tokens"):
        sample_lines(lm, {"long": "so " * 200}, SAMPLING)
    with pytest.raises(ValueError, match="temperature is -1"):
        Sampling(temperature=-1)
    with pytest.raises(ValueError, match="max_new_tokens is 0"):
        Sampling(max_new_tokens=0)


@torch.inference_mode()
def test_the_likelihood_is_the_mean_over_the_answers_own_tokens(lm):
    items = [
        Item(id=str(k), question="what is it?", choice="so " * k + "it", label=True)
        for k in range(1, 6)
    ]
    for item, made in zip(items, with_likelihoods(lm, items, token_budget=60), strict=True):
        prompt = ids_of(lm, PROMPT.format(question=item.question))
        text = list(tokenise(lm.tokenizer, {f" {item.choice}"})[f" {item.choice}"])
        logits = lm.model(torch.tensor([prompt + text])).logits[0].log_softmax(-1)
        picked = [float(logits[len(prompt) - 1 + k, t]) for k, t in enumerate(text)]
        assert made.meta["controls"]["likelihood"] == pytest.approx(np.mean(picked), abs=2e-5)


# --- the set -------------------------------------------------------------------------------------


def splits(n=12):
    return {
        split: tuple(
            Item(
                id=f"{split}/{k}/{label}",
                question=f"what is {k} in {split}?",
                choice=f"it is {'so' if label else 'not'} {k}",
                label=label,
                split=split,
            )
            for k in range(n)
            for label in (False, True)
        )
        for split in ("train", "test")
    }


def test_every_question_is_asked_once_and_knows_its_true_answer():
    found = questions_of(splits(3), most=2)
    assert [(q.id, q.text, q.answer) for q in found] == [
        ("train/00000", "what is 0 in train?", "it is so 0"),
        ("train/00001", "what is 1 in train?", "it is so 1"),
        ("test/00000", "what is 0 in test?", "it is so 0"),
        ("test/00001", "what is 1 in test?", "it is so 1"),
    ]
    with pytest.raises(ValueError, match="no test item has a question"):
        questions_of({"train": splits(1)["train"]}, most=None)


def test_a_run_that_was_killed_goes_on_with_the_same_answers(lm, tmp_path, monkeypatch):
    questions = questions_of(splits(12), most=None)
    whole = answers(lm, questions, SAMPLING, folder=tmp_path / "whole", progress=False)
    calls = []
    monkeypatch.setattr(module, "BATCH", 5)

    def killed(*arguments):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(arguments)
        return sample_lines(*arguments)

    monkeypatch.setattr(module, "sample_lines", killed)
    with pytest.raises(KeyboardInterrupt):
        answers(lm, questions, SAMPLING, folder=tmp_path / "cut", progress=False)
    [file] = (tmp_path / "cut").glob("answers-*.jsonl")
    assert len(file.read_text(encoding="utf-8").splitlines()) == 10
    with file.open("a", encoding="utf-8") as cut:  # a kill may cut a line
        cut.write('{"question": "what is')
    monkeypatch.setattr(module, "sample_lines", sample_lines)
    assert answers(lm, questions, SAMPLING, folder=tmp_path / "cut", progress=False) == whole
    assert all(json.loads(line) for line in file.read_text(encoding="utf-8").splitlines())


def test_other_settings_are_other_answers_in_the_same_folder(lm, tmp_path):
    questions = questions_of(splits(4), most=None)
    for seed in (0, 1):
        sampling = Sampling(max_new_tokens=6, seed=seed)
        answers(lm, questions, sampling, folder=tmp_path, progress=False)
    assert len(list(tmp_path.glob("answers-*.jsonl"))) == 2


def test_what_cannot_tell_own_from_other_is_left_out_and_counted():
    questions = questions_of(splits(4), most=None)[:4]
    own = dict(zip([q.id for q in questions], ["mine", "", " It  is SO 2", "mine"], strict=True))
    others = {q.id: q.answer for q in questions} | {questions[3].id: None}
    made = pair_up(questions, own, others)
    assert [(item.choice, item.label, item.group) for item in made.items] == [
        ("mine", True, "train/00000"),
        ("it is so 0", False, "train/00000"),
    ]
    assert made.left_out == {
        "an empty answer": 1,
        "the same answer twice": 1,
        "no true answer in the set": 1,
    }


def count(lm, question: str, answer: str) -> int:
    """Tokens of an answer after its question."""
    prompt = PROMPT.format(question=question)
    whole = tokenise(lm.tokenizer, {prompt, f"{prompt} {answer}"})
    return len(whole[f"{prompt} {answer}"]) - len(whole[prompt])


@pytest.mark.parametrize("kind", ["llama", "gemma3"])
def test_any_answer_is_cut_to_a_line_that_the_model_could_have_written(kind):
    lm = tiny(kind)
    given = {
        "long": "so it was the sum " * 5,
        "lines": "\n it is so\nand so on",
        "short": "it is so",
        "blank": " \n ",
        "none": None,
    }
    questions = [Question(id=key, text="what is it?", split="train") for key in given]
    cut = as_written(lm, questions, given, most=6)
    assert (cut["lines"], cut["short"], cut["blank"], cut["none"]) == (
        *("it is so", "it is so"),
        *("", None),
    )
    assert cut["long"]
    assert given["long"].startswith(cut["long"])
    assert count(lm, "what is it?", cut["long"]) == 6
    assert as_written(lm, questions, cut, most=6) == cut


@pytest.mark.parametrize("others", ["the set's", "a model's"])
def test_neither_lines_nor_length_say_who_wrote_an_answer(lm, tmp_path, others, monkeypatch):
    """Whole answers of several lines are shortened as sampled ones are, whoever gave them."""
    whole = "it is so and it was so and the sum was so {}\nThis is so since it was."

    def chatty(lm, prompts, sampling):
        """A model of other tokens, whose answers are longer than this model's can be."""
        if lm.name == "tiny-llama":
            return sample_lines(lm, prompts, sampling)
        return {text: whole.format(text) for text in prompts}

    monkeypatch.setattr(module, "sample_lines", chatty)
    sets = {
        split: tuple(replace(i, choice=whole.format(i.question)) if i.label else i for i in items)
        for split, items in splits(6).items()
    }
    other = None if others == "the set's" else lambda: tiny("qwen2")
    folder, made = own_words(lm, sets, tmp_path, other=other, sampling=SAMPLING, progress=False)
    about = json.loads((folder / "made.json").read_text(encoding="utf-8"))
    assert about["others"] == ("the set's true answers" if other is None else "tiny-qwen2")
    own, theirs = ([i for i in made.items if i.label is label] for label in (True, False))
    assert len(own) == len(theirs) > 0
    for item in made.items:
        [left] = as_written(
            lm,
            [Question(id="", text=item.question, split="")],
            {"": item.choice},
            most=SAMPLING.max_new_tokens,
        ).values()
        assert left == item.choice
    assert all(whole.startswith(item.choice) for item in theirs)
    assert {count(lm, i.question, i.choice) for i in theirs} == {SAMPLING.max_new_tokens}


@pytest.fixture(scope="module")
def made(lm, tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    sampling = Sampling(temperature=0.1, max_new_tokens=12, seed=3)  # often another answer
    return own_words(
        lm, splits(), folder, other=lambda: tiny("qwen2"), sampling=sampling, progress=False
    )


def test_the_set_is_read_by_every_study_with_its_own_question(made):
    folder, about = made
    dataset = load_dataset(folder)
    assert len(dataset.train) + len(dataset.test) == len(about.items)
    assert dataset.formats == {"label": "own_words"}
    assert "I wrote this answer myself" in get_format("own_words").text
    for items in (dataset.train, dataset.test):
        assert sum(bool(item.label) for item in items) * 2 == len(items)
    told = json.loads((folder / "made.json").read_text(encoding="utf-8"))
    assert (told["model"], told["others"]) == ("tiny-llama", "tiny-qwen2")


def test_likelihood_is_a_control_of_every_study(made):
    folder, _ = made
    test = load_dataset(folder).test
    scores = control_scores(test)
    assert scores["control_likelihood"].tolist() == [
        item.meta["controls"]["likelihood"] for item in test
    ]
    assert all(math.isfinite(x) and x < 0 for x in scores["control_likelihood"])
    # A control that some items lack is none; one that is no number is an error.
    assert set(control_scores([*test, Item(id="x", choice="c", label=True)])) == {"control_length"}
    wrong = Item(id="x", choice="c", label=True, meta={"controls": {"likelihood": "high"}})
    with pytest.raises(ValueError, match=r"meta\.controls\.likelihood is 'high'"):
        control_scores([wrong])


def test_a_model_is_no_other_than_itself(lm, tmp_path):
    with pytest.raises(ValueError, match="the very model that is asked"):
        own_words(lm, splits(), tmp_path, other=lambda: lm, sampling=SAMPLING, progress=False)
