"""The pocket world: a small synthetic world with facts, speakers, opinions and hidden judges.

It exists so that unsupervised elicitation can be seen to work and to fail without a GPU, a licence
or a download. It offers documents, on which the pocket model is pretrained, and items, on which
methods are tried; it knows nothing of models.
"""

from jelicit.pocket.world.documents import (
    JUDGES,
    Document,
    Mix,
    documents,
    text,
    tokenizer_texts,
    world_texts,
)
from jelicit.pocket.world.kinds import KINDS, Kind
from jelicit.pocket.world.sets import dataset_items

__all__ = [
    "JUDGES",
    "KINDS",
    "Document",
    "Kind",
    "Mix",
    "dataset_items",
    "documents",
    "text",
    "tokenizer_texts",
    "world_texts",
]
