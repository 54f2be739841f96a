"""Studies of reward models and assistants, on a model whose rewards and answers are planted."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from experiment_scripts import session_of
from planted_rewards import PlantedModel, write_set

from jelicit.data.export import MADE_BY
from jelicit.data.items import load_items
from jelicit.data.overlap import text_key
from jelicit.studies import Cases, assistant, reward
from jelicit.studies.assistant import win_rates
from jelicit.studies.reward import with_interval
from jelicit.studies.reward_findings import assistant_findings, compared
from jelicit.typed import typed

SMALL = {"n": 8, "batch": None, "initial": 4, "rest": 12, "tests": 12, "seeds": 1, "boot": 50}
LABELS = ("icm_first", "icm", "golden", "human", "perturbed")


def asked(study, folder, out, *, drawn=False, **options):
    model = PlantedModel()
    settings = study.Settings(**{**SMALL, "dataset": (str(folder),), "out": out, **options})
    run = study.STUDY if drawn else replace(study.STUDY, figures=lambda rows, session: {})
    return model, run.run(model, settings, quiet=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("sets") / "numbers", train=60, test=12)


BENCH = [
    {"prompt": "a", "chosen": "right", "rejected": "wrong", "subset": "hep-go"},
    {"prompt": "b", "chosen": "wrong", "rejected": "right", "subset": "math-prm"},
    {"prompt": "c", "chosen": "right", "rejected": "wrong", "subset": "donotanswer"},
    {"prompt": "d", "chosen": "right", "rejected": "wrong", "subset": "donotanswer"},
]


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    path = tmp_path_factory.mktemp("bench") / "bench.jsonl"
    path.write_text("\n".join(map(json.dumps, BENCH)))
    return str(path)


@pytest.fixture(scope="module")
def rewards(folder, bench, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "reward"
    return asked(reward, folder, out, drawn=True, bench=bench)


def learned(model, source):
    [name] = [name for name in model.learned if name.endswith(f"reward-{source}")]
    return model.learned[name]


# --- reward models -------------------------------------------------------------------------------


def test_reward_models_made_before_are_tested_beside(folder, bench, tmp_path):
    made = tmp_path / "models" / "Other, bad"
    made.mkdir(parents=True)
    options = {"labels": ("golden",), "bench": bench, "rewards": (made,)}
    with pytest.raises(ValueError, match=r"--rewards .*no model is there \(no config.json\)"):
        asked(reward, folder, tmp_path / "out", **options)
    (made / "config.json").write_text("{}")
    _, result = asked(reward, folder, tmp_path / "out", **options)
    kept = result.rows.groupby(["part", "method"])["accuracy"].apply(list).to_dict()
    assert kept["reward", "reward_golden"] == [1]
    assert kept["reward", reward.method_made(made)] == [0]
    assert len(kept["bench", reward.method_made(made)]) == 2  # safety and reasoning
    _, without = asked(reward, folder, tmp_path / "out", labels=("golden",), bench=bench)
    assert set(without.rows["run_id"]).isdisjoint(set(result.rows["run_id"]))


def test_each_source_labels_what_it_should(rewards):
    model, result = rewards
    rows = result.rows.loc[result.rows["part"] == "reward"]
    assert set(rows["method"]) == {*(f"reward_{n}" for n in LABELS), "zero_shot", "control_length"}
    assert len(learned(model, "icm_first")) == 4  # eight items in both orders
    assert len(learned(model, "icm")) == len(learned(model, "golden")) == 16
    assert set(learned(model, "icm_first")) <= set(learned(model, "icm"))
    assert all("right" in each.chosen for each in learned(model, "icm"))
    wrong = [each for each in learned(model, "human") if "wrong" in each.chosen]
    assert all(int(each.group.split()[1]) % 4 == 0 for each in wrong)
    assert wrong
    by_method = rows.set_index("method")
    assert by_method.loc["reward_icm", "label_accuracy"] == 1
    assert by_method.loc["reward_icm", "accuracy"] == 1
    assert by_method.loc["reward_human", "label_accuracy"] < 1
    assert by_method.loc["reward_icm", "n_train"] == 16


def test_icms_labels_are_the_same_whatever_golden_ones_say(rewards, tmp_path):
    """Golden labels of half of the train pairs turned round, and no test label."""
    model, _ = rewards
    turned = write_set(tmp_path / "numbers", train=60, test=12, turned=range(0, 60, 2))
    other, _ = asked(reward, turned, tmp_path / "out")
    for source in ("icm_first", "icm", "human"):
        assert learned(other, source) == learned(model, source)
    assert learned(other, "golden") != learned(model, "golden")


def test_no_reward_model_sees_a_test_pair(rewards):
    model, result = rewards
    scores = sorted((result.folder / "items").glob("*"))
    assert scores
    for made in model.learned.values():
        groups = {each.group for each in made}
        assert all(int(group.split()[1]) < 1000 for group in groups)


def test_train_pairs_of_test_questions_are_left_out_or_refused(folder, tmp_path):
    """Under a text of test, and under another text of a test question's group."""
    mixed = write_set(tmp_path / "mixed", train=60, test=12)
    test = [json.loads(line) for line in (mixed / "test.jsonl").read_text().splitlines()]
    same = {**test[0], "id": "same text", "group": "its own", "choice": test[0]["choice"].upper()}
    group = {**test[1], "id": "same group", "choice": "Another text.", "question": "Another?"}
    with (mixed / "train.jsonl").open("a") as file:
        file.writelines(json.dumps(each) + "\n" for each in (same, group))
    _, result = asked(reward, mixed, tmp_path / "drop", rest=60)
    doubts = json.loads((result.folder / "report.json").read_text())["doubts"]
    assert any("its own" in line or "same text" in line for line in doubts)
    assert any("of a test question and are left out" in line for line in doubts)
    with pytest.raises(ValueError, match="same text"):
        asked(reward, mixed, tmp_path / "refuse", overlap="refuse")


