"""Reward models and policies that are really trained, tiny: what they learn and what they leave."""

import random

import numpy as np
import pytest

pytest.importorskip("trl", reason="training needs the train extra")
torch = pytest.importorskip("torch", reason="training needs the train extra")

from random_pocket import export_random  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification  # noqa: E402

from extract import training_run  # noqa: E402
from extract.models import load  # noqa: E402
from extract.policy import (  # noqa: E402
    Drawn,
    PolicyFit,
    divergence,
    finite,
    first_line_of,
    open_policy,
    start_policy,
    train_policy,
)
from extract.reward import (  # noqa: E402
    RewardFit,
    open_reward,
    rows_of,
    shown_as,
    train_reward,
)
from jelicit.data.preferences import Comparison  # noqa: E402
from jelicit.data.prompts import get_format  # noqa: E402

FIT = RewardFit(epochs=3, batch=8, learning_rate=3e-3)
STEPS = 9


def compared(count, *, begin=0):
    """Answers of which the one that says "cat" is better."""
    return [
        Comparison(
            question=f"What is {n} + 1?",
            chosen=f"{n} cat.",
            rejected=f"{n} dog.",
            group=f"group {n}",
        )
        for n in range(begin, begin + count)
    ]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return load(export_random(tmp_path_factory.mktemp("base") / "tiny"))


@pytest.fixture(scope="module")
def reward(base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reward") / "model"
    return train_reward(base, compared(24), folder, FIT, about={"labels": "planted"})


def weights(folder):
    return load_file(folder / "model.safetensors")


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one) and set(one) == set(other)


def judged_right(model, rows):
    questions = [each.question for each in rows]
    better = model.rewards(questions, [each.chosen for each in rows])
    return np.mean(better > model.rewards(questions, [each.rejected for each in rows]))


def test_it_learns_which_answer_is_better(reward):
    assert judged_right(reward, compared(20, begin=60)) == 1
    losses = [each["loss"] for each in reward.card["losses"]]
    assert len(losses) == STEPS
    # Bradley and Terry's loss of two equal rewards, and less once it has learned.
    assert losses[0] == pytest.approx(np.log(2), abs=0.05)
    assert losses[-1] < 0.3


def test_transformers_loads_the_folder_and_gives_the_same_rewards(reward):
    again = AutoModelForSequenceClassification.from_pretrained(reward.folder)
    text = shown_as(reward.format, "What is 3 + 1?", "3 cat.")
    ids = torch.tensor([reward.tokenizer(text)["input_ids"]])
    # Longer rows beside it pad this one, which changes nothing.
    mine, longer, empty = reward.rewards(["What is 3 + 1?"] * 3, ["3 cat.", "3 cat. " * 9, " "])
    assert mine == pytest.approx(again(ids).logits.item(), abs=1e-5)
    assert longer != pytest.approx(mine, abs=1e-5)
    assert empty == -np.inf


def test_the_card_says_what_made_it(reward, base):
    card = open_reward(reward.folder).card
    assert card["base"] == base.digest
    assert card["rows"] == 24
    assert card["about"] == {"labels": "planted"}
    assert "RewardTrainer" not in (page := (reward.folder / "README.md").read_text())
    assert "planted" in page
    assert not list(reward.folder.parent.glob("*.training-*"))  # nothing is left over


def test_a_killed_training_goes_on_and_ends_the_same(base, reward, tmp_path, monkeypatch):
    """Also: the same rows and settings give the same weights, and no seed of others is moved."""
    states = random.getstate(), torch.get_rng_state()
    folder, taken = tmp_path / "model", []
    step = training_run._Bar.on_step_end

    def stop(self, args, state, control, **kwargs):
        taken.append(state.global_step)
        if len(taken) == 6:
            raise KeyboardInterrupt
        step(self, args, state, control, **kwargs)

    monkeypatch.setattr(training_run._Bar, "on_step_end", stop)
    with pytest.raises(KeyboardInterrupt):
        train_reward(base, compared(24), folder, FIT)
    assert not folder.exists()
    # A checkpoint that was cut off is not gone on from.
    [work] = tmp_path.glob("*.training-*")
    (work / "checkpoints" / "checkpoint-8").mkdir()
    model = train_reward(base, compared(24), folder, FIT)
    assert taken == [*range(1, 7), *range(6, STEPS + 1)]
    assert same(weights(model.folder), weights(reward.folder))
    assert random.getstate() == states[0]
    assert torch.equal(torch.get_rng_state(), states[1])


