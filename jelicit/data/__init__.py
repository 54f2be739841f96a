"""Items, the sets they come from, the prompts they become, and the features added to them."""

from jelicit.data.datasets import Dataset, known_names, load_dataset, title_of
from jelicit.data.describe import describe, table
from jelicit.data.features import DISTRACTORS, FAINT, FEATURES, Feature, add_feature, get_feature
from jelicit.data.formats import PromptFormat
from jelicit.data.hub import HubFiles
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
from jelicit.data.named_sets import NamedSet, Request
from jelicit.data.prompts import (
    FORMATS,
    contrast_pair,
    few_shot,
    get_format,
    segments,
    zero_shot,
)
from jelicit.data.subsets import balanced_rows, class_share_rows

__all__ = [
    "DISTRACTORS",
    "FAINT",
    "FEATURES",
    "FORMATS",
    "Dataset",
    "Feature",
    "HubFiles",
    "Item",
    "NamedSet",
    "PromptFormat",
    "Request",
    "add_feature",
    "balanced_rows",
    "class_share_rows",
    "contrast_pair",
    "describe",
    "digest",
    "few_shot",
    "get_feature",
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
    "title_of",
    "with_target",
    "zero_shot",
]
