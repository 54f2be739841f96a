"""One probe for several prompts: which rows are wordings of one claim, and what a score then is."""

from typing import Any, cast

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from jelicit.data.items import Item
from jelicit.pairs import Pairs
from jelicit.probes.sweep import SweepConfig, SweepData, sweep
from jelicit.studies.measuring import sweep_data
from jelicit.studies.prompt_ensembles import Member
from jelicit.studies.prompt_joint import joint_states, measure_joint
from jelicit.studies.salience import Settings
from jelicit.studies.session import Session
from jelicit.studies.situation import Runs, Situation
from jelicit.studies.states import States, at_layer

N, D = 80, 6


def claims(split: str) -> tuple[Item, ...]:
    rng = np.random.default_rng(0 if split == "train" else 1)
    return tuple(
        Item(id=f"{split}/{row}", choice=f"claim {row}", label=bool(rng.random() < 0.5))
        for row in range(N)
    )


def member(prompt: str, layer: int, *, size: float) -> Member:
    """A format whose states are larger by `size` and lie elsewhere; truth is along axis 0."""
    rng = np.random.default_rng(len(prompt))
    made = {}
    for split in ("train", "test"):
        truth = np.array([item.label for item in claims(split)])
        differ = np.outer(2 * truth - 1, np.eye(D)[0])
        noise = 0.5 * rng.normal(size=(2, N, D)) + rng.normal(size=(2, 1, D))
        made[split] = Pairs(
            np.asarray(size * (noise[0] + differ), np.float32),
            np.asarray(size * (noise[1] - differ), np.float32),
        )
    situation = Situation(
        dataset="claims", prompt=prompt, train=claims("train"), test=claims("test")
    )
    states = States.of_arrays({layer: made["train"]}, {layer: made["test"]})
    return Member(situation=situation, states=states, layers=(layer,), run=prompt)


MEMBERS = (member("a", 3, size=1.0), member("bb", 5, size=50.0))


def pooled(joint: States) -> SweepData:
    """All claims in both formats, one run."""
    first = MEMBERS[0].situation
    both = Situation(dataset="claims", train=2 * first.train, test=first.test)
    return sweep_data(both, Runs.of_all_rows(both, 1), joint)


def test_every_claim_is_a_row_in_each_format_and_no_format_is_larger():
    states = joint_states(MEMBERS)
    assert states.layers == (3,)
    train = at_layer(states.train, 3)
    assert train.pos.shape == (2 * N, D)
    lengths = [float(np.linalg.norm(rows, axis=1).mean()) for rows in np.split(train.pos, 2)]
    assert lengths[0] == pytest.approx(lengths[1], rel=1e-4)
    for sign in train:
        np.testing.assert_allclose(sign[:N].mean(0), 0, atol=1e-5)
        np.testing.assert_allclose(sign[N:].mean(0), 0, atol=1e-5)


def test_a_score_is_the_mean_of_the_scores_of_all_formats():
    joint = joint_states(MEMBERS)
    data = pooled(joint)
    assert data.wordings is not None
    assert list(data.wordings[:N]) == list(data.wordings[N:])
    fits = sweep(data, SweepConfig(methods=("pca",)))
    assert joint.test is not None
    whole = fits.score(3, at_layer(joint.test, 3))["pca"]
    alone = [np.asarray(fits.score(3, _test_rows(each))["pca"]) for each in MEMBERS]
    np.testing.assert_allclose(np.asarray(whole), np.mean(alone, axis=0), rtol=1e-3, atol=1e-5)


def _test_rows(one: Member) -> Pairs:
    """The test rows of one format alone, by the statistics of its train rows."""
    test = joint_states([one]).test
    assert test is not None
    return at_layer(test, one.layers[0])


def test_rows_of_a_claim_cannot_be_told_from_one_wording_where_ids_differ():
    own = MEMBERS[0].situation
    assert sweep_data(own, Runs.of_all_rows(own, 1), MEMBERS[0].states).wordings is None


class Recorder:
    """A session that measures at once."""

    def __init__(self) -> None:
        self.settings = Settings(methods=("pca", "ccs_paraphrases"), boot=5, seeds=2)
        self.kept: list[Any] = []
        self.said: list[str] = []

    def say(self, line: str) -> None:
        self.said.append(line)

    def keep(self, situation: Situation, chosen: Any, measure: Any) -> None:
        self.kept.append((situation, chosen, measure()))

    def probes(self, situation: Situation, runs: Runs, states: States, methods: Any, boot: Any):
        return situation, runs, states, methods


def test_runs_take_a_claim_in_all_formats_or_in_none():
    session = Recorder()
    measure_joint(MEMBERS, cast(Session, session))
    [(situation, chosen, (_, runs, _, methods))] = session.kept
    assert (situation.prompt, situation.easy, len(situation.train)) == ("joint", None, 2 * N)
    assert methods == ("pca", "ccs_paraphrases")
    assert chosen["runs"] == ["a", "bb"]
    assert runs.subsets.shape == (2, 2 * N)
    np.testing.assert_array_equal(runs.subsets[:, :N], runs.subsets[:, N:])
    assert 0 < runs.subsets.mean() < 1


def test_joint_probes_need_several_formats():
    assert any("--joint" in line for line in Settings(joint=True).problems())
    assert not [
        line
        for line in Settings(joint=True, format=("claim", "statement")).problems()
        if "--joint" in line
    ]
    problems = Settings(format=("claim", "statement")).problems()
    assert problems == []


def test_joint_probes_find_the_truth_of_both():
    joint = joint_states(MEMBERS)
    data = pooled(joint)
    assert joint.test is not None
    fits = sweep(data, SweepConfig(methods=("ccs_paraphrases", "vinc")))
    scores = fits.score(3, at_layer(joint.test, 3))
    truth = [item.label for item in claims("test")]
    for method, made in scores.items():
        area = roc_auc_score(truth, np.asarray(made)[0])
        assert max(area, 1 - area) > 0.9, method
