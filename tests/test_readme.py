"""What the README promises: its example runs as pasted, its commands name files that are there."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_library_example_runs_as_pasted_and_finds_the_planted_truth(tmp_path):
    [example] = _blocks("python")
    found = subprocess.run(
        [sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    lines = [line.split() for line in found.stdout.splitlines()]
    areas = {words[0]: [float(word) for word in words[1:]] for words in lines if len(words) == 4}
    shares = areas.pop("class_share")
    assert shares == [0.0, 0.5, 0.9]
    assert set(areas) == {"ccs", "pca", "supervised"}
    for values in areas.values():
        assert values[1] > 0.95


def test_commands_name_scripts_and_options_that_exist():
    commands = [line for block in _blocks("bash") for line in block.splitlines() if line.strip()]
    assert len(commands) >= 3
    for command in commands:
        for script in re.findall(r"experiments/\w+\.py", command):
            text = (ROOT / script).read_text(encoding="utf-8")
            text += (ROOT / "experiments/study_settings.py").read_text(encoding="utf-8")
            for option in re.findall(r" --([a-z-]+)", command):
                assert re.search(rf"^    {option.replace('-', '_')}: ", text, re.MULTILINE), option


def test_layout_table_names_what_is_there():
    for path in re.findall(r"^\| `([^`]+)`", README, re.MULTILINE):
        assert (ROOT / path).exists(), path
