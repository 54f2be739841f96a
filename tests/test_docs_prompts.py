"""The page on prompt formats: its example is a format that studies run on, its table is whole."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import tyro
from asked_model import AskedModel
from experiment_scripts import script

from jelicit.data.format_files import KEYS, read_format
from jelicit.data.prompts import FORMATS
from jelicit.studies import salience
from jelicit.studies.settings import PromptSettings

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs/prompts.md").read_text(encoding="utf-8")
EXAMPLE = ROOT / "docs/examples/exam.toml"


def test_the_example_is_a_format_in_which_a_study_is_asked():
    form = read_format(EXAMPLE)
    assert form.name == "exam"
    assert form.text.startswith("Exam question: {question}\nA pupil writes: {choice}\n")
    words = (form.true_word, form.false_word, form.third_word)
    assert words == (" correct", " mistaken", " ungraded")
    model = AskedModel()
    few: dict[str, Any] = {
        "methods": ("pca",),
        "layers": ("1",),
        "max_rows": 40,
        "seeds": 1,
        "boot": 9,
    }
    settings = salience.Settings(
        dataset=("pocket/arithmetic",),
        format=(str(EXAMPLE),),
        features=("none",),
        easy="none",
        prompts=PromptSettings(prompting=("none",)),
        **few,
    )
    done = salience.run(model, settings, quiet=True)
    assert set(done.rows["method"]) >= {"zero_shot", "pca"}
    pairs = [pair for pairs in model.read.values() for pair in pairs]
    assert pairs
    assert all(true.endswith("this answer is correct") for true, _ in pairs)
    assert all(false.endswith("this answer is mistaken") for _, false in pairs)


def test_the_commands_of_the_page_name_formats_that_there_are(monkeypatch):
    monkeypatch.chdir(ROOT)
    block = re.search(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    assert block
    lines = block[1].replace("\\\n", " ").splitlines()
    assert len(lines) == 2
    with script("salience") as command:
        for line in lines:
            words = shlex.split(line)[2:]
            settings = tyro.cli(command.Settings, args=words)
            settings.check()
            assert settings.format


def test_the_page_shows_the_file_and_tells_of_every_key():
    assert '--8<-- "docs/examples/exam.toml"' in PAGE
    told = re.search(r"\| Key \|.*?\n\n", PAGE, re.DOTALL)
    assert told
    heads = re.findall(r"^\| (`.*?) \|", told[0], re.MULTILINE)
    named = [name for head in heads for name in re.findall(r"`(\w+)`", head)]
    assert sorted(named) == sorted(KEYS)


@pytest.mark.parametrize("name", list(FORMATS))
def test_every_format_that_ships_has_its_line(name):
    [line] = re.findall(rf"^\| `{re.escape(name)}` \| .*$", PAGE, re.MULTILINE)
    form = FORMATS[name]
    assert form.text.replace("\n", "\\n").strip() in line
    assert form.true_word.strip() in line
    assert (form.target == "label") == ("the truth |" in line)
