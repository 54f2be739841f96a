"""Items, the sets they come from, the prompts they become, and the features added to them."""

from jelicit.data.datasets import Dataset, known_names, load_dataset
from jelicit.data.describe import describe, table
from jelicit.data.features import FEATURES, Feature, add_feature
from jelicit.data.items import (
    Item,
    digest,
    label_of,
    labels,
    load_items,
    save_items,
    split_by_group,
    with_target,
)
from jelicit.data.prompts import (
    FORMATS,
    PromptFormat,
    contrast_pair,
    few_shot,
    get_format,
    segments,
    zero_shot,
)
from jelicit.data.subsets import balanced_rows, class_share_rows

__all__ = [
    "FEATURES",
    "FORMATS",
    "Dataset",
    "Feature",
    "Item",
    "PromptFormat",
    "add_feature",
    "balanced_rows",
    "class_share_rows",
    "contrast_pair",
    "describe",
    "digest",
    "few_shot",
    "get_format",
    "known_names",
    "label_of",
    "labels",
    "load_dataset",
    "load_items",
    "save_items",
    "segments",
    "split_by_group",
    "table",
    "with_target",
    "zero_shot",
]
