"""The floors of the house: imports point down only (docs/changing.md, "The layout")."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

# From the ground up. A room may import the floors below its own, and its own files.
FLOORS = [
    {"errors"},
    {"files"},
    {"noise", "losses"},
    {"latents"},
    {"config", "distributed"},
    {"networks", "data"},
    {"model"},
    {"training"},
    {"metrics"},
    {"release"},
    {"report", "features"},
    {"api"},
    {"uses"},
    {"train", "extract"},
]
# Hugging Face's mixin asks the model to save and load itself; the release format, which knows the model, does it.
ALLOWED = {("model", "release")}
# The schema of probe.json is made of plain dataclasses, so that the page and the card can render it.
SCHEMA = "eval_linear.result"


def floor(room: str) -> int:
    found = [i for i, rooms in enumerate(FLOORS) if room in rooms]
    assert found, (
        f"bigbigan/{room} has no floor: add it to FLOORS in tests/test_imports.py, below everything that uses it"
    )
    return found[0]


def imported(path: Path) -> set[str]:
    """The modules of ours that a file imports, anywhere in it."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            whole = node.module in ("bigbigan", "eval_linear")  # whose names are modules
            modules |= {f"{node.module}.{alias.name}" if whole else node.module for alias in node.names}
    return {module for module in modules if module.split(".")[0] in ("bigbigan", "eval_linear") and "__" not in module}


def test_imports_point_down():
    for path in sorted((ROOT / "bigbigan").rglob("*.py")):
        room = path.relative_to(ROOT / "bigbigan").parts[0].removesuffix(".py")
        if room == "__init__":
            continue
        for module in imported(path) - {"bigbigan"}:
            package, other = module.split(".")[:2]
            if package == "eval_linear":
                assert room == "train" or module == SCHEMA, f"{path}: only train.py may use {module}"
                continue
            below = other == room or floor(other) < floor(room) or (room, other) in ALLOWED
            where = path.relative_to(ROOT)
            assert below, f"{where} imports {module}, which is not on a floor below {room}; move what it needs down"


def test_a_newcomer_sees_about_a_dozen_names():
    rooms = {p.stem for p in (ROOT / "bigbigan").iterdir() if p.suffix in ("", ".py") and not p.name.startswith("__")}
    assert rooms == set().union(*FLOORS)


def test_only_backbones_and_optimisers_come_from_timm():
    users = [
        p.name
        for p in (ROOT / "bigbigan").rglob("*.py")
        if "import timm" in p.read_text() or "from timm" in p.read_text()
    ]
    assert sorted(users) == ["encoder.py", "optim.py"]


def test_no_module_hides_a_public_function_or_a_library():
    import bigbigan

    rooms = {p.stem for p in (ROOT / "bigbigan").iterdir()}
    functions = {
        name for name in bigbigan.__all__ if name.islower() and name.isidentifier() and not name.startswith("__")
    }
    assert not rooms & functions
    for folder in ("bigbigan", "eval_linear"):
        names = {p.stem for p in (ROOT / folder).iterdir()} - {"__init__", "__pycache__"}
        assert not names & (set(sys.stdlib_module_names) | {"datasets", "timm", "torch", "accelerate", "tqdm"})


def test_type_checkers_see_the_names_that_are_imported_when_used():
    import bigbigan

    tree = ast.parse((ROOT / "bigbigan" / "__init__.py").read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.asname: node.module for node in block.body for alias in node.names}
    assert seen == bigbigan._PUBLIC and all(callable(getattr(bigbigan, name)) for name in seen)


@pytest.mark.run
def test_import_is_lazy():
    code = (
        "import sys, bigbigan; assert 'torch' not in sys.modules; bigbigan.Generator; assert 'timm' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
