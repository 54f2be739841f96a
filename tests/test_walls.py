"""The walls between the parts: what may import what."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LANGUAGE_MODEL_LIBRARIES = ("torch", "transformers", "tokenizers")

IMPORT_EVERYTHING = """
import importlib, pkgutil, sys

class Wall:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None

sys.meta_path.insert(0, Wall())
for name in BLOCKED:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        continue
    raise SystemExit(f"the wall does not stop {name}")
import jelicit
for found in pkgutil.walk_packages(jelicit.__path__, "jelicit."):
    importlib.import_module(found.name)
    print(found.name)
"""


def test_all_of_jelicit_imports_where_no_language_model_library_is_installed():
    blocked = (*LANGUAGE_MODEL_LIBRARIES, "extract", "experiments")
    code = f"BLOCKED = {blocked}\n{IMPORT_EVERYTHING}"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr or done.stdout
    assert set(done.stdout.split()) == modules("jelicit") - {"jelicit"}


def modules(package: str) -> set[str]:
    """Names of all modules of a package, from its files."""
    names = set()
    for path in (ROOT / package).rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        names.add(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return names


def imports(path: Path) -> set[str]:
    """Modules that a file imports anywhere, functions and type-checking blocks included."""
    package = path.relative_to(ROOT).parent.parts
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*start, *(node.module or "").split(".")]).strip(".")
            found |= {f"{module}.{alias.name}" for alias in node.names}
    return found


def files(package: str) -> list[Path]:
    found = sorted((ROOT / package).rglob("*.py"))
    assert found
    return found


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", files("jelicit"), ids=named)
def test_jelicit_imports_nothing_that_touches_a_language_model(path):
    closed = {*LANGUAGE_MODEL_LIBRARIES, "extract", "experiments"}
    assert not [name for name in imports(path) if name.split(".")[0] in closed]


CORE = [path for path in files("jelicit") if "jelicit/pocket/" not in path.as_posix()]


OUTSIDE_THE_POCKET = [
    *CORE,
    *(path for path in files("extract") if path.name not in ("card.py", "pocket_tokenizer.py")),
    *(path for path in files("experiments") if path.name != "pretrain_pocket.py"),
]


@pytest.mark.parametrize("path", OUTSIDE_THE_POCKET, ids=named)
def test_nothing_outside_knows_the_pocket_wing(path):
    assert not [name for name in imports(path) if f"{name}.".startswith("jelicit.pocket.")]


# These are about the pocket model: its tokenizer follows the corpus, its card measures probes.
ABOUT_THE_POCKET_MODEL = ("extract/card.py", "extract/pocket_tokenizer.py")


@pytest.mark.parametrize(
    "path", [p for p in files("extract") if named(p) not in ABOUT_THE_POCKET_MODEL], ids=named
)
def test_extract_imports_only_what_the_two_sides_share(path):
    own = [name for name in imports(path) if name.split(".")[0] in ("jelicit", "experiments")]
    shared = ("data", "activations", "disk", "named", "commands.ending", "commands.gpu_memory")
    allowed = tuple(f"jelicit.{name}." for name in shared)
    assert not [name for name in own if not f"{name}.".startswith(allowed)]


GROUND = (
    *("pairs", "metrics", "indicators", "disk", "version", "named", "progress"),
    *("method_groups", "typed"),
)
"""Rooms that know nothing of the project but each other."""

MAY_IMPORT: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(GROUND, GROUND),
    "data": GROUND,
    "activations": (*GROUND, "data"),
    "probes": (*GROUND, "activations"),
    "method_names": (*GROUND, "data", "probes"),
    "calibration": GROUND,
    "prompting": (*GROUND, "data"),
    "icm": (*GROUND, "data", "prompting"),
    "results": (*GROUND, "data", "method_names"),
    "figures": (*GROUND, "results", "method_names"),
    "report": (*GROUND, "results", "method_names"),
    "studies": (
        *GROUND,
        *("data", "activations", "probes", "prompting", "icm", "method_names"),
        *("calibration", "results", "figures", "report"),
    ),
    "commands": (
        *GROUND,
        *("data", "activations", "probes", "results", "report", "studies", "calibration"),
        "method_names",
    ),
    "pocket": (*GROUND, "data", "activations", "probes", "studies"),
}
"""Room -> the rooms that it may import, beside itself; what is not named here is no room."""

# The package's head gives out what its rooms have, on demand, and starts the commands.
HEAD = ("jelicit/__init__.py", "jelicit/__main__.py")


def rooms() -> set[str]:
    """The rooms that there are: packages and single modules of the project."""
    return {path.relative_to(ROOT / "jelicit").with_suffix("").parts[0] for path in ROOMED}


ROOMED = [path for path in files("jelicit") if named(path) not in HEAD]


def rooms_of(imported: set[str]) -> set[str]:
    """Rooms that imports lead to; "" where it is the package's head, which leads everywhere."""
    parts = [name.split(".") for name in imported]
    known = rooms()
    return {
        name[1] if len(name) > 1 and name[1] in known else ""
        for name in parts
        if name[0] == "jelicit"
    }


