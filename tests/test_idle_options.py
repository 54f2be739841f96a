"""Options that would do nothing are refused: whoever gives one expects it to do something."""

import re

import pytest
import tyro
from experiment_scripts import script

from jelicit.studies.settings import StudySettings

SERVED = ("--scorer", "http://localhost:9/v1")


def refused(name, words):
    with script(name) as module:
        settings = tyro.cli(module.Settings, args=list(words))
        with pytest.raises(ValueError, match=r"^--") as error:
            settings.check()
    return str(error.value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--initial", "100", "--n", "8"), "--initial 100: a search has 8 items"),
        (("--initial", "20", "--batch", "16"), "--initial 20: a search has 16 items"),
        (("--batch", "64", "--n", "32"), "--batch 64: there are --n 32 items"),
        (
            ("--served", "x", "--tokenizer", "y"),
            "without --scorer URL; --tokenizer does",
        ),
        (("--patience", "5"), "--patience does nothing without --scorer URL"),
        ((*SERVED, "--patience", "0"), "--patience 0: allowed are seconds above 0"),
        ((*SERVED, "--top-logprobs", "0"), "--top-logprobs 0: allowed are whole numbers from 1"),
        ((*SERVED, "--max-tokens-total", "0"), "--max-tokens-total 0: allowed are whole numbers"),
        (("--chat-served", "x"), "--chat-served does nothing without --chat-scorer URL"),
        (
            ("--chat-scorer", "http://localhost:9/v1", "--tokenizer", "x"),
            "--tokenizer does nothing without --scorer URL",
        ),
        (("--max-tokens-total", "9"), "--max-tokens-total does nothing without --scorer URL"),
        ((*SERVED, "--device", "cpu"), "--device does nothing with --scorer http"),
        ((*SERVED, "--model", "x"), "--model does nothing with --scorer http"),
        ((*SERVED, "--chat"), "--chat does nothing with --scorer http"),
        ((*SERVED, "--stores", "x", "--chat-model", "y"), "--stores does nothing with --scorer"),
        (("--alpha", "20", "--methods", "zero_shot"), "--alpha does nothing without a search"),
        (("--out", "s3://bucket/x"), "--out s3:/bucket/x"),
    ],
)
def test_of_icm(words, message):
    assert message in refused("icm", words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--prompting", "none", "--shots", "2"), "--shots does nothing with --prompting none"),
        (("--prompting", "none", "--rule", "none"), "--rule does nothing with --prompting none"),
        *(
            (
                ("--prompting", "zero_shot_calibrated", option, value),
                f"{option} does nothing with --prompting zero_shot_calibrated",
            )
            for option, value in (
                *(("--shots", "2"), ("--pool", "9"), ("--prompt-tests", "9")),
                *(("--prompt-seeds", "2"), ("--rule", "none")),
            )
        ),
        (
            ("--methods", "pca", "--layers", "2", "--restarts", "3"),
            "--restarts does nothing with --methods pca",
        ),
        (
            ("--methods", "supervised", "--easy", "pocket/facts"),
            "--easy does nothing with --methods supervised",
        ),
        (("--out", "s3://bucket/x"), "--out s3:/bucket/x"),
    ],
)
@pytest.mark.parametrize("name", ["salience", "imbalance"])
def test_of_studies_of_probes(name, words, message):
    assert message in refused(name, words)


@pytest.mark.parametrize(
    ("name", "words", "option"),
    [
        ("salience", ("--features", ""), "--features"),
        ("salience", ("--features", "none", ""), "--features"),
        ("imbalance", ("--dataset", ""), "--dataset"),
        ("impossible", ("--impossible", ""), "--impossible"),
        ("layers", ("--easy", ""), "--easy"),
        ("transfer", ("--layers", ""), "--layers"),
        ("imbalance", ("--rule", ""), "--rule"),
        ("imbalance", ("--model", ""), "--model"),
        ("icm", ("--dataset", "pocket/facts", ""), "--dataset"),
        ("icm", (*SERVED, "--served", ""), "--served"),
    ],
)
def test_an_empty_text_is_no_value(name, words, option):
    assert refused(name, words) == f"{option} has an empty value: give one, or leave the option out"