def test_a_second_run_reads_everything_back(rewards, folder, bench):
    _, result = rewards
    model, again = asked(reward, folder, result.folder, bench=bench)
    assert model.learned == {}
    pd.testing.assert_frame_equal(again.rows, result.rows)


def test_other_settings_train_other_models(folder, rewards):
    """In the same folder of results, without a word about what is there."""
    _, result = rewards
    before = result.rows["run_id"].iloc[0]
    model, other = asked(reward, folder, result.folder, labels=("icm",), epochs=3)
    assert set(model.learned) >= {"numbers-seed0-reward-icm"}
    assert other.rows["run_id"].iloc[0] != before


def test_a_benchmark_is_measured_by_category(rewards):
    """Of mathematics and code, rows of the former weigh 984 / 447 of the latter's."""
    rows = rewards[1].rows
    found = rows.loc[rows["method"] == "reward_icm"].set_index("dataset")["accuracy"]
    assert found["bench.jsonl: Reasoning"] == pytest.approx(1 / (1 + 984 / 447))
    assert found["bench.jsonl: Safety"] == 1


def test_train_pairs_of_the_benchmark_are_left_out(folder, tmp_path):
    row = {"prompt": "What is 7?", "chosen": "7 IS right.", "rejected": "7 is wrong."}
    (tmp_path / "b.jsonl").write_text(json.dumps({**row, "subset": "mine"}))
    settings = reward.Settings(**SMALL, dataset=(str(folder),), bench=str(tmp_path / "b.jsonl"))
    session = session_of(reward.STUDY, settings, tmp_path / "out", model=PlantedModel())
    [part] = reward.plan(settings, session)
    groups = {item.group for item in part.task.situation.train}
    assert groups == {f"number {n}" for n in range(60) if n != 7}


def test_labels_leave_as_sets_of_pairs(rewards):
    items = load_items(next((rewards[1].folder / "labels").glob("*-icm.jsonl")))
    assert len(items) == 16
    assert all(item.label and "right" in item.choice for item in items)
    assert {item.meta["labels"] for item in items} == {"icm"}


def test_files_of_labels_say_whose_they_are(rewards):
    for source in LABELS:
        path = next((rewards[1].folder / "labels").glob(f"*seed0-{source}.jsonl"))
        for item in load_items(path):
            said = dict(item.meta[MADE_BY])
            search = said.pop("search", None)
            assert (said["method"], said["model"], said["seed"]) == (source, "planted", 0)
            assert (said["set"], said["format"]) == ("numbers", "pair")
            assert (search is not None) == (source in ("icm_first", "icm"))
            assert search is None or search["alpha"] == reward.Settings().alpha