def test_the_table_of_rooms_has_all_rooms_and_no_other():
    assert set(MAY_IMPORT) == rooms()
    assert {room for allowed in MAY_IMPORT.values() for room in allowed} <= rooms()


def test_no_way_through_the_rooms_leads_back():
    """A room is above all that it may import."""
    above: dict[str, set[str]] = {}
    for room, allowed in MAY_IMPORT.items():
        reached, waiting = set(), list(allowed)
        while waiting:
            next_one = waiting.pop()
            if next_one not in reached:
                reached.add(next_one)
                waiting += MAY_IMPORT[next_one]
        above[room] = reached
    assert not {room for room, below in above.items() if room in below} - set(GROUND)


@pytest.mark.parametrize("path", ROOMED, ids=named)
def test_a_room_imports_only_what_is_below_it(path):
    own = path.relative_to(ROOT / "jelicit").with_suffix("").parts[0]
    assert rooms_of(imports(path)) <= {own, *MAY_IMPORT[own]}


EXPERIMENTS = [
    path
    for path in files("experiments")
    if not path.name.startswith("bench") and path.name != "pretrain_pocket.py"
]


@pytest.mark.parametrize("path", EXPERIMENTS, ids=named)
def test_experiments_are_settings_and_wiring(path):
    """No mathematics, and no file longer than what can be read at one glance."""
    arrays = ("numpy", "jax.numpy", "jax.lax", "pandas", "scipy", "sklearn", "torch")
    assert not [name for name in imports(path) if f"{name}.".startswith(arrays)]
    assert lines_of_code(path.read_text(encoding="utf-8")) <= 60


def lines_of_code(text: str) -> int:
    """Lines with code on them: no comments, docstrings or empty lines."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [each for each in body if not _is_text(each)]  # type: ignore[attr-defined]
    edges = ("lineno", "end_lineno")
    return len({getattr(node, edge, 0) for node in ast.walk(tree) for edge in edges} - {0})


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def test_code_is_counted_without_words():
    words = ['"""A."""', "# b", "", "def d():", '    """E.', "", '    F.\n    """']
    assert lines_of_code("\n".join([*words, "    return (", "        1", "    )"])) == 4


@pytest.mark.parametrize("file", ["ending", "gpu_memory"])
def test_what_commands_begin_with_imports_nothing_but_the_standard_library(file):
    (path,) = [path for path in files("jelicit") if named(path) == f"jelicit/commands/{file}.py"]
    assert {name.split(".")[0] for name in imports(path)} <= sys.stdlib_module_names


def test_the_reader_of_imports_sees_every_kind(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    path = tmp_path / "pack" / "sub" / "file.py"
    path.parent.mkdir(parents=True)
    path.write_text(
        "import a.b\nfrom c import d\nfrom . import e\nfrom ..f import g\n"
        "def late():\n    import h\nif TYPE_CHECKING:\n    from i.j import k\n"
    )
    assert imports(path) == {"a.b", "c.d", "pack.sub.e", "pack.f.g", "h", "i.j.k"}


def test_the_settings_of_a_study_are_there_without_the_libraries_that_draw():
    """`--help` is asked for more often than figures are drawn."""
    code = "import sys, jelicit.studies.salience; print('matplotlib' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stdout.split()[-1:] == ["False"], done.stderr or done.stdout
