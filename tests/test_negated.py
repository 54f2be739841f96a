"""The example that negates a set: labels turned round, groups and splits kept, doubt refused."""

import importlib.util
from pathlib import Path

import pytest

from jelicit.data.datasets import load_dataset
from jelicit.data.items import Item, save_items

EXAMPLE = Path(__file__).resolve().parents[1] / "docs/examples/negated.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("negated", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_set_and_its_twin(example, tmp_path):
    for split in ("train", "test"):
        rows = [
            Item(
                id=f"{split}/{k}",
                choice=f"Town{k} is in Chile.",
                label=k == 0,
                group=split + "01"[k],
            )
            for k in range(2)
        ]
        save_items(tmp_path / f"cities/{split}.jsonl", rows)
    example.main(example.Settings(dataset=str(tmp_path / "cities"), out=tmp_path / "neg_cities"))
    there, twin = load_dataset(str(tmp_path / "cities")), load_dataset(str(tmp_path / "neg_cities"))
    assert twin.name == "neg_cities"
    assert [item.choice for item in twin.train] == [
        "Town0 is not in Chile.",
        "Town1 is not in Chile.",
    ]
    for split in ("train", "test"):
        for item, of_twin in zip(getattr(there, split), getattr(twin, split), strict=True):
            assert of_twin.label is (not item.label)
            assert (of_twin.group, of_twin.split) == (item.group, split)


@pytest.mark.parametrize("choice", ["Rain is wet.", "'in' means 'is in ' and means so."])
def test_what_cannot_be_negated_surely_is_refused(example, choice):
    with pytest.raises(ValueError, match="needs one of"):
        example.negated(Item(id="a", choice=choice, label=True), "neg")
