"""The rooms of the house: imports point down only (README, "How it is built")."""

import ast
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT

# From the ground up. A room may import the floors below its own, and its own files.
FLOORS = [
    {"files"},
    {"config", "layers", "latents", "losses"},
    {"generator", "encoder", "revnet", "bigan", "discriminator", "progressive", "data"},
    {"model", "augmentation"},
    {"batch", "ema", "checkpoint", "health", "remedies", "schedule", "spectra"},
    {"release"},
    {"step", "guard", "monitor", "report", "metrics", "api", "launch"},
    {"closing", "compilation", "convert", "export", "grids"},
    {"train"},
]
# Within a floor: what a state holds, and what an encoder's trunk may be.
ALLOWED_BESIDE = {("discriminator", "losses"), ("encoder", "revnet"), ("encoder", "progressive"), ("checkpoint", "ema")}


def floor(room: str) -> int:
    found = [i for i, rooms in enumerate(FLOORS) if room in rooms]
    assert found, f"bigbigan/{room} has no floor: add it to FLOORS in tests/test_imports.py, below everything that uses it"
    return found[0]


def imported_rooms(path: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" if node.module == "bigbigan" else node.module for alias in node.names]
        else:
            continue
        rooms |= {name.split(".")[1] for name in names if name.startswith("bigbigan.")}
        if any(name.split(".")[0] == "eval_linear" for name in names):
            rooms.add("eval_linear")
    return rooms


def test_imports_point_down():
    for path in sorted((ROOT / "bigbigan").rglob("*.py")):
        room = path.relative_to(ROOT / "bigbigan").parts[0].removesuffix(".py")
        if room == "__init__":
            continue
        for other in imported_rooms(path) - {room}:
            if other == "eval_linear":
                assert room == "train", f"{path}: only train.py may use eval_linear"
                continue
            if other.startswith("__"):
                continue
            below = floor(other) < floor(room) or (room, other) in ALLOWED_BESIDE
            assert below, (
                f"{path.relative_to(ROOT)} imports bigbigan.{other}, which is not on a floor below {room}; move what it needs down"
            )


def test_only_the_encoder_knows_timm():
    users = [p.name for p in (ROOT / "bigbigan").rglob("*.py") if "import timm" in p.read_text() or "from timm" in p.read_text()]
    assert users == ["encoder.py"]


def test_no_file_outgrows_its_room():
    for folder in ("bigbigan", "eval_linear"):
        for path in (ROOT / folder).rglob("*.py"):
            lines = len(path.read_text().splitlines())
            assert lines <= 320, f"{path.relative_to(ROOT)} has {lines} lines: make it a folder with the same name"


def test_no_module_hides_a_public_function_or_a_library():
    import bigbigan

    rooms = {p.stem for p in (ROOT / "bigbigan").iterdir()}
    functions = {name for name in bigbigan.__all__ if name.islower() and name.isidentifier() and not name.startswith("__")}
    assert not rooms & functions
    for folder in ("bigbigan", "eval_linear"):
        names = {p.stem for p in (ROOT / folder).iterdir()} - {"__init__", "__pycache__"}
        assert not names & (set(sys.stdlib_module_names) | {"datasets", "timm", "torch", "accelerate", "tqdm"})


def test_import_is_lazy():
    code = "import sys, bigbigan; assert 'torch' not in sys.modules; bigbigan.Generator; assert 'timm' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
