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


@pytest.mark.parametrize("path", CORE, ids=named)
def test_the_core_does_not_know_the_pocket_wing(path):
    assert not [name for name in imports(path) if f"{name}.".startswith("jelicit.pocket.")]


# These are about the pocket model: its tokenizer follows the corpus, its card measures probes.
ABOUT_THE_POCKET_MODEL = ("extract/card.py", "extract/pocket_tokenizer.py")


@pytest.mark.parametrize(
    "path", [p for p in files("extract") if named(p) not in ABOUT_THE_POCKET_MODEL], ids=named
)
def test_extract_imports_only_data_activations_disk_and_ending_of_jelicit(path):
    own = [name for name in imports(path) if name.split(".")[0] in ("jelicit", "experiments")]
    allowed = ("jelicit.data.", "jelicit.activations.", "jelicit.disk.", "jelicit.commands.ending.")
    assert not [name for name in own if not f"{name}.".startswith(allowed)]


@pytest.mark.parametrize(
    "path", [p for p in files("jelicit") if named(p).startswith("jelicit/disk/")], ids=named
)
def test_the_disk_is_the_ground_floor(path):
    own = [name for name in imports(path) if name.split(".")[0] == "jelicit"]
    assert not [name for name in own if not f"{name}.".startswith("jelicit.disk.")]


def test_how_commands_end_imports_nothing_but_the_standard_library():
    (path,) = [path for path in files("jelicit") if named(path) == "jelicit/commands/ending.py"]
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
