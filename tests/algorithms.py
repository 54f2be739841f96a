"""What each algorithm's number stands for: a digest of its code, and a few numbers that it makes.

    python tests/algorithms.py

writes `algorithms.json` anew where the code behind a fit changed and its numbers did not, or where
the number of an algorithm was raised.
"""

import ast
import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from asked_model import AskedModel
from coherent import FORMAT, Coherent, sums
from planted import planted

from jelicit import indicators
from jelicit.icm import SearchSettings, search
from jelicit.icm.search import ALGORITHM as SEARCH
from jelicit.probes.config import SweepConfig
from jelicit.probes.normalise import ALGORITHM as NORMALISER
from jelicit.probes.registry import ALL_METHODS, BUILT_IN
from jelicit.probes.sweep import SweepData, sweep
from jelicit.probes.sweep.fitting import ALGORITHM as SWEEP
from jelicit.prompting import METHODS as PROMPTING
from jelicit.prompting import calibrated, few_shot, zero_shot_offset
from jelicit.studies import prompt_ensembles, scoring, stress_card, stress_spread
from jelicit.studies.situation import Runs, Situation
from jelicit.studies.spread import SOURCES
from jelicit.studies.stress_cases import PLAIN, Case

ROOT = Path(__file__).resolve().parents[1]
FILE = Path(__file__).with_suffix(".json")
DECIDING = ("jelicit.probes.", "jelicit.pairs", "jelicit.metrics")
# They say what a method is and decide no number: a word of help is no other algorithm.
DECLARING = tuple(f"jelicit.probes.{name}" for name in ("method", "settings", "config", "registry"))
STAGES = {
    "normaliser": (NORMALISER, "jelicit.probes.normalise", DECIDING),
    "sweep": (SWEEP, "jelicit.probes.sweep.fitting", DECIDING),
}
"""What all fits go through, beside their own code: number, module, what decides numbers of it."""

PROMPTS = ("jelicit.prompting.", "jelicit.data.prompts")
ROWS_DECIDING = (
    *("jelicit.studies.scoring", "jelicit.studies.situation", "jelicit.data.subsets"),
    *("jelicit.metrics", "jelicit.pairs", "jelicit.studies.near_best"),
)
STRESS_DECIDING = ("jelicit.studies.stress_", "jelicit.studies.better_sign", "jelicit.metrics")
STUDY_STAGES = {
    "rows": (scoring.ALGORITHM, "jelicit.studies.measuring", ROWS_DECIDING),
    "indicators": (scoring.ALGORITHM, "jelicit.studies.indicating", ("jelicit.indicators",)),
    "prompting": (few_shot.ALGORITHM, "jelicit.prompting.few_shot", PROMPTS),
    "search": (SEARCH, "jelicit.icm", ("jelicit.icm.", *PROMPTS)),
    "calibrated": (calibrated.ALGORITHM, "jelicit.prompting.calibrated", PROMPTS),
    "ensembles": (
        *(prompt_ensembles.ALGORITHM, "jelicit.studies.prompt_ensembles"),
        ("jelicit.studies.measuring", *ROWS_DECIDING),
    ),
    "scorecard": (stress_card.ALGORITHM, "jelicit.studies.stress_card", STRESS_DECIDING),
    "spread": (
        *(stress_spread.ALGORITHM, "jelicit.studies.stress_spread"),
        ("jelicit.studies.spread", *STRESS_DECIDING),
    ),
}
"""What studies do beside fits: they name runs."""

TOLERANCE = 1e-3
"""Of the spread of the scores: another machine sums in another order, another algorithm does more.
"""


def digest_of(module: str, deciding: tuple[str, ...] = DECIDING) -> str:
    """A hash of the code of a module and of all that it imports of what decides numbers."""
    code = {name: _code(_text(name)) for name in sorted({module, *imported(module, deciding)})}
    return hashlib.blake2b(json.dumps(code).encode(), digest_size=16).hexdigest()


def imported(
    module: str, deciding: tuple[str, ...], seen: frozenset[str] = frozenset()
) -> set[str]:
    """What a module imports, directly or not, of what decides numbers."""
    names = {
        name
        for name in _imports(_text(module))
        if name.startswith(deciding) and name not in DECLARING and name not in seen
        if _path(name).is_file()
    }
    deeper = (imported(name, deciding, seen | names | {module}) for name in names)
    return names.union(*deeper)


