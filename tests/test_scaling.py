"""Several models side by side: each one's rows are its own, one is in memory at a time."""

import re
import shutil
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
import tyro
from experiment_scripts import run as run_script
from experiment_scripts import run_served, script, session_of
from figure_rows import NAN
from safetensors.numpy import load_file

from jelicit.figures import scaling_figure
from jelicit.figures.scaling import size_name
from jelicit.studies import icm, salience, scaling
from jelicit.studies.models import OTHERS, POCKET, Models, family_of
from jelicit.studies.scaling import label_reading
from jelicit.studies.scaling_findings import scaling_findings
from jelicit.studies.settings import PromptSettings

pytest.importorskip("torch", reason="the experiment needs the extract extra")

from extract.foreseen import Foreseen
from extract.opened import open_model

SET = ("--dataset", "pocket/arithmetic")
PROBES = (
    *("--max-rows", "60", "--seeds", "2", "--boot", "20"),
    *("--methods", "pca", "supervised", "--easy", "none"),
)
EXAMPLES = ("--n", "4", "--tests", "8")


@pytest.fixture(scope="module")
def models(random_model, tmp_path_factory):
    """Two random models: the session's, and a wider one in a folder called "model"."""
    from random_pocket import export_random

    wider = export_random(tmp_path_factory.mktemp("wide") / "wider" / "model", d_model=64)
    return random_model, wider


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("scaling")


@pytest.fixture(scope="module")
def done(models, place):
    words = (*SET, *PROBES, *EXAMPLES, "--examples", "golden_many_shot", "wrong_many_shot", "icm")
    with script("scaling") as found:
        return run_served(
            found,
            *("--models", *map(str, models), "--stores", str(place / "stores"), *words),
            out=place / "out",
        )


def test_every_model_is_measured_as_if_it_were_alone(done, models, place):
    with script("salience") as found:
        alone = run_script(
            found,
            *(*SET, *PROBES, "--features", "none", "--prompting", "none"),
            model=models[1],
            stores=place / "stores",
            out=place / "alone",
        ).rows
    with script("icm") as found:
        words = ("--methods", "golden_many_shot", "wrong_many_shot", "icm", "--seeds", "1")
        asked = run_served(
            found,
            *(*SET, *EXAMPLES, *words, "--initial", "4", "--boot", "20"),
            *("--model", str(models[1]), "--stores", str(place / "stores")),
            out=place / "icm",
        ).rows
    own = done.rows.loc[done.rows["model"] == "wider"]
    key = ["method", "orientation", "seed"]
    for expected in (alone, asked):
        values = ["auroc", "accuracy", "auroc_low", "auroc_high"]
        mine = own.loc[own["method"].isin(expected["method"])]
        pd.testing.assert_frame_equal(
            pd.DataFrame(mine.set_index(key)[values].sort_index()),
            pd.DataFrame(expected.set_index(key)[values].sort_index()),
        )
    assert len(own) == len(alone) + len(asked)


def test_rows_say_how_large_each_model_is(done, models):
    sizes = done.rows.groupby("model")["parameters"].unique()
    for folder, name in zip(models, ("tiny", "wider"), strict=True):
        tensors = load_file(folder / "model.safetensors")
        # Output embeddings are the input's, and are written once.
        assert sizes[name].tolist() == [sum(t.size for t in tensors.values())]
    assert set(done.rows["family"]) == {POCKET}


def test_the_same_command_again_measures_nothing(done, models, place):
    words = (*SET, *PROBES, *EXAMPLES, "--examples", "golden_many_shot", "wrong_many_shot", "icm")
    with script("scaling") as found:
        again = run_served(
            found,
            *("--models", *map(str, models), "--stores", str(place / "stores"), *words),
            out=place / "out",
        )
    assert again.rows.empty
    assert len(re.findall("reused", again.printed)) == 4  # probes and examples of two models


# --- one in memory at a time ---------------------------------------------------------------------


class Kept:
    """A model that counts how many are in memory."""

    loaded: ClassVar[list[str]] = []
    trained_length = foreseen = None

    def __init__(self, name):
        self._name = name

    @property
    def name(self):
        if self._name not in self.loaded:
            self.loaded.append(self._name)
        return self._name

    def release(self):
        self.loaded.remove(self._name)


def of(models: Any) -> Models:
    return Models(models)


def test_a_model_is_put_away_before_the_next_one_is_loaded():
    Kept.loaded.clear()
    at_most = [list(Kept.loaded) for _ in of([Kept("a"), Kept("b"), Kept("c")]).in_turn()]
    assert at_most == [["a"], ["b"], ["c"]]
    assert not Kept.loaded


def test_a_model_is_put_away_when_its_measurement_fails():
    Kept.loaded.clear()
    turn = of([Kept("a"), Kept("b")]).in_turn()
    next(turn)
    with pytest.raises(RuntimeError, match="broke"):
        turn.throw(RuntimeError("broke"))
    assert not Kept.loaded


