"""Upload to a hub and download from it, through huggingface_hub itself, to a server in the test."""

import json

import pytest
import torch

import bigbigan
from bigbigan.release.format import FILES, write_readme, write_release
from tests.conftest import launch, tiny_model
from tests.helpers.local_hub import LocalHub

ABOUT = {"name": "tiny", "images_seen": 1234, "seed": 0, "data": {"path": "somewhere/digits", "split": "train"}}
WORTH = "\n## What it is worth\n\n| figure | value |\n|---|---|\n| linear probe | 94.4 |\n"

pytestmark = pytest.mark.run


@pytest.fixture
def release(tmp_path):
    folder, model = tmp_path / "release", tiny_model().eval()
    write_release(folder, model, ABOUT)
    write_readme(folder, model, "below", WORTH)
    return folder


def test_a_model_goes_to_the_hub_and_comes_back(release, tmp_path):
    with LocalHub() as hub:
        here = hub.environment(tmp_path / "here")
        launch("-c", f"import bigbigan; bigbigan.load({str(release)!r}, 'cpu').push_to_hub('me/tiny')", env=here)
        files = hub.repositories["me/tiny"]
        assert set(FILES) <= set(files) <= {*FILES, ".gitattributes"}
        card = files["README.md"].decode()
        assert card == (release / "README.md").read_text() and "| linear probe | 94.4 |" in card
        assert "somewhere/digits" in card and "1,234" in card and "(samples.png)" in card
        assert files["samples.png"].startswith(b"\x89PNG\r\n\x1a\n")
        fetched = (
            "import bigbigan, torch; torch.manual_seed(0); model = bigbigan.load('me/tiny', 'cpu'); "
            "torch.save(model.generate(torch.randn(3, 8)), 'x.pt'); model.save_pretrained('again'); "
            "print(model.card['images_seen'])"
        )
        there = hub.environment(tmp_path / "there")
        out, _ = launch("-c", fetched, env=there, cwd=tmp_path)
        assert out.strip().endswith("1234")
        torch.manual_seed(0)
        expected = bigbigan.load(release, "cpu").generate(torch.randn(3, 8))
        assert torch.allclose(torch.load(tmp_path / "x.pt"), expected, atol=1e-5)  # with other numbers of threads
        assert (tmp_path / "again" / "README.md").read_text() == card
        hub.calls.clear()  # what is in the cache works without the hub, but for asking whether there is a newer one
        launch("-c", "import bigbigan; bigbigan.load('me/tiny', 'cpu')", env=there | {"HF_HUB_OFFLINE": "1"})
        assert hub.calls == []


LOADS = """
import sys
import bigbigan
from bigbigan.errors import CheckpointError
for name in sys.argv[1:]:
    try:
        print("loaded", repr(bigbigan.load(name, "cpu").readme))
    except CheckpointError as error:
        print(error)
"""


def test_what_others_have_on_the_hub_and_what_is_not_there(release, tmp_path):
    """A release without a card, a damaged one, another repository, none; and paths, which are not asked for."""
    files = {name: (release / name).read_bytes() for name in FILES}
    damaged = json.dumps(json.loads(files["config.json"]) | {"sha256": "0" * 64}).encode()
    said = {
        "me/bare": "loaded ''",
        "me/damaged": "checksum is not the one in config.json",
        "me/tiny": "it has no such model",
        "me/other": "holds no config.json of a release",
    }
    with LocalHub() as hub:
        hub.repositories["me/bare"] = {name: files[name] for name in ("config.json", "model.safetensors")}
        hub.repositories["me/damaged"] = files | {"config.json": damaged}
        hub.repositories["me/other"] = {"README.md": b"words"}
        names = [*said, "runs/digit", "fotos", "./me/tiny"]
        out, _ = launch("-c", LOADS, *names, env=hub.environment(tmp_path / "home"), cwd=tmp_path)
        assert len(out.splitlines()) == len(names), "one sentence each"
        for line, words in zip(out.splitlines(), said.values(), strict=False):
            assert words in line
        asked = [path for _, path in hub.calls]
        for name in ("me/tiny", "me/other"):
            assert len([path for path in asked if name in path]) == 1, "asked once"
        assert not [path for path in asked if "digit" in path or "fotos" in path], "a path is not asked for"