@cache
def _imports(text: str) -> tuple[str, ...]:
    """Modules, and what may be one: `from jelicit.probes.sweep import fitting` names one, too."""
    return tuple(
        name
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ImportFrom) and node.module
        for name in (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))
    )


def _path(module: str) -> Path:
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _text(module: str) -> str:
    return _path(module).read_text(encoding="utf-8")


@cache
def _code(text: str) -> str:
    """A module without comments, docstrings and layout, and without its methods' declarations."""
    tree = ast.parse(text)
    tree.body = [node for node in tree.body if not _is_declaration(node)]
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            kept = [each for each in body if not _is_text(each)]
            node.body = kept  # type: ignore[attr-defined]
    return _plain(tree)


def _plain(node: object) -> str:
    """A tree as text, the same on every Python: what `ast.unparse` writes differs between them."""
    if isinstance(node, ast.AST):
        fields = ((name, value) for name, value in ast.iter_fields(node) if value not in (None, []))
        return f"{type(node).__name__}({', '.join(f'{n}={_plain(v)}' for n, v in fields)})"
    if isinstance(node, list):
        return f"[{', '.join(map(_plain, node))}]"
    return repr(node)


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
    methods = {method.name: digest_of(method.fit.__module__) for method in BUILT_IN}
    stages = {**STAGES, **STUDY_STAGES}
    return methods | {
        name: digest_of(module, deciding) for name, (_, module, deciding) in stages.items()
    }


def numbers() -> dict[str, int]:
    """Method or stage -> the number of its algorithm."""
    methods = {method.name: method.algorithm for method in BUILT_IN}
    stages = {**STAGES, **STUDY_STAGES}
    return methods | {name: number for name, (number, *_) in stages.items()}


def golden() -> dict[str, list[float]]:
    """Method -> truth scores of a few items in two runs."""
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
    config = SweepConfig(methods=ALL_METHODS, ccs_steps=20, bce_steps=20, ensemble_size=4)
    found = sweep(data, config).score(3, hard.take(np.arange(6)))
    return {name: np.asarray(own, np.float64).ravel().tolist() for name, own in found.items()}


def golden_stages() -> dict[str, list[float]]:
    """Stage of studies -> a few numbers that it makes."""
    return {
        "rows": _rows(),
        "indicators": _indicators(),
        "prompting": _prompting(),
        "search": _search(),
        "calibrated": _calibrated(),
        "ensembles": _ensembles(),
        "scorecard": _scorecard(),
        "spread": _spread(),
    }


