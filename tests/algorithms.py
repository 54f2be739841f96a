"""What each algorithm's number stands for: a digest of its code, and truth scores of a small sweep.

    python tests/algorithms.py

writes `algorithms.json` anew where the code behind a fit changed and its numbers did not, or where
the number of an algorithm was raised.
"""

import ast
import hashlib
import json
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from planted import planted

from jelicit.probes.config import SweepConfig
from jelicit.probes.normalise import ALGORITHM as NORMALISER
from jelicit.probes.registry import ALL_METHODS, BUILT_IN
from jelicit.probes.sweep import SweepData, sweep
from jelicit.probes.sweep.fitting import ALGORITHM as SWEEP

ROOT = Path(__file__).resolve().parents[1]
FILE = Path(__file__).with_suffix(".json")
DECIDING = ("jelicit.probes.", "jelicit.pairs", "jelicit.metrics")
# They say what a method is and decide no number: a word of help is no other algorithm.
DECLARING = tuple(f"jelicit.probes.{name}" for name in ("method", "settings", "config", "registry"))
STAGES = {
    "normaliser": (NORMALISER, "jelicit.probes.normalise"),
    "sweep": (SWEEP, "jelicit.probes.sweep.fitting"),
}
"""What all fits go through, beside their own code."""

TOLERANCE = 1e-3
"""Of the spread of the scores: another machine sums in another order, another algorithm does more.
"""


def digest_of(module: str) -> str:
    """A hash of the code of a module and of all that it imports of what decides numbers."""
    code = {name: _code(name) for name in sorted({module, *_imported(module)})}
    return hashlib.blake2b(json.dumps(code).encode(), digest_size=16).hexdigest()


def _imported(module: str, seen: frozenset[str] = frozenset()) -> set[str]:
    names = {
        name
        for name in _imports(_tree(module))
        if name.startswith(DECIDING) and name not in DECLARING and name not in seen
    }
    deeper = (_imported(name, seen | names | {module}) for name in names)
    return names.union(*deeper)


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            # `from jelicit.probes.sweep import fitting` names a module, too.
            yield from (
                name
                for alias in node.names
                if _path(name := f"{node.module}.{alias.name}").is_file()
            )


def _path(module: str) -> Path:
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _tree(module: str) -> ast.Module:
    return ast.parse(_path(module).read_text(encoding="utf-8"))


def _code(module: str) -> str:
    """A module without comments, docstrings and layout, and without its methods' declarations."""
    tree = _tree(module)
    tree.body = [node for node in tree.body if not _is_declaration(node)]
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            kept = [each for each in body if not _is_text(each)]
            node.body = kept  # type: ignore[attr-defined]
    return ast.unparse(tree)


def _is_declaration(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Call)
        and getattr(node.value.func, "id", "") == "Method"
    )


def _is_text(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def digests() -> dict[str, str]:
    """Method or stage -> the digest of the code behind its numbers."""
    modules = {method.name: method.fit.__module__ for method in BUILT_IN}
    modules |= {stage: module for stage, (_, module) in STAGES.items()}
    return {name: digest_of(import_module(module).__name__) for name, module in modules.items()}


def numbers() -> dict[str, int]:
    """Method or stage -> the number of its algorithm."""
    methods = {method.name: method.algorithm for method in BUILT_IN}
    return methods | {stage: number for stage, (number, _) in STAGES.items()}


def golden() -> dict[str, list[float]]:
    """Method -> truth scores of a few items in two runs, of every optimiser that it has."""
    hard, labels, _ = planted(40, 8, seed=0, strength=0.6)
    easy, easy_labels, _ = planted(30, 8, seed=1)
    data = SweepData(
        hard={3: hard},
        layers=(3,),
        subsets=np.random.default_rng(0).random((2, 40)) < 0.7,
        seeds=np.arange(2),
        hard_targets=labels,
        easy={3: easy},
        easy_labels=easy_labels,
    )
    scores: dict[str, list[float]] = {name: [] for name in ALL_METHODS}
    for optimiser in ("adamw", "lbfgs"):
        config = SweepConfig(
            methods=ALL_METHODS,
            optimiser=optimiser,
            ccs_steps=20,
            bce_steps=20,
            lbfgs_steps=3,
            ensemble_size=4,
        )
        for name, found in sweep(data, config).score(3, hard.take(np.arange(6))).items():
            scores[name] += np.asarray(found, np.float64).ravel().tolist()
    return scores


def differs(scores: list[float], others: list[float]) -> bool:
    """Whether these are the numbers of another algorithm."""
    if len(scores) != len(others):
        return True
    return not np.allclose(scores, others, rtol=0, atol=TOLERANCE * np.std(others))


def recorded() -> dict[str, Any]:
    """What the file holds."""
    return json.loads(FILE.read_text(encoding="utf-8"))


def changed_without_a_number(scores: dict[str, list[float]], before: dict[str, Any]) -> list[str]:
    """Methods whose numbers changed while no number of an algorithm behind them did."""
    stages = [name for name in STAGES if numbers()[name] != before["numbers"].get(name)]
    return [
        name
        for name, now in scores.items()
        if name in before["scores"]
        and differs(now, before["scores"][name])
        and not stages
        and numbers()[name] == before["numbers"][name]
    ]


def main() -> None:
    """Write the file, unless a number would have to be raised first."""
    scores = golden()
    silent = changed_without_a_number(scores, recorded()) if FILE.exists() else []
    if silent:
        raise SystemExit(
            f"The numbers of {', '.join(silent)} changed: raise `algorithm` where each is declared "
            "(or ALGORITHM of a stage), then run this again."
        )
    rounded = {name: [float(f"{score:.6g}") for score in each] for name, each in scores.items()}
    contents = {"numbers": numbers(), "digests": digests(), "scores": rounded}
    # A line a key: a change of one method shows as such.
    parts = [
        f'"{part}": {{\n'
        + ",\n".join(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in entry.items())
        + "\n}"
        for part, entry in contents.items()
    ]
    FILE.write_text("{\n" + ",\n".join(parts) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
