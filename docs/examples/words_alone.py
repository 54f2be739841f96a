"""What the words of a claim alone say of its label: a look for leaks before a number is believed.

    python docs/examples/words_alone.py cities.csv --max-rows 500

Prints the AUROC on test rows of a logistic regression on words and word pairs, fitted on the train
rows with their labels. Near 0.5, no word gives the answer away.
"""

from dataclasses import dataclass

import numpy as np
import tyro
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline

from jelicit.data.datasets import load_dataset
from jelicit.data.items import labels, with_target


@dataclass(frozen=True)
class Settings:
    """Measure what words alone say.

    Attributes:
        dataset: A set's name, or a folder or file of items.
        max_rows: Most rows of train, and of test.
    """

    dataset: tyro.conf.Positional[str]
    max_rows: int | None = None


def words_alone(dataset: str, max_rows: int | None = None) -> float:
    """AUROC on test rows of words and word pairs, fitted on train rows."""
    found = load_dataset(dataset, max_train=max_rows, max_test=max_rows)
    train, test = (with_target(items, "label") for items in (found.train, found.test))
    model = make_pipeline(CountVectorizer(ngram_range=(1, 2)), LogisticRegression(max_iter=1000))
    model.fit([item.choice for item in train], labels(train))
    odds = np.asarray(model.decision_function([item.choice for item in test]))
    return float(roc_auc_score(labels(test), odds))


if __name__ == "__main__":
    settings = tyro.cli(Settings, description=__doc__)
    print(f"{settings.dataset}: AUROC {words_alone(settings.dataset, settings.max_rows):.2f}")