@pytest.mark.parametrize(
    ("name", "option"),
    [("imbalance", "--shares"), ("imbalance", "--prompt-shares"), ("icm", "--shots")],
)
def test_an_option_without_values_is_not_read_as_its_default(name, option):
    assert refused(name, (option,)) == f"{option} has no value: give one, or leave the option out"


@pytest.mark.parametrize("option", ["--out", "--labels", "--stores"])
def test_an_empty_path_is_not_the_working_directory(monkeypatch, capsys, option):
    """A path made of it is ".", so the words of the command line themselves are looked at."""
    monkeypatch.setattr("sys.argv", ["salience.py", "--seeds", "1", option, ""])
    with script("salience") as module, pytest.raises(SystemExit) as stopped:
        module.start(lambda settings: None, module.Settings, about=None)
    said = capsys.readouterr().err.strip()
    assert stopped.value.code == 1
    assert said == f"error: {option} has an empty value: give one, or leave the option out"


@pytest.mark.parametrize("name", ["salience", "imbalance", "impossible", "layers", "transfer"])
def test_a_layer_has_a_number_from_0(name):
    said = refused(name, ("--layers", "-1"))
    assert said == (
        "--layers -1: allowed are numbers from 0 (embeddings) to the model's number of blocks, or "
        "best alone"
    )


@pytest.mark.parametrize("prompting", ["none", "zero_shot_calibrated"])
def test_shares_of_prompts_that_nobody_is_shown_are_refused(prompting):
    said = refused("imbalance", ("--prompting", prompting, "--prompt-shares", "0.5"))
    assert said == f"--prompt-shares does nothing with --prompting {prompting}"


@pytest.mark.parametrize("name", ["salience", "imbalance", "impossible", "layers", "icm", "reward"])
def test_a_study_that_reads_sets_is_refused_without_one(name):
    assert refused(name, ("--dataset",)) == "--dataset names no set: name at least one"


def test_only_studies_that_read_sets_need_one():
    """A study of one's own on hidden states names none."""
    StudySettings().check()
    assert refused("transfer", ("--dataset",)) == "--dataset: name at least two sets"
    twice = ("--dataset", "pocket/facts", "pocket/facts")
    said = refused("salience", twice)
    assert said == "--dataset names pocket/facts pocket/facts: name each once"


def test_what_does_something_is_not_refused():
    """The best layer is CCS's, so its restarts count though CCS is not asked for."""
    with script("salience") as module:
        words = ["--methods", "pca", "--restarts", "3", "--easy", "pocket/facts"]
        words += ["--prompting", "zero_shot_calibrated", "bootstrapped", "--shots", "2"]
        tyro.cli(module.Settings, args=words).check()
    with script("icm") as module:
        words = ["--n", "4", "--batch", "4", "--chat-model", "x", "--device", "cpu"]
        words += ["--methods", "icm", "zero_shot_chat", *SERVED, "--tokenizer", "y"]
        tyro.cli(module.Settings, args=words).check()


def test_the_server_is_asked_with_the_tokenizer_and_the_patience_that_were_given(monkeypatch):
    asked = {}
    with script("icm") as module:
        monkeypatch.setattr("asked.open_server", lambda url, **given: asked.update(given))
        words = [*SERVED, "--served", "alias", "--tokenizer", "org/model", "--patience", "30"]
        words += ["--top-logprobs", "5", "--max-tokens-total", "9"]
        settings = tyro.cli(module.Settings, args=words)
        settings.asked.model(settings.out)
    assert re.search("answers.jsonl$", str(asked.pop("journal")))
    counts = {"top_logprobs": 5, "max_tokens_total": 9}
    assert asked == {"model": "alias", "tokenizer": "org/model", "patience": 30.0, **counts}
