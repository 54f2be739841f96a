"""Values of another type than a setting's are refused by name, before anything is computed."""

import dataclasses
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jelicit import Grid, Pairs, load_dataset, run_grid
from jelicit.data.prompts import get_format
from jelicit.icm.settings import SearchSettings
from jelicit.method_groups import CEILING
from jelicit.probes.method import Method
from jelicit.prompting.consistency import Rule
from jelicit.studies import icm, imbalance, impossible, layers, salience, scaling, transfer
from jelicit.typed import typed

STUDIES = (salience, imbalance, impossible, layers, transfer, scaling, icm)
# None of them is a value of any field that says what it takes.
WRONG: tuple[Any, ...] = (object(), b"x", 1.5 + 2j, {1.5})
N, D = 20, 6
RNG = np.random.default_rng(0)
PAIRS = Pairs(*RNG.normal(size=(2, N, D)).astype(np.float32))
LABELS = (np.arange(N) % 2).astype(np.float32)
UNCHECKED = """
import dataclasses
import numpy as np
from dataclasses import replace
import jax
from jelicit import Pairs, SweepConfig, SweepData, metrics
from jelicit.probes.sweep.checks import check, check_config

tried = 0

def refused(name, call, *values, says=None):
    global tried
    for value in values:
        tried += 1
        try:
            call(value)
        except ValueError as error:
            if (says or name) not in str(error):
                print(name, repr(value)[:40], "told as", error)
        except Exception as error:
            print(name, repr(value)[:40], "ended in", repr(error))
        else:
            print(name, repr(value)[:40], "was taken")

n, d = 20, 6
rng = np.random.default_rng(0)
pairs = Pairs(*rng.normal(size=(2, n, d)).astype(np.float32))
labels = (np.arange(n) % 2).astype(np.float32)
arrays = {"subsets": np.ones((1, n), bool), "seeds": np.array([0]), "hard_targets": labels}
data = SweepData(hard={0: pairs}, layers=(0,), easy={0: pairs}, easy_labels=labels, **arrays)
config = SweepConfig()
wrong = (object(), b"x", 1.5 + 2j, {1.5})
check(data, config)
for name in (field.name for field in dataclasses.fields(SweepConfig)):
    says = "method" if name == "methods" else name
    refused(name, lambda v: check_config(replace(config, **{name: v})), *wrong, says=says)
for name in ("memory_budget", "devices", "restarts", "ccs_steps"):
    more = (2**40,) if name != "memory_budget" else ()
    counts = ("3", None, True, 1.5, -1, *more)
    refused(name, lambda v: check_config(replace(config, **{name: v})), *counts)
for name in (field.name for field in dataclasses.fields(SweepData)):
    if name != "rows_name":
        refused(name, lambda v: check(replace(data, **{name: v}), config), *wrong, 1.5, "ab")
for name in ("hard_ids", "easy_ids"):
    check(replace(data, **{name: [*map(str, range(n))]}), config)
    refused(name, lambda v: check(replace(data, **{name: v}), config), ["a"])
scores = rng.normal(size=n)
several = (None, object(), {}, "ab", 10**400, [0.5] * n)
refused("labels", lambda v: metrics.auroc(scores, v), *several)
refused("labels", lambda v: metrics.orient(scores, v), *several)
draw = lambda v: metrics.group_bootstrap(jax.random.key(0), ["a", "b"], v)
refused("n_boot", draw, *wrong, 1.5, None, "3", 0, 10**400)
print(f"tried {tried} values")
"""


