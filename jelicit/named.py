"""Names: what a user's own file declares, as `package.module:NAME` or `folder/file.py:NAME`.

Methods, data sets, features, prompt formats and studies are all found in this one way, so that
whatever ships with the project and whatever a user writes are asked for alike.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import TypeVar

T = TypeVar("T")

_REFERENCE = re.compile(r"(?P<module>[A-Za-z_][\w.]*|.+\.py):(?P<name>[A-Za-z_]\w*)")


def is_reference(text: str) -> bool:
    """Whether a text reads as `package.module:NAME` or `folder/file.py:NAME`."""
    return _REFERENCE.fullmatch(text) is not None


def resolve(reference: str, kind: type[T], *, what: str) -> T:
    """The object that a reference names.

    A module is looked for as Python does, and in the working directory; a file is run once however
    often it is named.

    Args:
        reference: `package.module:NAME` or `folder/file.py:NAME`.
        kind: What it has to be.
        what: What the user calls it ("method", "data set"), for messages.

    Raises:
        ValueError: No such module, file or name, or it is something else. An error inside the
            module is the user's own and is not caught.
    """
    found = _REFERENCE.fullmatch(reference)
    if found is None:
        raise ValueError(
            f"{what} {reference!r} is no reference; write package.module:NAME or file.py:NAME"
        )
    module = _module(found["module"], reference, what)
    if not hasattr(module, found["name"]):
        there = [name for name, value in vars(module).items() if isinstance(value, kind)]
        has = f"it has {', '.join(sorted(there))}" if there else f"it has no {kind.__name__}"
        raise ValueError(f"{what} {reference!r}: the module has no {found['name']!r}; {has}")
    value = getattr(module, found["name"])
    if not isinstance(value, kind):
        raise ValueError(
            f"{what} {reference!r} is a {type(value).__name__}; expected a {kind.__name__}"
        )
    return value


def _module(name: str, reference: str, what: str) -> ModuleType:
    if name.endswith(".py"):
        return _file(Path(name), reference, what)
    here = str(Path.cwd())
    added = here not in sys.path
    if added:  # `python experiments/salience.py` looks in experiments/ only
        sys.path.append(here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # One that the user's own module fails to import is the user's to see.
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        raise ValueError(
            f"{what} {reference!r}: there is no module {error.name!r}; looked for it in "
            f"{here} and where Python looks"
        ) from error
    finally:
        if added:
            sys.path.remove(here)


def _file(path: Path, reference: str, what: str) -> ModuleType:
    if not path.is_file():
        raise ValueError(f"{what} {reference!r}: there is no file {path}")
    name = f"jelicit_user_{path.resolve().as_posix()}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look up their own module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def slug(name: str) -> str:
    """A name as part of a path: letters, digits, dot, dash and underscore only."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "unnamed"
