"""A method of the user's own file is a method like any other."""

import dataclasses
import re
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from planted import planted
from sklearn.linear_model import Ridge

from jelicit.method_names import in_reading_order, method_of
from jelicit.named import resolve
from jelicit.probes import Data, FitInfo, LinearProbe, Method, Run, count, rate
from jelicit.probes.ccs import CCS
from jelicit.probes.normalise import fit_normaliser, normalise
from jelicit.probes.registry import BUILT_IN, crossable, get_method, get_methods, needing
from jelicit.probes.sweep import FitStore, SweepConfig, SweepData, check_config, sweep, sweeping
from jelicit.studies.fit_settings import FitSettings, crossed

EXAMPLE = Path(__file__).resolve().parents[1] / "docs" / "examples" / "own_method.py"
N, D, RUNS = 60, 12, 3
HARD, LABELS, _ = planted(N, D, seed=0, strength=0.5)


@pytest.fixture
def reference(tmp_path) -> str:
    return f"{shutil.copy(EXAMPLE, tmp_path / 'own_method.py')}:RIDGE"


def data(**changes) -> SweepData:
    base = SweepData(
        hard={2: HARD},
        layers=(2,),
        subsets=np.random.default_rng(0).random((RUNS, N)) < 0.8,
        seeds=np.arange(RUNS),
        hard_targets=LABELS,
    )
    return dataclasses.replace(base, **changes)


def test_it_is_fitted_beside_the_built_in_ones_and_is_ridge_regression(reference):
    config = SweepConfig(methods=("ccs", reference), ccs_steps=5, own={"ridge_penalty": 0.01})
    result = sweep(data(), config)
    assert result.methods == ("ccs", "ridge")
    assert result.info["ridge"].finite.all()
    for run, rows in enumerate(data().subsets):
        chosen = HARD.take(np.flatnonzero(rows))
        phi = normalise(fit_normaliser(chosen, fitted_on="its rows"), chosen)
        exact = Ridge(alpha=0.01 * rows.sum(), fit_intercept=False, tol=1e-12)
        exact.fit(np.float64(phi.pos - phi.neg), 2 * LABELS[rows] - 1)
        weight = np.asarray(result.probes["ridge"].weight[0, run])
        np.testing.assert_allclose(weight, exact.coef_, atol=1e-3 * np.abs(exact.coef_).max())


def test_the_object_is_the_same_as_its_name(reference):
    method = resolve(reference, Method, what="method")
    assert get_method(reference) is get_method(method) is method
    by_name, by_object = (
        sweep(data(), SweepConfig(methods=(each,))).probes["ridge"] for each in (reference, method)
    )
    np.testing.assert_array_equal(by_name.weight, by_object.weight)


def test_its_setting_varies_per_run(reference):
    config = SweepConfig(methods=(reference,))
    penalties = np.array([1e-4, 1e-2, 1.0])
    same = data(subsets=np.ones((RUNS, N), bool), seeds=np.zeros(RUNS, int))
    mixed = sweep(same, config.with_settings({"ridge_penalty": penalties}))
    for run, penalty in enumerate(penalties):
        alone = sweep(same, dataclasses.replace(config, own={"ridge_penalty": penalty}))
        expected = np.asarray(alone.probes["ridge"].weight[0, 0])
        found = np.asarray(mixed.probes["ridge"].weight[0, run])
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())
    lengths = np.linalg.norm(mixed.probes["ridge"].weight[0], axis=1)
    assert lengths[0] > lengths[1] > lengths[2]  # a penalty shrinks


def test_its_setting_is_crossed_on_a_command_line_and_has_a_range(reference):
    words = ["ridge_penalty=0.1,1", "ccs_steps=5,10"]
    assert crossed(words, FitSettings(), (reference,)) == {
        "ridge_penalty": (0.1, 1.0),
        "ccs_steps": (5, 10),
    }
    with pytest.raises(ValueError, match=r"ridge_penalty=0.1,1: give NAME=VALUE,VALUE"):
        crossed(words, FitSettings(), ("ccs",))
    with pytest.raises(ValueError, match="ridge_penalty takes numbers"):
        crossed(["ridge_penalty=much"], FitSettings(), (reference,))
    assert crossable((reference,))["ridge_penalty"].per_run
    config = SweepConfig(methods=("ccs", reference)).with_settings({"ridge_penalty": -1.0})
    assert config.own == {"ridge_penalty": -1.0}
    with pytest.raises(ValueError, match=r"ridge_penalty is -1.0; allowed: finite .*above 0"):
        sweep(data(), config)
    with pytest.raises(ValueError, match=r"own has 'ridge_penalti'.* ridge: they have ridge_pena"):
        check_config(dataclasses.replace(config, own={"ridge_penalti": 1.0}))
    with pytest.raises(ValueError, match=r"ridge_penalty has shape \(2,\)"):
        sweep(data(), dataclasses.replace(config, own={"ridge_penalty": np.ones(2)}))


def test_it_needs_what_it_says(reference):
    assert needing(("ccs", reference), "targets") == ["ridge"]
    with pytest.raises(ValueError, match=r"\['ridge'\] learn from hard_targets"):
        sweep(data(hard_targets=None), SweepConfig(methods=(reference,)))