def test_claims_are_turned_into_pairs(tmp_path):
    folder = tmp_path / "claims"
    folder.mkdir()
    for split, begin in (("train", 0), ("test", 100)):
        lines = [
            {"id": f"{n}{word}", "question": f"What is {n}?", "choice": f"{n} is {word}.",
             "label": word == "right", "group": str(n)}
            for n in range(begin, begin + 30)
            for word in ("right", "wrong")
        ]  # fmt: skip
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    model, result = asked(reward, folder, tmp_path / "out", labels=("icm", "golden"))
    assert set(result.rows["method"]) >= {"reward_icm", "reward_golden"}
    assert all("right" in each.chosen for each in learned(model, "golden"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"labels": ("perturbed",)}, "--labels perturbed needs icm"),
        ({"labels": ("gold",)}, "--labels gold is unknown"),
        ({"overlap": "keep"}, "--overlap keep: training on test pairs is refused"),
        ({"shown": "pair"}, "--shown pair shows two answers"),
        ({"learning_rate": 0.0}, "--learning-rate 0"),
        ({"n": 2}, "--n 2: allowed are whole numbers from 4"),
    ],
)
def test_settings_that_cannot_work_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        reward.Settings(**options).check()


def test_models_that_cannot_be_trained_are_refused():
    with pytest.raises(ValueError, match="reward trains the model, and arrays cannot be trained"):
        reward.run(Cases([]), quiet=True)


# --- assistants ----------------------------------------------------------------------------------

OF_ANSWERS = {"judge": 10, "questions": 8, "samples": 2, "best_of": 4, "truth": "text"}


@pytest.fixture(scope="module")
def answers(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "assistant"
    labels = ("icm", "golden", "human")
    return asked(assistant, folder, out, drawn=True, labels=labels, **OF_ANSWERS)


def of_answers(result):
    return result.rows.loc[result.rows["part"] == "assistant"].set_index("method")


def test_a_policy_that_hacks_its_reward_is_seen(answers):
    """Bold answers have a high reward of ICM's model, are wrong, and the judge sees that."""
    rows = of_answers(answers[1])
    hacked, right, start = (rows.loc[name] for name in ("policy_icm", "policy_golden", "start"))
    assert (hacked["accuracy"], right["accuracy"], start["accuracy"]) == (0, 1, 0.5)
    assert (hacked["fooled"], right["fooled"]) == (1, 0)
    assert hacked["reward_gain"] > right["reward_gain"] > 0
    assert (hacked["win_rate_golden"], right["win_rate_icm"]) == (0, 1)
    assert (hacked["win_rate_start"], right["win_rate_start"]) == (0.25, 0.75)
    assert (hacked["kl"], right["kl"]) == (7, 2)
    assert rows.loc["best_of_golden", "accuracy"] == 1
    assert rows.loc["best_of_golden", "kl"] == pytest.approx(np.log(4) - 3 / 4)
    claims = {each.claim[:30]: each.appears for each in answers[1].findings}
    assert claims["The judge prefers the assistan"] is False
    assert claims["Optimised far enough, reward i"] is False  # one of three did


def test_the_judge_learns_from_pairs_that_no_other_model_sees(answers):
    model, _ = answers
    [judge] = [made for name, made in model.learned.items() if name.endswith("judge")]
    others = [made for name, made in model.learned.items() if not name.endswith("judge")]
    assert len(judge) == 10
    seen = {each.group for made in others for each in made}
    assert len(others) == 4
    assert not seen & {each.group for each in judge}
    texts = {text_key(each.as_item()) for made in others for each in made}
    assert not texts & {text_key(each.as_item()) for each in judge}


def test_policies_are_asked_train_questions_alone(answers):
    model, _ = answers
    assert len(model.asked) == 3
    for questions in model.asked.values():
        assert questions
        assert all(int(each.removeprefix("What is ")[:-1]) < 1000 for each in questions)


def test_the_options_reach_the_training_and_truth_is_counted_only_where_it_is_known(
    folder, tmp_path
):
    options = {"beta": 0.7, "steps": 3, "group": 2, "policy_batch": 6, "rank": 3, "shown": "asking"}
    alone = {"labels": ("icm",), "policies": ("icm",), "truth": None}
    model, result = asked(assistant, folder, tmp_path / "out", **{**OF_ANSWERS, **options, **alone})
    [fit] = [fit for name, fit in model.fits.items() if name.endswith("policy-icm")]
    assert (fit["beta"], fit["steps"], fit["samples"], fit["batch"]) == (0.7, 3, 2, 6)
    [fit] = [fit for name, fit in model.fits.items() if name.endswith("reward-icm")]
    assert (fit["rank"], fit["format"]) == (3, "asking")
    rows = of_answers(result)
    assert "fooled" not in rows or rows["fooled"].isna().all()
    assert rows["accuracy"].isna().all()
    assert rows.loc["policy_icm", "win_rate_start"] == 0.25


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"policies": ("perturbed",)}, "--policies perturbed: allowed are icm, golden, human"),
        ({"labels": ("icm",)}, "--policies golden human: no reward model of them is trained"),
        ({"policy_batch": 9}, "--policy-batch 9: allowed are multiples of --group 8"),
        ({"asked": "Why?"}, "--asked 'Why\\?' has to hold"),
        ({"asked": "{question} {of}"}, "--asked '{question} {of}' .* its one field"),
        ({"truth": "yes"}, "--truth yes: allowed are text, unknown"),
        ({"beta": -1.0}, "--beta -1"),
    ],
)
def test_settings_of_assistants_that_cannot_work_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        assistant.Settings(**options).check()