def names(cls: Any, *without: str) -> list[str]:
    return [field.name for field in dataclasses.fields(cls) if field.name not in without]


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.STUDY.name)
def test_the_defaults_of_every_study_are_of_their_types(study):
    settings = study.Settings()
    assert typed(settings) is settings


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.STUDY.name)
def test_every_setting_of_every_study_has_a_type(study):
    for name in names(study.Settings):
        for value in WRONG:
            with pytest.raises(ValueError, match=rf"^{name} is .*\({type(value).__name__}\)"):
                typed(replace(study.Settings(), **{name: value}))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": 1.5}, "seeds is 1.5 (float); allowed: a whole number"),
        ({"seeds": (1.5,)}, "seeds is (1.5,) (tuple); allowed: a whole number"),
        ({"boot": True}, "boot is True (bool); allowed: a whole number"),
        ({"methods": "ccs"}, "methods is 'ccs' (str); allowed: a sequence, each text"),
        ({"max_rows": None, "boot": "9"}, "boot is '9' (str); allowed: a whole number"),
        ({"overlap": "drp"}, "overlap is 'drp' (str); allowed: one of drop, refuse, keep"),
        ({"out": 3}, "out is 3 (int); allowed: a Path or None"),
    ],
)
def test_a_study_asks_for_types_before_it_asks_a_model(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        salience.run(None, quiet=True, **options)


def test_what_has_a_name_may_stand_for_it():
    ridge = Method(
        name="ridge", title="R", group=CEILING, fit=print, free_sign=True, source="a test"
    )
    claim = get_format("claim")
    settings = typed(salience.Settings(methods=(ridge,), format=(claim,)))  # type: ignore[arg-type]
    assert settings.methods == (ridge,)
    assert settings.format == (claim,)


def test_the_settings_of_fits_are_looked_into():
    fit = replace(salience.Settings().fit, restarts=1.5, memory_gb="2")
    with pytest.raises(ValueError, match=r"restarts is 1\.5 .*; memory_gb is '2'"):
        typed(salience.Settings(fit=fit))


def test_types_that_only_a_type_checker_knows_are_not_asked_for():
    own = dataclasses.make_dataclass("Own", [("where", "Nowhere"), ("n", int)])
    settings = own(where=1, n="x")
    assert typed(settings) is settings


def test_what_means_the_same_is_taken():
    settings = typed(
        salience.Settings(
            methods=["ccs", "pca"],  # type: ignore[arg-type]
            seeds=np.int64(4),  # type: ignore[arg-type]
            out="runs/x",  # type: ignore[arg-type]
            fit=replace(salience.Settings().fit, memory_gb=3),
        )
    )
    assert (settings.methods, settings.seeds, settings.out) == (("ccs", "pca"), 4, Path("runs/x"))
    assert type(settings.seeds) is int
    assert settings.fit.memory_gb == 3


@pytest.mark.parametrize("name", names(SearchSettings))
@pytest.mark.parametrize("value", WRONG, ids=lambda value: type(value).__name__)
def test_of_a_search(name, value):
    with pytest.raises(ValueError, match=name):
        SearchSettings(**{name: value})


def test_a_rule_of_ones_own_is_of_its_type():
    own = Rule("own", lambda a, x, b, y: True)
    assert SearchSettings(rule=own, seed=np.int64(3)).objective.rule is own  # type: ignore[arg-type]


@pytest.mark.parametrize("name", names(Grid))
def test_of_a_grid(name):
    for value in (*WRONG, 1.5, "ab"):
        with pytest.raises(ValueError, match=name):
            Grid(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        *(({name: 1.5}, "hidden states are a float") for name in ("train", "test")),
        ({"easy": np.ones((N, D)), "easy_labels": LABELS}, "hidden states are a ndarray"),
        ({"labels": None}, "label"),
        ({"test_labels": None}, "label"),
        ({"others": 1.5}, "others is a float"),
    ],
)
def test_of_what_a_grid_is_fitted_on(changes, message):
    data = {"train": PAIRS, "labels": LABELS, "test": PAIRS, "test_labels": LABELS, **changes}
    with pytest.raises(ValueError, match=message):
        run_grid(Grid(methods=("pca",), seeds=(0,)), **data)


def test_of_sweeps_and_metrics():
    """In a process of its own: here, every call into them is type-checked before they see it."""
    done = subprocess.run([sys.executable, "-c", UNCHECKED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["tried 190 values"]


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name in ("seed", "max_train", "max_test") for value in ("3", 1.5, (1,))]
    + [("balance", ["x"]), ("seed", None), ("seed", -1)],
)
def test_of_a_data_set(name, value):
    with pytest.raises(ValueError, match=f"^{name} is "):
        load_dataset("pocket/arithmetic", **{name: value})


@pytest.mark.parametrize("name", [None, 3, b"x", ["pocket/facts"]], ids=str)
def test_a_data_set_is_named_by_a_text_or_a_path(name):
    with pytest.raises(ValueError, match="a data set is named"):
        load_dataset(name)