def test_what_is_there_is_read_back_and_another_training_refused(base, reward):
    train_reward(base, compared(24), reward.folder, FIT)
    with pytest.raises(FileExistsError, match="was not made by this training"):
        train_reward(base, compared(23), reward.folder, FIT)


def test_adapters_are_merged(base, tmp_path):
    fit = RewardFit(epochs=2, batch=8, rank=2, learning_rate=3e-3)
    model = train_reward(base, compared(8), tmp_path / "model", fit)
    assert not any("lora" in name for name in weights(model.folder))
    before = load_file(base.folder / "model.safetensors")
    name = "model.layers.0.self_attn.q_proj.weight"
    assert not torch.equal(weights(model.folder)[name], before[name])


def test_too_long_comparisons_are_left_out_and_none_is_an_error(base, tmp_path):
    long = Comparison(question="a?", chosen="cat " * 99, rejected="dog", group="long")
    rows = rows_of(base, [*compared(4), long], get_format("claim"), 40)
    assert len(rows) == 4
    assert all(len(row["chosen_ids"]) <= 40 for row in rows)
    with pytest.raises(ValueError, match="all 1 comparisons are longer than 40 tokens"):
        train_reward(base, [long], tmp_path / "other", RewardFit(max_length=40))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"format": "pair"}, "format 'pair' shows two answers"),
        ({"epochs": 0}, "epochs is 0"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"rank": -1}, "rank is -1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong, said):
    with pytest.raises(ValueError, match=said):
        RewardFit(**wrong)


# --- policies ------------------------------------------------------------------------------------


class LikesLetters:
    """A reward that counts letters: even a model that says nothing sensible can have more."""

    name, digest = "likes letters", "letters"

    def rewards(self, questions, answers):
        letters = [sum(map(str.isalpha, answer)) for answer in answers]
        return np.array([each or -np.inf for each in letters], float)


QUESTIONS = [f"What is {n} + 1?" for n in range(8)]
POLICY = PolicyFit(steps=5, batch=8, samples=4, max_tokens=6, learning_rate=1e-2)


@pytest.fixture(scope="module")
def policy(base, tmp_path_factory):
    return train_policy(
        base, QUESTIONS, LikesLetters(), tmp_path_factory.mktemp("p") / "letters", POLICY
    )


def test_a_policy_is_a_folder_of_every_command(policy, base):
    again = open_policy(policy.folder, device="cpu")
    assert again.asked == POLICY.asked
    mine, theirs = (p.sample(QUESTIONS, n=2, seed=3, max_tokens=6) for p in (again, policy))
    assert mine.answers == theirs.answers
    config = AutoModelForCausalLM.from_pretrained(policy.folder).generation_config
    line = base.tokenizer.encode("\n", add_special_tokens=False)
    assert set(line) <= set(config.eos_token_id)  # an answer ends with its line
    assert len(policy.card["curve"]) == POLICY.steps


def test_answers_are_drawn_from_the_model_alone(base, monkeypatch):
    """Whatever its files say of generation: divergences are of what the model itself would say."""
    plain = [start_policy(base).sample(QUESTIONS, max_tokens=6, temperature=t) for t in (0, 1)]
    for name, value in (("top_p", 0.01), ("repetition_penalty", 9.0)):
        monkeypatch.setattr(base.model.generation_config, name, value)
    own = [start_policy(base).sample(QUESTIONS, max_tokens=6, temperature=t) for t in (0, 1)]
    assert [each.answers for each in own] == [each.answers for each in plain]
    assert base.model.generation_config.top_p == 0.01


def test_its_divergence_from_the_start_is_measured(policy, base):
    start = start_policy(base)
    own = start.sample(QUESTIONS, n=2, max_tokens=6, start=start)
    assert np.abs(own.kl).max() < 1e-4
    drawn = policy.sample(QUESTIONS, n=2, max_tokens=6, start=start)
    assert (drawn.kl > 0).all()
    assert drawn.tokens.shape == drawn.kl.shape == (len(QUESTIONS), 2)
    assert (drawn.tokens >= 1).all()
    assert (drawn.tokens <= 6).all()