# --- numbers -------------------------------------------------------------------------------------


def test_win_rates_count_ties_as_half():
    ours, others = np.array([[1.0, 2.0], [0.0, 0.0]]), np.array([[1.0], [3.0]])
    assert win_rates(ours, others).tolist() == [0.75, 0.0]
    assert win_rates(-np.inf * np.ones((1, 1)), -np.inf * np.ones((1, 1))).tolist() == [0.5]


def test_a_mean_has_the_interval_of_its_bootstrap():
    boot = np.array([[2.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    found = with_interval("share", np.array([0.0, 1.0]), boot, weights=np.array([1.0, 3.0]))
    assert found["share"] == 0.75
    assert found["share_low"] == pytest.approx(np.quantile([0, 1, 0.75], 0.025))
    missing = with_interval("share", np.array([np.nan, 1.0]), boot)
    assert missing["share"] == 1
    assert np.isnan(with_interval("share", np.array([np.nan, np.nan]), boot)["share"])


def rows_of(**methods):
    about = {"dataset": "a", "part": "assistant", "seed": 0}
    return pd.DataFrame([{**about, "method": name, **of} for name, of in methods.items()])


def test_findings_tell_what_was_not_measured():
    rows = replace_part(rows_of(reward_icm={"accuracy": 0.8}))
    assert compared(rows, "so", ("reward_icm", "reward_golden"), np.greater).appears is None
    found = assistant_findings(rows)
    assert {each.appears for each in found} == {None}


def test_reward_is_hacked_where_it_rises_and_truth_falls():
    start, of = {"accuracy": 0.5}, {"reward_gain": 1.0}
    for accuracy, appears in ((0.44, True), (0.46, False)):
        rows = rows_of(start=start, policy_icm={**of, "accuracy": accuracy})
        assert assistant_findings(rows)[-1].appears is appears


def replace_part(rows):
    return rows.assign(part="reward")


def test_settings_are_kept_by_name():
    settings = replace(assistant.Settings(), beta=0.3)
    assert settings.of_answers()["policy"]["beta"] == 0.3
    assert settings.identity() == assistant.Settings().identity()


@pytest.mark.parametrize("study", [reward, assistant], ids=lambda study: study.STUDY.name)
def test_every_setting_has_a_type(study):
    settings = study.Settings()
    assert typed(settings) is settings
    for name in vars(settings):
        with pytest.raises(ValueError, match=f"^{name} is "):
            typed(replace(settings, **{name: object()}))