def test_two_models_of_one_name_are_refused():
    Kept.loaded.clear()
    turn = of([Kept("a"), Kept("a")]).in_turn()
    next(turn)
    with pytest.raises(ValueError, match="two models are called 'a'"):
        next(turn)


# --- before the first is loaded ------------------------------------------------------------------


def copied(model, folder):
    shutil.copytree(model, folder)
    return folder


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ("b/tiny", "are both called 'tiny', and rows tell models apart by name"),
        ("b/tiny/model", "are both called 'tiny', and rows tell models apart by name"),
        ("b/copy", "are the same model, byte for byte"),
    ],
)
def test_two_alike_are_refused_before_any_is_loaded(
    second, message, random_model, tmp_path, monkeypatch
):
    first = copied(random_model, tmp_path / "a" / "tiny")
    other = copied(random_model, tmp_path / second)
    monkeypatch.setattr("extract.opened.load", lambda *_, **__: pytest.fail("it was loaded"))
    with script("scaling") as found:
        settings = tyro.cli(found.Settings, args=["--models", str(first), "pocket", str(other)])
        settings = replace(settings, out=tmp_path / "out")
        with pytest.raises(ValueError, match=message) as error:
            found.main(settings)
    assert f"{first} and {other}" in str(error.value)


def test_models_of_other_files_pass_and_are_not_read_where_sizes_tell(
    random_model, tmp_path, monkeypatch
):
    other = copied(random_model, tmp_path / "other")
    longer = copied(random_model, tmp_path / "longer")
    with (longer / "config.json").open("a") as file:
        file.write("\n")
    weights = other / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    of([open_model(str(each)) for each in (random_model, other)]).check_different()
    monkeypatch.setattr("extract.foreseen.digest_of_paths", lambda _: pytest.fail("it was read"))
    models = [open_model(str(each)) for each in (random_model, longer, "pocket", "owner/name")]
    of(models).check_different()


def test_what_is_foreseen_is_what_loading_says(random_model, tmp_path):
    inside = copied(random_model, tmp_path / "mine" / "model")
    for model in (random_model, inside, "pocket"):
        opened = open_model(str(model), say=lambda _: None)
        assert opened.foreseen is not None
        assert opened.foreseen.name == opened.name
        assert opened.foreseen.digest == opened.lm.digest
    assert open_model("owner/name").foreseen == Foreseen("owner/name", "owner/name")


def test_a_family_goes_by_what_the_model_was_trained_on():
    def of_length(length: int | None) -> Any:
        return SimpleNamespace(trained_length=length)

    assert family_of(of_length(352)) == POCKET
    assert family_of(of_length(None)) == OTHERS
    assert family_of(of_length(8192)) == OTHERS


class Asked(Kept):
    """A model that knows how long its texts were."""

    n_parameters, n_blocks = 10, 2

    def __init__(self, name, trained_length):
        super().__init__(name)
        self.trained_length = trained_length


