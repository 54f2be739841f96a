"""What the manual shows works: its code runs, its commands are read by their own parsers."""

import ast
import importlib
import json
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import tyro

from jelicit.data.sets.geometry_of_truth import SETS

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

WAITING = ("open_model(",)
"""Code blocks with one of these lines are not run: they ask whole studies of a model, which takes
minutes."""


def _blocks(page: Path, language: str) -> list[str]:
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\b[^\n]*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def _code(page: Path) -> list[str]:
    blocks = _blocks(page, "python")
    return [block for block in blocks if not any(line in block for line in WAITING)]


def _commands(pages: Sequence[Path]) -> list[list[str]]:
    lines = [
        line
        for page in pages
        for block in _blocks(page, "bash")
        for line in block.replace("\\\n", " ").splitlines()
        if line.strip()
    ]
    # Commands also stand in tables and in running text.
    for page in pages:
        lines += re.findall(
            r"`((?:python (?:experiments|docs|-m)|jelicit) [^`|]+)`",
            page.read_text(encoding="utf-8"),
        )
    parts = [part for line in lines for part in line.split(" && ")]
    return [shlex.split(command.replace("…", "")) for command in dict.fromkeys(parts)]


RUN_ALL = """
import contextlib, io, json, os, sys, tempfile, traceback

said = {}
for page, code in json.load(sys.stdin).items():
    os.chdir(tempfile.mkdtemp())
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            exec(compile(code, page, "exec"), {"__name__": "__main__"})
        said[page] = ""
    except BaseException:
        said[page] = printed.getvalue() + traceback.format_exc()
print(json.dumps(said))
"""
"""Every page has names and a folder of its own; what they import is imported once."""

WITH_CODE = {str(page.relative_to(ROOT)): page for page in PAGES[1:] if _code(page)}


@pytest.fixture(scope="module")
def errors() -> dict[str, str]:
    """By page: the traceback of its code blocks, run one after another; empty if there is none."""
    code = {name: "\n\n".join(_code(page)) for name, page in WITH_CODE.items()}
    ended = subprocess.run(
        [sys.executable, "-c", RUN_ALL],
        input=json.dumps(code),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout.splitlines()[-1])


@pytest.mark.parametrize("page", WITH_CODE)
def test_code_blocks_of_a_page_run_one_after_another(page, errors):
    assert not errors[page]


class _Read(Exception):  # noqa: N818
    """The command line was read; nothing is run."""


def _target(words: list[str]) -> tuple[str, list[str]] | None:
    """What a command line starts (a script, or a module) and its words; None = not of ours."""
    words = [word for word in words if word not in (".venv/bin/python", "python")]
    name = Path(words[0]).name
    if name == "jelicit":
        return "jelicit.commands.cli", words[1:]
    if words[:2] == ["-m", "extract"] or words[1:3] == ["-m", "extract"]:
        return "extract.__main__", words[words.index("extract") + 1 :]
    if words[0].endswith(".py"):
        return words[0], words[1:]
    return None


OURS = [
    found for found in map(_target, _commands(PAGES)) if found is not None and "|" not in found[1]
]


@pytest.mark.parametrize(("name", "words"), OURS, ids=lambda v: v if isinstance(v, str) else None)
def test_commands_are_read_by_their_own_parsers(name, words, monkeypatch, capsys):
    real = tyro.cli

    def read(*args, **options):
        real(*args, **options)
        raise _Read

    monkeypatch.setattr(tyro, "cli", read)
    monkeypatch.setattr(sys, "argv", [name, *words])
    monkeypatch.setattr(sys, "path", [str((ROOT / name).parent), *sys.path])
    try:
        _start(name)
    except _Read:
        return
    except SystemExit:
        pytest.fail(f"{name} {shlex.join(words)}: {capsys.readouterr().err}")
    pytest.fail(f"{name} reads no command line")


def _start(name: str) -> None:
    if name.endswith(".py"):
        assert (ROOT / name).is_file(), f"there is no {name}"
        runpy.run_path(str(ROOT / name), run_name="__main__")
    else:
        importlib.import_module(name).main()


def test_the_manual_shows_commands_of_every_kind():
    assert {name for name, _ in OURS} >= {"jelicit.commands.cli", "extract.__main__"}
    assert len(OURS) >= 20


TABLES = {named.name for named in SETS}
"""Sets that no hub has: named, they are read from a clone."""

STAND_FOR_PATHS = re.compile(r"Names of models and sets\s+stand\s+for\s+their\s+paths")
"""What a page says whose commands are records of runs."""


def _of_scripts() -> list[list[str]]:
    """The commands in the docstrings of experiments."""
    texts = [
        ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        for path in sorted((ROOT / "experiments").glob("*.py"))
    ]
    joined = "\n".join(texts).replace("\\\n", " ")
    return [line.split() for line in re.findall(r"^ +(python .*)$", joined, re.MULTILINE)]


def _without_clone(commands: Sequence[Sequence[str]]) -> list[str]:
    """Commands that name one of the tables and say nothing of the clone that it is read from."""
    return [
        shlex.join(words) for words in commands if TABLES & set(words) and "--hub-root" not in words
    ]


def test_commands_name_the_clone_that_holds_their_tables():
    pages = [p for p in PAGES if not STAND_FOR_PATHS.search(p.read_text(encoding="utf-8"))]
    assert len(PAGES) - len(pages) <= 2
    shown, of_scripts = _commands(pages), _of_scripts()
    for commands in (shown, of_scripts):
        assert any(TABLES & set(words) for words in commands)
    assert _without_clone([*shown, *of_scripts]) == []
    bare = ["python", "experiments/salience.py", "--dataset", "cities"]
    assert _without_clone([bare]) == ["python experiments/salience.py --dataset cities"]


def test_pages_that_name_the_clone_say_how_to_come_by_it():
    texts = {page: page.read_text(encoding="utf-8") for page in PAGES}
    naming = {page for page, text in texts.items() if "--hub-root geometry-of-truth" in text}
    assert len(naming) >= 5
    line = "\ngit clone https://github.com/saprmarks/geometry-of-truth\n"
    assert [page.name for page in naming if line not in texts[page]] == []


def test_what_code_cites_in_the_manual_exists():
    """`docs/methods.md#ccs` in a docstring: the page and its heading."""
    cited = {
        citation
        for room in ("jelicit", "extract", "experiments")
        for path in (ROOT / room).rglob("*.py")
        for citation in re.findall(
            r"docs/([\w/-]+\.md)(?:#([\w-]+))?", path.read_text(encoding="utf-8")
        )
    }
    assert ("methods.md", "icm") in cited
    for page, anchor in cited:
        path = ROOT / "docs" / page
        assert path.is_file(), page
        heads = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
        slugs = {re.sub(r"[^\w]+", "-", head.lower()).strip("-") for head in heads}
        assert not anchor or anchor in slugs, f"docs/{page}#{anchor}"


def test_figures_of_the_manual_are_small():
    for figure in (ROOT / "docs/figures").iterdir():
        assert figure.stat().st_size < 200_000, figure.name


def test_rooms_that_the_manual_names_are_there():
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    rooms = re.findall(r"^\| `([\w/.]+)`", text, re.MULTILINE)
    assert len(rooms) >= 12
    for room in rooms:
        assert (ROOT / room).exists(), room