def _rows() -> list[float]:
    """Two probes of two methods, one of unknown sign, on the truth and on another label."""
    rng = np.random.default_rng(0)
    train, other, test = (rng.random(n) < 0.5 for n in (40, 40, 30))
    groups = list(np.arange(30) // 2)
    others = {"other": (other, rng.random(30) < 0.5)}
    situation = Situation.of_labels(train, test, others=others, groups=groups)
    runs = Runs.balanced(situation, 2)
    known = {
        name: {method: rng.normal(size=(2, n)) for method in ("pca", "supervised")}
        for name, n in (("train", 40), ("easy", 20), ("test", 30))
    }
    scores = scoring.LayerScores(**known)  # type: ignore[arg-type]
    made: list[dict[str, Any]] = []
    for target in situation.targets():
        signs = scoring.signs(
            scores, target, subsets=runs.subsets, easy_labels=rng.random(20) < 0.5
        )
        made += scoring.method_rows(
            scoring.signed_scores(scores, signs),
            target,
            situation.boot(50),
            layer=1,
            subsets=runs.subsets,
            runs=runs.about,
        )
    measures = ("auroc", "auroc_low", "auroc_high", "accuracy", "accuracy_low", "accuracy_high")
    return [float(row[name]) for row in made for name in ("n_train", *measures)]


def _indicators() -> list[float]:
    """Every indicator of three runs."""
    scores, pos, neg = np.random.default_rng(0).normal(size=(3, 3, 20))
    ranks = indicators.unit_ranks(scores)
    agreement = indicators.method_agreement({"pca": ranks, "ccs": ranks[::-1]}, ("pca", "ccs"))
    made = [
        indicators.seed_agreement(ranks, ({}, {}, {})),
        agreement["pca"],
        indicators.bimodality(scores),
        indicators.dependence(scores, pos[0]),
        indicators.direction_share(scores, np.arange(1, 4), 5.0),
        indicators.pair_consistency(pos, neg),
        indicators.repaired_loss(pos, neg),
    ]
    return np.concatenate(made).tolist()


def _prompting() -> list[float]:
    """Scores of every prompting method, and the labels that it showed."""
    items, made = sums(24), []
    for method in PROMPTING:
        done = few_shot.prompted(
            method, Coherent(by_order=0.5), items[:4], items[4:], FORMAT, shots=(2, 6), seed=1
        )
        made += [*done.scores.tolist(), *done.labels.astype(float).tolist()]
    return made


def _search() -> list[float]:
    """The labels that a search finds, and how it went."""
    settings = SearchSettings(seed=1, draws=30)
    result = search(Coherent(by_order=0.8, lean=0.05), sums(12), FORMAT, settings)
    labels = [-1.0 if label is None else float(label) for label in result.labels]
    steps = [float(step.utility or 0.0) for step in result.history]
    return [*labels, *steps, float(result.converged)]


def _calibrated() -> list[float]:
    """Scores of a calibrated method, the offset of the format, and one of three scores."""
    items, scorer = sums(24), AskedModel()
    done = few_shot.prompted(
        "bootstrapped_calibrated", scorer, items[:4], items[4:], FORMAT, shots=(2, 6), seed=1
    )
    of_three = float(calibrated.offset(np.array([0.3, -2.0, 1.5])))
    labels = done.labels.astype(float).tolist()
    return [of_three, zero_shot_offset(scorer, FORMAT), *done.scores.tolist(), *labels]


def _ensembles() -> list[float]:
    """The mean over three prompts of a probe's scores in two runs, on one scale."""
    rng = np.random.default_rng(0)
    subsets = rng.random((2, 40)) < 0.7
    members = []
    for unit in (0.1, 1.0, 30.0):
        train, test = unit * rng.normal(size=(2, 40)), unit * rng.normal(size=(2, 12))
        scores = scoring.LayerScores(train={"pca": train}, easy=None, test={"pca": test})  # type: ignore[arg-type]
        signed = {("pca", "oracle"): test}
        scaled = scoring.on_one_scale(signed, scores, subsets=subsets)  # type: ignore[arg-type]
        members.append(scaled["pca", "oracle"])
    of_runs = [prompt_ensembles.mean_over_prompts(of_run) for of_run in np.stack(members, axis=1)]
    return np.concatenate(of_runs).tolist()


def _scorecard() -> list[float]:
    """Losses, shares of the ceiling and what is behind the best, of two methods in two cases."""
    columns = [
        f"{name}{end}" for name in ("auroc", "loss", "share") for end in ("", "_low", "_high")
    ]
    columns += ["seed_sd", "ceiling", "counted", "worst", "behind", "behind_low"]
    rows = stress_card.card_rows(_stress_cases(), boot=50)
    # What is behind the best is told of worst cases alone.
    return [float(row.get(name, 0.0)) for row in rows for name in columns]


def _spread() -> list[float]:
    """What AUROCs under three prompts are uncertain from."""
    columns = ("n_prompts", "n_seeds", "auroc", *(f"sd_{name}" for name in SOURCES))
    rows = stress_spread.spread_rows(_stress_cases(), boot=50)
    return [float(row[name]) for row in rows for name in columns]


def _stress_cases() -> list[Case]:
    """Claims of a set as they are and in three prompts, four runs of two methods in each."""
    rng = np.random.default_rng(0)
    labels, groups = np.arange(60) % 2.0, np.array([f"q{row // 2}" for row in range(60)])
    cases = []
    for challenge, name in ((PLAIN, "none"), *(("prompts", f"as {k}") for k in "abc")):
        own = rng.normal(size=60)
        scores = {
            key: gain * labels + 0.5 * own + rng.normal(size=(4, 60))
            for key, gain in ((("supervised", "none"), 3.0), (("pca", "oracle"), rng.uniform(1, 2)))
        }
        cases.append(
            Case(
                challenge=challenge,
                dataset="set",
                name=name,
                labels=labels,
                groups=groups,
                scores=scores,
            )
        )
    return cases


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
        and not (stages and name not in STUDY_STAGES)
        and numbers()[name] == before["numbers"][name]
    ]


def main() -> None:
    """Write the file, unless a number would have to be raised first."""
    scores = golden() | golden_stages()
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