def test_what_goes_by_the_model_goes_by_each_and_texts_are_read_once(monkeypatch, tmp_path):
    Kept.loaded.clear()
    probed, shown = [], []

    def measure_set(plan, session):
        probed.append((session.model.name, session.settings.prompts.shots, plan.dataset))

    def measure_tasks(tasks, session):
        shown.append((session.model.name, session.settings.shots, id(tasks)))

    monkeypatch.setattr(salience, "measure_set", measure_set)
    monkeypatch.setattr(icm, "measure", measure_tasks)
    settings = scaling.Settings(
        dataset=("pocket/arithmetic",), prompts=PromptSettings(prompting=("golden_few_shot",))
    ).for_model(None)
    models = of([Asked("short", 352), Asked("long", None)])
    session = session_of(scaling.STUDY, settings, tmp_path, model=models)
    [asked] = scaling.plan(settings, session)
    monkeypatch.setattr("jelicit.studies.sets.load_dataset", None)  # nothing is read any more
    scaling.measure([asked], session)
    assert [(name, shots) for name, shots, _ in probed] == [("short", (2, 8)), ("long", (2, 32))]
    assert [dataset is None for *_, dataset in probed] == [False, True]
    of_tasks = id(asked.tasks)
    assert shown == [("short", (2, 8), of_tasks), ("long", (2, 32), of_tasks)]


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"layers": ("3",)}, "--layers 3: models of several depths"),
        ({"examples": ("none",), "n": 8}, "--n does nothing with --examples none"),
        ({"examples": ("golden",)}, "--examples golden"),
        ({"search_seeds": 0}, "--search-seeds 0"),
        ({"tests": 1}, "--tests 1"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        scaling.Settings(**changes).check()


def test_one_model_is_nothing_to_compare(place):
    with script("scaling") as found, pytest.raises(ValueError, match="pocket: give two or more"):
        run_served(found, "--models", "pocket", out=place / "one")
    with pytest.raises(ValueError, match="no model to compare"):
        Models([])
    with pytest.raises(TypeError, match="scaling compares models"):
        scaling.plan(scaling.Settings(), SimpleNamespace(model=object()))  # type: ignore[arg-type]


# --- what rows say -------------------------------------------------------------------------------


def rows_of(values, *, family=OTHERS, dataset="cities", seeds=2):
    """Rows of {method: (value in the small model, value in the large one)}."""
    sizes = (135e6, 1.5e9)
    return pd.DataFrame(
        [
            {
                "dataset": dataset,
                "feature": "none",
                "family": family,
                "model": f"of {size:g}",
                "parameters": size,
                "method": method,
                "orientation": "oracle" if method in ("ccs", "pca") else "none",
                "role": "truth",
                "seed": seed,
                "auroc": value + 0.01 * (2 * seed - 1),
                "accuracy": value + 0.01 * (2 * seed - 1),
                "asked": "truth",
                "auroc_low": NAN,
                "auroc_high": NAN,
            }
            for method, pair in values.items()
            for size, value in zip(sizes, pair, strict=True)
            for seed in range(seeds)
        ]
    )


def test_label_reading_is_what_golden_and_turned_round_labels_decide():
    rows = rows_of({"golden_many_shot": (0.5, 0.97), "wrong_many_shot": (0.5, 0.22)})
    reading = {row["model"]: row["label_reading"] for row in label_reading(rows).to_dict("records")}
    assert reading == pytest.approx({"of 1.35e+08": 0.5, "of 1.5e+09": 0.875})
    assert label_reading(rows.loc[rows["method"] == "golden_many_shot"]).empty


def test_findings_compare_the_smallest_with_the_largest():
    values = {"zero_shot": (0.4, 0.98), "ccs": (0.6, 0.95), "pca": (0.55, 0.97)}
    values |= {"supervised": (0.85, 1.0), "icm": (0.5, 0.96)}
    values |= {"golden_many_shot": (0.5, 0.97), "wrong_many_shot": (0.5, 0.3)}
    assert [f.appears for f in scaling_findings(rows_of(values))] == [True, True, False, True]
    values |= {"zero_shot": (0.6, 0.62), "pca": (0.55, 0.6), "ccs": (0.6, 0.6)}
    values |= {"supervised": (0.95, 1.0), "icm": (0.9, 0.8)}
    assert [f.appears for f in scaling_findings(rows_of(values))] == [False, False, True, False]


def test_icm_is_not_judged_where_no_label_is_read():
    values = dict.fromkeys(("icm", "golden_many_shot", "wrong_many_shot"), (0.9, 0.9))
    assert scaling_findings(rows_of(values))[-1].appears is None


def test_a_family_of_one_tells_nothing():
    rows = rows_of({"zero_shot": (0.4, 0.9), "ccs": (0.4, 0.9), "supervised": (0.9, 0.9)})
    alone = rows.loc[rows["parameters"] == 1.5e9]
    assert {f.appears for f in scaling_findings(alone)} == {None}
    # Nor do two families of one model each, whatever lies between them.
    other = rows.loc[rows["parameters"] < 1e9].assign(family=POCKET)
    assert {f.appears for f in scaling_findings(pd.concat([alone, other]))} == {None}


def test_the_figure_draws_every_method_over_the_sizes_of_its_family():
    real = rows_of({"zero_shot": (0.4, 0.9), "ccs": (0.5, 0.95)})
    pocket = rows_of({"zero_shot": (0.3, 0.7)}, family=POCKET)
    figure = scaling_figure(pd.concat([pocket, real]))
    left, right = figure.axes
    for axes, rows in ((left, pocket), (right, real)):
        lines = {line.get_gid(): line for line in axes.get_lines() if line.get_gid()}
        assert set(lines) == set(rows["method"])
        for method, line in lines.items():
            means = rows.loc[rows["method"] == method].groupby("parameters")["auroc"].mean()
            np.testing.assert_allclose(np.asarray(line.get_xdata()), np.asarray(means.index))
            np.testing.assert_allclose(np.asarray(line.get_ydata()), np.asarray(means))
        assert axes.get_xscale() == "log"
        assert axes.get_xlabel() == f"parameters of {rows['family'].iloc[0]}"
        assert axes.get_title() == "Cities"
        assert [t.get_text() for t in axes.get_xticklabels()] == ["135 M", "1.5 B"]


def test_sizes_are_named_as_people_name_them():
    sizes = {279e3: "279 k", 1.41e6: "1.4 M", 134.5e6: "134 M", 9.97e8: "997 M", 8e9: "8.0 B"}
    assert {size: size_name(size) for size in sizes} == sizes
