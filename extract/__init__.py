"""Everything that touches a language model: hidden states and log-probabilities, onto disk.

`open_model("pocket")`, or a Hugging Face id or folder, gives a model for `jelicit.studies`;
`open_server(url)` one on a server, `open_chat(url)` one that only chats. `python -m extract run`
writes an activation store; `jelicit.activations` reads it. Of jelicit only `jelicit.data`,
`jelicit.activations` and the ground floor are imported here.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from extract.opened import OpenedModel, open_model
    from extract.served import ServedChat, ServedModel, open_chat, open_server

_HOME = {
    "OpenedModel": "extract.opened",
    "ServedChat": "extract.served",
    "ServedModel": "extract.served",
    "open_chat": "extract.served",
    "open_model": "extract.opened",
    "open_server": "extract.served",
}

__all__ = [
    "OpenedModel",
    "ServedChat",
    "ServedModel",
    "open_chat",
    "open_model",
    "open_server",
]


def __getattr__(name: str) -> Any:
    # On demand: a command's help need not wait for torch.
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'extract' has no attribute {name!r}")
