"""What the commands of this room have in common."""

import importlib
import pkgutil
import re

import pytest

from bigbigan import uses

COMMANDS = [
    module.name
    for module in pkgutil.iter_modules(uses.__path__)
    if module.name not in ("demo", "demo_page", "command_line", "arguments", "backbones", "sklearn_features")
]


@pytest.mark.parametrize("name", COMMANDS)
def test_the_picture_s_place_is_looked_at_before_the_model_and_the_images(name, tmp_path, capsys):
    module = importlib.import_module(f"bigbigan.uses.{name}")
    (tmp_path / "file").touch()
    for out, found in {
        tmp_path
        / "file"
        / "a.png": "expected a place to write it, found .*file, which is no folder; choose another one",
        tmp_path / "a.jpg": "expected the name of a PNG file",
    }.items():
        with pytest.raises(SystemExit) as stop:
            module.main(["no such model", "--out", str(out)])
        assert stop.value.code == 2
        text = capsys.readouterr().err
        assert text.startswith(f"error: --out {out}: ") and re.search(found, text), text