def test_tables_show_its_own_title(reference):
    get_method(reference)
    assert method_of("ridge")[1:] == ("Ridge regression", "Ceiling")
    assert method_of("ridge_rebalanced").name == "Ridge regression, rebalanced"
    ordered = [method.key for method in in_reading_order(["what", "ridge", "lda", "ccs", "icm"])]
    assert ordered == ["icm", "ccs", "lda", "ridge", "what"]


def test_kept_fits_of_a_file_that_changed_are_not_read_back(tmp_path, monkeypatch):
    store = FitStore(tmp_path / "fits")
    for folder in ("one", "other"):
        (tmp_path / folder).mkdir()
    text = EXAMPLE.read_text(encoding="utf-8")
    names = [f"{tmp_path / folder / 'own.py'}:RIDGE" for folder in ("one", "other")]
    (tmp_path / "one" / "own.py").write_text(text, encoding="utf-8")
    changed = text.replace("(2 * data.targets() - 1)", "(4 * data.targets() - 2)")
    assert changed != text
    (tmp_path / "other" / "own.py").write_text(changed, encoding="utf-8")
    first, second = (sweep(data(), SweepConfig(methods=(name,)), store=store) for name in names)
    one, other = (np.asarray(each.probes["ridge"].weight) for each in (first, second))
    np.testing.assert_allclose(other, 2 * one, rtol=1e-3, atol=1e-3 * np.abs(one).max())
    monkeypatch.setattr(sweeping, "fit_together", lambda *_: pytest.fail("fitted again"))
    again = sweep(data(), SweepConfig(methods=(names[0],)), store=store)
    np.testing.assert_array_equal(again.probes["ridge"].weight, one)
    assert isinstance(again.info["ridge"], FitInfo)


# --- declarations --------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bare:
    steps: int = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Taken:
    divisor: float = rate(1.0, above=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outside:
    strength: float = rate(-1.0, above=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clash:
    patience: int = count(3)


def peek(run: Run, data: Data, settings: None) -> LinearProbe:
    """A fit that looks at all labels it can see: their sum is its weight."""
    seen = [part for part in (data.hard_targets, data.easy, data.easy_labels) if part is not None]
    total = sum(jnp.sum(leaf) for leaf in jax.tree.leaves(seen)) if seen else jnp.zeros(())
    weight = jnp.zeros(data.hard.pos.shape[1]) + total
    return LinearProbe(weight=weight, bias=jnp.zeros(()), offset=jnp.zeros(()))


def method(**changes) -> Method:
    chosen = {
        "name": "mine",
        "title": "Mine",
        "group": "Unsupervised",
        "fit": peek,
        "free_sign": True,
        "source": "a test",
        **changes,
    }
    return Method(**chosen)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "My method"}, "'My method': use small letters"),
        ({"title": ""}, "title is empty"),
        ({"group": "Best"}, "group='Best'; choose one of Prompting, Coherence"),
        ({"needs": {"labels"}}, "needs 'labels'; allowed: targets, easy"),
        ({"algorithm": 0}, "count from 1"),
        ({"settings": Bare}, "setting 'steps' has no range; make the field by rate"),
        ({"settings": Taken}, "setting 'divisor' bears a name that a sweep has for itself"),
        ({"settings": Outside}, "strength is -1.0; allowed"),
        ({"settings": dict}, "give a frozen dataclass"),
        ({"info": tuple}, "give a named tuple with a field 'finite'"),
    ],
)
def test_a_declaration_that_is_wrong_is_refused(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        method(**changes)


def test_a_setting_of_a_built_in_name_has_to_be_that_setting():
    with pytest.raises(ValueError, match="'patience' of method 'mine' bears the name of a built"):
        check_config(SweepConfig(methods=(method(settings=Clash),)))


def test_no_method_passes_for_a_built_in_one():
    with pytest.raises(ValueError, match="bears the name of the built-in 'ccs'"):
        get_method(method(name="ccs"))
    assert get_method(CCS) is CCS
    with pytest.raises(ValueError, match="names 'mine' twice"):
        get_methods((method(), method(title="Mine again")))


def test_a_fit_sees_no_label_that_it_does_not_need():
    easy, easy_labels, _ = planted(20, D, seed=1)
    both = data(easy={2: easy}, easy_labels=easy_labels)
    for needs in ((), ("targets",), ("easy",)):
        # Beside methods that need all labels.
        config = SweepConfig(methods=("supervised", "e2h", method(needs=set(needs))), bce_steps=1)
        seen = np.asarray(sweep(both, config).probes["mine"].weight)
        assert bool((seen != 0).all()) == bool(needs)
    (found,) = np.unique(
        sweep(both, SweepConfig(methods=(method(needs={"targets"}),))).probes["mine"].weight
    )
    used = both.subsets.any(axis=0)
    assert found == pytest.approx(np.where(used, LABELS, 0.5).sum())


def test_what_a_fit_returns_is_looked_at():
    with pytest.raises(TypeError, match="fit of 'mine' returned a float; return a LinearProbe"):
        sweep(data(), SweepConfig(methods=(method(fit=lambda *_: 1.0),)))
    with pytest.raises(TypeError, match=r"returned info of type int; .* info=FitInfo"):
        sweep(data(), SweepConfig(methods=(method(fit=lambda *a: (peek(*a), 3)),)))


def test_every_built_in_method_says_where_it_is_from():
    assert all(each.source for each in BUILT_IN)
    assert len({each.title for each in BUILT_IN}) == len(BUILT_IN)
