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


def test_a_release_of_strangers_files_without_a_card_loads(release, tmp_path):
    with LocalHub() as hub:
        hub.repositories["me/bare"] = {n: (release / n).read_bytes() for n in ("config.json", "model.safetensors")}
        environment = hub.environment(tmp_path / "home")
        code = "import bigbigan; print(repr(bigbigan.load('me/bare', 'cpu').readme))"
        assert launch("-c", code, env=environment)[0].strip().endswith("''")


def test_what_is_not_on_the_hub_is_one_sentence_and_asked_once(tmp_path):
    with LocalHub() as hub:
        hub.repositories["me/other"] = {"README.md": b"words"}
        environment = hub.environment(tmp_path / "home")
        said = {"me/tiny": "it has no such model", "me/other": "holds no config.json of a release"}
        names = [*said, "runs/digit", "fotos", "./me/tiny"]
        code = (
            f"import bigbigan\nfrom bigbigan.errors import CheckpointError\nfor name in {names}:\n"
            "    try:\n        bigbigan.load(name)\n    except CheckpointError as error:\n        print(error)"
        )
        out, _ = launch("-c", code, env=environment, cwd=tmp_path)
        assert [len(line) > 0 for line in out.splitlines()] == [True] * len(names)
        for line, words in zip(out.splitlines(), said.values(), strict=False):
            assert words in line
        assert len(hub.calls) == len(said), "a path is not asked for, and a name once"


def test_a_damaged_upload_is_refused(release, tmp_path):
    with LocalHub() as hub:
        files = {name: (release / name).read_bytes() for name in FILES}
        config = json.loads(files["config.json"]) | {"sha256": "0" * 64}
        hub.repositories["me/tiny"] = files | {"config.json": json.dumps(config).encode()}
        environment = hub.environment(tmp_path / "home")
        _, err = launch("-c", "import bigbigan; bigbigan.load('me/tiny')", env=environment, code=1)
        assert "checksum is not the one in config.json" in err.splitlines()[-1]