def test_divergence_is_the_sum_over_the_tokens_of_the_answer(policy, base):
    prompt, answer = [1, 30, 40], [50, 60, 70]
    ids = torch.tensor([[*prompt, *answer]])
    whole = Drawn(ids, torch.ones(1, 3, dtype=int), torch.ones(1, 3, dtype=int))
    with torch.inference_mode():
        logs = [lm.model(input_ids=ids).logits[0, 2:5].log_softmax(-1) for lm in (policy.lm, base)]
    each = (logs[0].exp() * (logs[0] - logs[1])).sum(-1)
    assert divergence(policy.lm, base, whole) == pytest.approx(each.sum().item(), rel=1e-4)
    # What stands behind the end, and what pads the prompt, counts for nothing.
    ids = torch.tensor([[0, 0, *prompt, *answer]])
    context, mask = torch.tensor([[0, 0, 1, 1, 1]]), torch.tensor([[1, 1, 0]])
    cut = divergence(policy.lm, base, Drawn(ids, context, mask))
    assert cut == pytest.approx(each[:2].sum().item(), rel=1e-4)


def test_a_killed_policy_goes_on_and_ends_the_same(policy, base, tmp_path, monkeypatch):
    step, taken = training_run._Bar.on_step_end, []

    def stop(self, args, state, control, **kwargs):
        taken.append(state.global_step)
        if len(taken) == 3:
            raise KeyboardInterrupt
        step(self, args, state, control, **kwargs)

    monkeypatch.setattr(training_run._Bar, "on_step_end", stop)
    with pytest.raises(KeyboardInterrupt):
        train_policy(base, QUESTIONS, LikesLetters(), tmp_path / "letters", POLICY)
    again = train_policy(base, QUESTIONS, LikesLetters(), tmp_path / "letters", POLICY)
    assert taken == [1, 2, 3, 3, 4, 5]
    assert same(weights(again.folder), weights(policy.folder))


def test_answers_are_one_line_and_empty_ones_are_worst():
    assert first_line_of(" 3 + 1 = 4.\nmore") == "3 + 1 = 4."
    assert first_line_of(" \n ") == ""
    assert finite(np.array([1.0, -np.inf, -2.0])) == [1.0, -7.0, -2.0]
    assert finite(np.array([-np.inf])) == [-5.0]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"asked": "Why?"}, "has to hold"),
        ({"asked": "{what}"}, "its one field is"),
        ({"batch": 10, "samples": 4}, "4 samples of a question do not divide"),
        ({"beta": -1.0}, "beta is -1.0"),
    ],
)
def test_settings_of_policies_that_make_no_sense_are_refused(wrong, said):
    with pytest.raises(ValueError, match=said):
        PolicyFit(**wrong)


def test_too_few_questions_are_an_error(base, tmp_path):
    with pytest.raises(ValueError, match="1 questions for steps of 2"):
        train_policy(base, QUESTIONS[:1] * 4, LikesLetters(), tmp_path / "p", POLICY)


def test_a_reward_model_is_no_language_model_and_the_line_says_what_it_is_for(reward):
    with pytest.raises(ValueError, match=r"is a reward model .*experiments/reward.py --rewards"):
        load(str(reward.folder))


def test_a_model_with_an_adapter_is_where_a_reward_model_and_a_policy_begin(base, tmp_path):
    import peft

    torch.manual_seed(0)
    config = peft.LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)
    known = AutoModelForCausalLM.from_pretrained(base.folder)
    adapted = peft.get_peft_model(known, config, adapter_name="default")
    adapted.peft_config["default"].base_model_name_or_path = str(base.folder)
    adapted.save_pretrained(tmp_path / "adapter")
    lm = load(str(tmp_path / "adapter"))
    start = training_run.start_folder(lm, tmp_path)
    ids = torch.tensor([[1, 2, 3]])
    with torch.inference_mode():
        begun = AutoModelForCausalLM.from_pretrained(start)(ids).logits
        assert torch.allclose(begun, lm.model(ids).logits, atol=1e-5)
        assert not torch.allclose(begun, base.model(ids).logits, atol=1e-2)
    made = train_reward(lm, compared(8), tmp_path / "reward", RewardFit(epochs=1, batch=8))
    assert len(made.rewards(["What is 1 + 1?"], ["1 cat."])) == 1
