"""What a study of label searches says at its end."""

from types import SimpleNamespace

import pandas as pd
import pytest
from rich.console import Console

from jelicit.studies import icm


@pytest.mark.parametrize(("method", "told"), [("icm", True), ("zero_shot", False)])
def test_labels_are_told_of_where_a_search_was_run(tmp_path, method, told):
    """Those of an earlier command may lie in the folder, too."""
    (tmp_path / "labels").mkdir()
    about = {"method": method, "orientation": "none", "dataset": "a", "feature": "none"}
    rows = pd.DataFrame([{**about, "role": "truth", "seed": 0, "accuracy": 0.5}])
    lines = []
    session = SimpleNamespace(
        folder=SimpleNamespace(folder=tmp_path), console=Console(quiet=True), say=lines.append
    )
    icm.show(rows, session)  # type: ignore[arg-type]
    assert (f"labels: {tmp_path / 'labels'}" in lines) is told
