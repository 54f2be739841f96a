"""What the README promises: its example finds what was planted, and its links lead somewhere."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_library_example_runs_as_pasted_and_finds_the_planted_truth(tmp_path):
    [example] = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    ended = subprocess.run(
        [sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    lines = [line.split() for line in ended.stdout.splitlines()]
    areas = {words[0]: [float(word) for word in words[1:]] for words in lines if len(words) == 4}
    shares = areas.pop("class_share")
    assert shares == [0.0, 0.5, 0.9]
    assert set(areas) == {"ccs", "pca", "supervised"}
    for values in areas.values():
        assert values[1] > 0.95


def test_the_second_block_is_the_command_that_runs_the_tests():
    blocks = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    assert "experiments/salience.py" in blocks[0]
    assert blocks[1].strip().endswith("-m pytest")


def test_links_lead_to_files_and_headings_that_exist():
    links = re.findall(r"\]\((?!https?://)([^)#\s]+)(?:#([\w-]+))?\)", README)
    assert len(links) >= 15
    for path, anchor in links:
        assert (ROOT / path).is_file(), path
        if anchor:
            text = (ROOT / path).read_text(encoding="utf-8")
            heads = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
            assert anchor in {re.sub(r"[^\w]+", "-", head.lower()).strip("-") for head in heads}


def test_it_shows_the_main_result_and_one_of_real_models():
    figures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", README)
    assert figures == ["docs/figures/salience.svg", "docs/figures/real-scaling.svg"]
    assert all((ROOT / figure).stat().st_size < 200_000 for figure in figures)
