"""The format `asking`: a question in place of a sentence to be ended."""

from typing import Any

import numpy as np
import pytest
from asked_model import AskedModel

from jelicit.data.items import Item
from jelicit.data.prompts import FORMATS, contrast_pair, few_shot
from jelicit.data.turns import turns
from jelicit.prompting import zero_shot_scores
from jelicit.studies import salience
from jelicit.studies.settings import PromptSettings

ITEM = Item(id="1", question="Where is Paris?", choice="Paris is in France.", label=True)
OTHER = Item(id="2", question="Where is Rome?", choice="Rome is in Peru.", label=False)
ASKED = (
    "Question: Where is Paris?\nClaim: Paris is in France.\n"
    "Is this claim true? Answer with one word, True or False."
)


def test_a_claim_is_asked_about_and_answered_with_true_or_false():
    assert contrast_pair(ITEM, "asking") == (f"{ASKED} True", f"{ASKED} False")


def test_in_a_chat_the_user_asks_and_the_assistant_answers():
    said = [(turn.role, turn.content) for turn in turns(few_shot(OTHER, [(ITEM, True)], "asking"))]
    assert said[:2] == [("user", ASKED), ("assistant", "True")]
    assert said[2][1].endswith("Answer with one word, True or False.")


def test_features_are_written_into_it():
    """The user's opinion stands in the question, which the format shows."""
    model = AskedModel()
    few: dict[str, Any] = {"max_rows": 40, "seeds": 1, "boot": 9, "layers": ("1",)}
    settings = salience.Settings(
        dataset=("pocket/arithmetic",),
        format=("asking",),
        features=("none", "sycophancy"),
        methods=("pca",),
        easy="none",
        prompts=PromptSettings(prompting=("none",)),
        **few,
    )
    done = salience.run(model, settings, quiet=True)
    assert set(done.rows["feature"]) == {"none", "sycophancy"}
    plain, opinions = (
        [true for name, pairs in model.read.items() if feature in name for true, _ in pairs]
        for feature in ("none", "sycophancy")
    )
    assert plain
    assert len(plain) == len(opinions)
    assert all(text.endswith("True or False. True") for text in (*plain, *opinions))
    assert not any("I am sure" in text for text in plain)
    assert all("I am sure" in text.partition("\nClaim: ")[0] for text in opinions)


def test_the_pocket_model_is_asked_in_it():
    pytest.importorskip("torch", reason="the pocket model needs the extract extra")
    from extract import open_model

    scorer = open_model("pocket", say=lambda _: None).scorer()
    scores = zero_shot_scores(scorer, [ITEM, OTHER], "asking")
    log_p = scorer.score([(ASKED,)], (" True", " False"))
    assert np.isfinite(scores).all()
    assert scores[0] == pytest.approx(float(log_p[0, 0] - log_p[0, 1]), abs=1e-5)
    assert scores[0] != scores[1]
    assert FORMATS["asking"].third_word is None
