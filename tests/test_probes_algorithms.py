"""Kept fits are read back by the number of their algorithm: it has to change when numbers do."""

import algorithms
import pytest

REFRESH = "python tests/algorithms.py"


@pytest.fixture(scope="module")
def scores() -> dict[str, list[float]]:
    return algorithms.golden() | algorithms.golden_stages()


@pytest.fixture(scope="module")
def digests() -> dict[str, str]:
    return algorithms.digests()


@pytest.mark.parametrize("name", list(algorithms.numbers()))
def test_code_behind_a_fit_does_not_change_in_silence(name, digests):
    before = algorithms.recorded()
    assert before["numbers"].get(name) == algorithms.numbers()[name], (
        f"the number of {name!r} was raised: run `{REFRESH}`, and commit the file"
    )
    assert before["digests"].get(name) == digests[name], (
        f"the code behind {name!r} changed. If its numbers changed, raise its `algorithm`, so that "
        f"kept fits are made anew. Then, or if they did not, run `{REFRESH}` and commit the file"
    )


@pytest.mark.parametrize("name", [*algorithms.ALL_METHODS, *algorithms.STUDY_STAGES])
def test_the_numbers_are_those_of_the_algorithm(name, scores):
    assert not algorithms.differs(scores[name], algorithms.recorded()["scores"][name]), (
        f"the numbers of {name!r} changed: raise its `algorithm` (ALGORITHM of a stage), then run "
        f"`{REFRESH}`"
    )


def test_a_change_of_code_is_seen_and_one_of_words_is_not(tmp_path, monkeypatch):
    package = tmp_path / "jelicit" / "probes"
    package.mkdir(parents=True)
    own, other = package / "own.py", package / "other.py"
    monkeypatch.setattr(algorithms, "ROOT", tmp_path)
    text = (
        '"""A."""\nfrom jelicit.probes.other import b\ndef a():\n    """B."""\n    return b + 1\n'
    )
    texts = {own: f"{text}M = Method(title='A')\n", other: "b = 1\n"}

    def digest(**changed: str) -> str:
        for path, contents in texts.items():
            path.write_text(changed.get(path.stem, contents), encoding="utf-8")
        return algorithms.digest_of("jelicit.probes.own")

    first = digest()
    said = texts[own].replace("B.", "More.").replace("+ 1", "+ 1  # one").replace('"A"', '"Z"')
    assert digest(own=said) == first
    assert digest(own=texts[own].replace("+ 1", "+ 2")) != first
    assert digest(other="b = 2\n") != first


def test_numbers_that_change_under_one_number_are_refused(scores):
    before = {**algorithms.recorded(), "scores": dict(scores)}
    moved = {**scores, "lda": [score * 1.01 for score in scores["lda"]]}
    assert algorithms.changed_without_a_number(moved, before) == ["lda"]
    raised = {**before, "numbers": {**before["numbers"], "lda": 0}}
    assert algorithms.changed_without_a_number(moved, raised) == []
    assert algorithms.changed_without_a_number(scores, before) == []


def test_each_stage_of_studies_answers_for_its_own_numbers(scores):
    before = {**algorithms.recorded(), "scores": dict(scores)}
    for stage in algorithms.STUDY_STAGES:
        moved = {**scores, stage: [scores[stage][0] + 1, *scores[stage][1:]]}
        assert algorithms.changed_without_a_number(moved, before) == [stage]
        # Fits are no excuse for rows, prompts and searches, nor the other way round.
        for raised, silent in ((stage, []), ("sweep", [stage])):
            numbers = {**before["numbers"], raised: 0}
            found = algorithms.changed_without_a_number(moved, {**before, "numbers": numbers})
            assert found == silent


@pytest.mark.parametrize(
    ("stage", "watched"),
    [
        ("rows", {"studies.scoring", "studies.situation", "metrics", "data.subsets"}),
        ("indicators", {"indicators"}),
        ("prompting", {"prompting.consistency", "prompting.scorer", "data.prompts"}),
        ("search", {"icm.search", "icm.walk", "icm.objective", "icm.baselines", "data.prompts"}),
        ("calibrated", {"prompting.scorer", "data.prompts"}),
        ("ensembles", {"studies.scoring", "studies.measuring"}),
        ("scorecard", {"studies.stress_cases", "metrics"}),
        ("spread", {"studies.spread", "studies.stress_card", "metrics"}),
    ],
)
def test_the_code_behind_a_stage_is_watched(stage, watched):
    _, module, deciding = algorithms.STUDY_STAGES[stage]
    assert {f"jelicit.{name}" for name in watched} <= algorithms.imported(module, deciding)
