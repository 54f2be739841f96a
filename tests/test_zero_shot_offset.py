"""What is taken off the zero-shot scores of hidden states' own stores is in their unit."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from experiment_scripts import session_of
from tiny_models import make_items, tiny

from extract.opened import OpenedModel
from jelicit.data.formats import PromptFormat
from jelicit.prompting.calibrated import content_free_items, offset, zero_shot_offset
from jelicit.studies import Situation, salience, scoring
from jelicit.studies.settings import PromptSettings
from jelicit.studies.situation import Runs

# It begins with the claim: no content-free prompt has an empty text, and all of them are items.
FORM = PromptFormat(name="bare", text="{choice}\nI think this claim is")


def test_the_offset_of_zero_shot_scores_is_what_the_stores_say_of_no_claim(tmp_path, monkeypatch):
    torch.set_num_threads(1)
    monkeypatch.setattr(scoring, "control_scores", lambda items: {})  # of one shape, compiled once
    model = OpenedModel(lambda: tiny(), str(tmp_path / "stores"))
    items = tuple(make_items(8))
    situation = Situation(dataset="claims", format=FORM, train=items, test=items)
    prompts = PromptSettings(prompting=("zero_shot_calibrated",))
    settings = salience.Settings(methods=(), prompts=prompts, boot=5)
    session = session_of(salience.STUDY, settings, tmp_path / "out", model=model)
    states = replace(session.states(situation, (1,)), train_log_probs=None)
    measured = session.methods(situation, Runs.balanced(situation, 1), states)
    said = {about["method"]: scores for about, scores in measured.scores}

    free = model.store("free", content_free_items(FORM), FORM, (1,)).log_probs.astype(float)
    expected = offset(free[:, 0] - free[:, 1])
    taken_off = said["zero_shot"] - said["zero_shot_calibrated"]
    np.testing.assert_allclose(taken_off, expected, atol=1e-3)
    # The default scorer counts every spelling of a verdict: another number.
    assert zero_shot_offset(model.scorer(), FORM) != pytest.approx(expected, abs=0.02)
