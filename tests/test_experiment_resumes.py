"""Experiments that were killed between two units of fits go on after them, on a tiny model."""

from contextlib import contextmanager

import pandas as pd
import pytest
from experiment_scripts import NO_PROMPTS, script
from experiment_scripts import run as run_script

from jelicit.data.datasets import load_dataset
from jelicit.data.items import save_items
from jelicit.probes.sweep import sweeping as module
from jelicit.results import Results

pytest.importorskip("torch", reason="the experiment needs the extract extra")

COMMON = ("--max-rows", "60", "--seeds", "2", "--boot", "20")
METHODS = ("--methods", "ccs", "supervised", "random")


class Killed(BaseException):
    """Nothing in between may catch it."""


def fits_until(monkeypatch, most):
    """What is fitted from now on, layer and methods; Killed before one more than `most`."""
    fitted, fit = [], module.fit_together

    def watched(group, data, layer, *rest):
        if most is not None and len(fitted) >= most:
            raise Killed
        fitted.extend((layer, family.methods) for family in group)
        return fit(group, data, layer, *rest)

    monkeypatch.setattr(module, "fit_together", watched)
    return fitted


def resumed(run, out, kills):
    """Kill a command after each of these numbers of fits, then let it end; all that was fitted."""
    fitted = []
    for most in kills:
        with pytest.MonkeyPatch.context() as patch:
            found = fits_until(patch, most)
            with pytest.raises(Killed):
                run(out)
            assert len(found) == most
            fitted += found
    with pytest.MonkeyPatch.context() as patch:
        found = fits_until(patch, None)
        done = run(out)
    return done, fitted + found


@contextmanager
def command(name, words, model, place):
    """An experiment's command, to be run with the name of its output folder."""
    with script(name) as module:

        def run(out):
            paths = {"model": model, "stores": place / "stores", "out": place / out}
            return run_script(module, *COMMON, *words, **paths)

        yield run


@pytest.fixture(scope="module")
def labels_file(tmp_path_factory):
    """A third of the train items, labelled."""
    path = tmp_path_factory.mktemp("labels") / "labels.jsonl"
    save_items(path, load_dataset("pocket/arithmetic", max_train=60).train[:20])
    return path


@pytest.fixture(scope="module")
def salience_place(tmp_path_factory):
    return tmp_path_factory.mktemp("salience")


@pytest.fixture(scope="module")
def salience(random_model, salience_place, labels_file):
    words = (*METHODS, "--dataset", "pocket/arithmetic", "--features", "none", *NO_PROMPTS)
    words = (*words, "--labels", str(labels_file))
    with command("salience", words, random_model, salience_place) as run:
        yield run


def test_a_killed_panel_goes_on_without_fitting_again(salience):
    plain, all_fits = resumed(salience, "plain", [])
    # CCS at two layers for the choice, three probes, one taught by the labels of the file.
    assert len(all_fits) == 2 + 3 + 1
    # Killed within the choice of the layer, within the panel's probes, before the last fit of all.
    done, fits = resumed(salience, "killed", [1, 3, 1])
    assert fits == all_fits
    pd.testing.assert_frame_equal(done.rows, plain.rows)
    for found in (plain, done):
        assert not (found.out / "fits").exists()


def test_the_fits_of_a_killed_panel_are_on_disk(salience, salience_place, monkeypatch):
    fits_until(monkeypatch, 4)
    with pytest.raises(Killed):
        salience("kept")
    kept = list((salience_place / "kept" / "fits").rglob("*.npz"))
    assert [path.parent.name for path in kept] == ["pocket-arithmetic"] * 2


def test_the_terminal_shows_how_far_the_fits_are(salience, capsys):
    salience("shown")
    shown = capsys.readouterr().err
    assert "pocket/arithmetic: CCS at every layer:" in shown
    assert "pocket/arithmetic: fits:" in shown
    assert "3/3" in shown


def test_probes_for_several_sets_are_fitted_once(random_model, tmp_path):
    words = ("--dataset", "pocket/arithmetic", "pocket/facts", "--layers", "1")
    words = (*words, "--methods", "random", "supervised", "lda")
    with command("transfer", words, random_model, tmp_path) as run:
        plain, all_fits = resumed(run, "plain", [])
        assert len(all_fits) == 2 * 3
        # Killed after the fits of the first set, when one of the two sets has its rows.
        write, written = Results.write, []

        def killed(results, *rest, **more):
            if written:
                raise Killed
            written.append(write(results, *rest, **more))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Results, "write", killed)
            fits = fits_until(patch, None)
            with pytest.raises(Killed):
                run("killed")
        done, rest = resumed(run, "killed", [])
        assert fits + rest == all_fits
        assert not (done.out / "fits").exists()
        rows, expected = (
            pd.concat(map(pd.read_parquet, sorted((found.out / "rows").glob("*.parquet"))))
            for found in (done, plain)
        )
        pd.testing.assert_frame_equal(rows, expected)
