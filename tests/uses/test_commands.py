"""What the commands of this room have in common."""

import importlib
import pkgutil
import re

import pytest

from bigbigan import uses
from bigbigan.errors import InputError

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


def test_a_picture_replaces_a_picture_of_these_commands_alone(tmp_path):
    from PIL import Image

    from bigbigan.uses.command_line import picture_path, write_picture

    theirs, ours = tmp_path / "theirs.png", tmp_path / "ours.png"
    Image.new("RGB", (4, 4), "red").save(theirs)
    (tmp_path / "text.png").write_text("a note")
    for path in (theirs, tmp_path / "text.png"):
        with pytest.raises(InputError, match=rf"--curve .*{path.name}: .*, found another file; .* name by --curve"):
            picture_path(path, "--curve")
    with pytest.raises(InputError):
        write_picture(Image.new("RGB", (4, 4)), theirs)
    for colour in ("green", "blue"):
        write_picture(Image.new("RGB", (4, 4), colour), ours)
    with Image.open(theirs) as kept, Image.open(ours) as written:
        assert kept.getpixel((0, 0)) == (255, 0, 0) and written.getpixel((0, 0)) == (0, 0, 255)


def test_a_curve_is_known_as_ours(tmp_path):
    import torch

    from bigbigan.uses.command_line import picture_path
    from bigbigan.uses.compression import Point, draw_curve

    pytest.importorskip("matplotlib")
    x = torch.rand(3, 3, 8, 8)
    for _ in range(2):
        draw_curve([Point("JPEG", "", 10.0, x), Point("JPEG", "", 20.0, x / 2)], x, tmp_path / "curve.png")
    assert picture_path(tmp_path / "curve.png").is_file()
