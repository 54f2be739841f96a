"""What a run is called: by all that decides its numbers, and by nothing else."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tyro
from experiment_scripts import NO_PROMPTS, script
from small_stores import make_items, make_spec, numbers

from jelicit.activations import StoreWriter
from jelicit.commands import cli, sweep_plan
from jelicit.probes import normalise
from jelicit.probes.registry import get_method
from jelicit.probes.sweep import fitting
from jelicit.prompting import few_shot
from jelicit.studies import icm, run_folder, salience, scoring
from jelicit.studies.run_folder import RunFolder

EXAMPLES = Path(__file__).resolve().parents[1] / "docs" / "examples"


class Begun(BaseException):
    """Ends a run as soon as it has a name."""


class Store:
    """A store of no numbers, made by a model with these settings."""

    layers, log_probs = (1,), None

    def __init__(self, items: Any, **facts: Any):
        n = len(items)
        plan = {"shards": ((0, n),), "batch_plan": ((tuple(range(n)),),)}
        self.spec = make_spec(items, **plan, **facts)

    def pairs(self, layer: int) -> Any:
        raise AssertionError("an identity needs no hidden state")


class Model:
    """Says who it is, and is never asked anything else."""

    name, trained_length, n_blocks = "made", 512, 3

    def __init__(self, **facts: Any):
        self.facts = facts

    def store(self, name: str, items: Any, format: Any, layers: Any) -> Store:
        return Store(items, **self.facts)

    def scorer(self, *, progress: bool = False) -> Any:
        return SimpleNamespace(name=self.name)


@pytest.fixture
def names(monkeypatch) -> list[str]:
    """The names of all runs that were begun; each ends there."""
    begun: list[str] = []

    def run(folder: RunFolder, situation: Any, settings: Any, *rest: Any) -> Any:
        begun.append(folder.name_of(situation, settings))
        raise Begun

    monkeypatch.setattr(RunFolder, "run", run)
    return begun


@pytest.fixture
def study_id(names, tmp_path):
    def study_id(*words: str, study: Any = salience, **facts: Any) -> str:
        """The id of the first run of a study with these options, on a model of these facts."""
        args = [*COMMON[study.__name__], *words]
        if "--out" not in words:
            args += ["--out", str(tmp_path / "out")]
        with pytest.raises(Begun):
            study.run(Model(**facts), tyro.cli(study.Settings, args=args), quiet=True)
        return names[-1]

    return study_id


COMMON = {
    "jelicit.studies.salience": (
        *("--dataset", "pocket/arithmetic", "--features", "none", "--layers", "1"),
        *("--max-rows", "40", "--easy", "none", "--methods", "ccs", "pca"),
    ),
    "jelicit.studies.icm": ("--dataset", "pocket/pairs", "--n", "4", "--tests", "8"),
}


@pytest.mark.parametrize(
    "words",
    [("--out", "{elsewhere}"), ("--devices", "0"), ("--memory-gb", "1")],
    ids=lambda words: words[0],
)
def test_where_and_how_a_study_runs_is_not_in_its_name(study_id, tmp_path, words):
    words = [word.format(elsewhere=tmp_path / "elsewhere") for word in words]
    assert study_id(*words) == study_id()


def test_the_threads_of_the_model_are_not_in_a_name_and_the_device_is(study_id):
    one, two = ({"device": "cpu", "threads": n} for n in (1, 2))
    assert study_id(machine=one) == study_id(machine=two)
    assert study_id(machine=one) != study_id(machine={"device": "cuda"})


def test_folder_of_stores_and_threads_are_not_in_the_name_of_a_command(
    names, random_model, tmp_path
):
    pytest.importorskip("torch", reason="the command needs the extract extra")
    with script("salience") as command:
        for number in (1, 2):
            place = ("--stores", str(tmp_path / f"stores{number}"), "--threads", str(number))
            args = [*COMMON["jelicit.studies.salience"], "--model", str(random_model), *place]
            args += ["--out", str(tmp_path / f"out{number}"), *NO_PROMPTS]
            with pytest.raises(Begun):
                command.main(tyro.cli(command.Settings, args=args))
    assert len(names) == 2
    assert names[0] == names[1]


@pytest.mark.parametrize(
    "words",
    [
        ("--seeds", "3"),
        ("--boot", "10"),
        ("--max-rows", "44"),
        ("--methods", "ccs"),
        ("--precision", "bfloat16"),
        ("--divisor", "std"),
        ("--restarts", "2"),
        ("--train-size", "8"),
        ("--overlap", "keep"),
        ("--features", "sycophancy"),
        ("--easy", "pocket/larger_than"),
        ("--dataset", "pocket/facts"),
        ("--rule", "none"),
        ("--shots", "1"),
        ("--prompting", "none"),
    ],
    ids=" ".join,
)
def test_what_decides_numbers_of_a_study_is_in_its_name(study_id, words):
    assert study_id(*words) != study_id()


@pytest.mark.parametrize(
    "facts",
    [{"model_digest": "b"}, {"dtype": "float32"}, {"settings": {"token_budget": 9}}],
    ids=str,
)
def test_what_made_the_hidden_states_is_in_a_name(study_id, facts):
    assert study_id(**facts) != study_id()


@pytest.mark.parametrize(
    "words",
    [
        *[("--alpha", "20"), ("--rule", "none"), ("--schedule", "exp"), ("--initial", "4")],
        *[("--draws", "3"), ("--predictability", "sum"), ("--format", "pair_icm")],
        *[("--n", "6"), ("--batch", "4"), ("--limit", "300"), ("--overlap", "keep")],
        *[("--seeds", "2"), ("--boot", "9"), ("--shots", "1"), ("--methods", "icm")],
    ],
    ids=" ".join,
)
def test_what_decides_numbers_of_icm_is_in_its_name(study_id, words):
    assert study_id(*words, study=icm) != study_id(study=icm)


STAGES = {
    "rows": (scoring, "ALGORITHM"),
    "prompting": (few_shot, "ALGORITHM"),
    "search": (run_folder, "SEARCH"),
    "normaliser": (normalise, "ALGORITHM"),
    "sweep": (fitting, "ALGORITHM"),
}


@pytest.mark.parametrize("stage", STAGES)
def test_another_algorithm_of_a_stage_is_another_name(study_id, monkeypatch, stage):
    before = study_id()
    monkeypatch.setattr(*STAGES[stage], 99)
    assert study_id() != before


def test_another_search_is_another_name_of_icm(study_id, monkeypatch):
    before = study_id(study=icm)
    monkeypatch.setattr(run_folder, "SEARCH", 99)
    assert study_id(study=icm) != before


def test_another_algorithm_of_a_method_is_another_name(study_id, monkeypatch):
    before = study_id()
    monkeypatch.setitem(vars(get_method("supervised")), "algorithm", 99)
    assert study_id() == before  # it is not among the methods
    monkeypatch.setitem(vars(get_method("ccs")), "algorithm", 99)
    assert study_id() != before


def test_a_method_of_ones_own_is_known_by_its_name_and_algorithm(study_id, tmp_path):
    text = (EXAMPLES / "own_method.py").read_text(encoding="utf-8")
    places = {"first": text, "moved": text}
    places["other"] = text.replace("    fit=fit,\n", "    fit=fit,\n    algorithm=2,\n")
    found = {}
    for name, contents in places.items():
        path = tmp_path / f"{name}.py"
        path.write_text(contents, encoding="utf-8")
        found[name] = study_id("--methods", f"{path}:RIDGE")
    assert found["first"] == found["moved"] != found["other"]


# ------------------------------------------------------------- jelicit sweep


@pytest.fixture(scope="module")
def stores(tmp_path_factory) -> list[str]:
    place, items = tmp_path_factory.mktemp("stores"), make_items()
    n, states = len(items), {k: v for k, v in numbers("float32")[0].items() if k}
    plan = {"layers": (2, 3), "shards": ((0, n),), "batch_plan": ((tuple(range(n)),),)}
    form = {"prompt_format": {"name": "claim", "true_word": " True", "target": "label"}}
    for split in ("train", "test"):
        spec = make_spec(items, dtype="float32", **plan, **form)
        writer = StoreWriter.open(place / split, spec, items)
        writer.write(0, states, np.zeros((n, 2), np.float32))
        writer.finish()
    return [str(place / split) for split in ("train", "test")]


@pytest.fixture
def sweep_id(stores, tmp_path, monkeypatch):
    run_id, begun = sweep_plan.run_id, []

    def named(*identity: Any) -> str:
        begun.append(run_id(*identity))
        raise Begun

    monkeypatch.setattr(sweep_plan, "run_id", named)

    def sweep_id(*words: str) -> str:
        out = () if "--out" in words else ("--out", str(tmp_path / "out"))
        base = ("--overlap", "keep", "--methods", "ccs")  # the two stores are of the same items
        with pytest.raises(Begun):
            cli.main(["sweep", stores[0], "--test", stores[1], *out, *base, *words])
        return begun[-1]

    return sweep_id


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [("--out", "{elsewhere}"), ("--save-probes",), ("--devices", "0"), ("--memory-gb", "1")],
    ids=lambda words: words[0],
)
def test_where_and_how_a_sweep_runs_is_not_in_its_name(sweep_id, tmp_path, words):
    words = [word.format(elsewhere=tmp_path / "elsewhere") for word in words]
    assert sweep_id(*words) == sweep_id()


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        *[("--seeds", "2"), ("--class-shares", "0.5"), ("--layers", "3"), ("--boot", "10")],
        *[("--methods", "pca"), ("--divisor", "std")],
        *[("--settings", "ccs_steps=300"), ("--restarts", "2")],
        ("--class-shares", "0.5", "--train-size", "2"),
    ],
    ids=" ".join,
)
def test_what_decides_numbers_of_a_sweep_is_in_its_name(sweep_id, words):
    methods = () if "--methods" in words else ("--methods", "ccs", "pca")
    assert sweep_id(*methods, *words) != sweep_id("--methods", "ccs", "pca")


@pytest.mark.parametrize("stage", ["rows", "normaliser", "sweep"])
def test_another_algorithm_is_another_sweep(sweep_id, monkeypatch, stage):
    before = sweep_id()
    monkeypatch.setattr(*STAGES[stage], 99)
    assert sweep_id() != before


def test_another_algorithm_of_a_method_is_another_sweep(sweep_id, monkeypatch):
    before = sweep_id()
    monkeypatch.setitem(vars(get_method("ccs")), "algorithm", 99)
    assert sweep_id() != before
