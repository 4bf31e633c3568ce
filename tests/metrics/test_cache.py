"""What is kept on the disk: made once, read where whole, made anew where not; without a folder nothing is kept."""

import pytest
import torch

from bigbigan.metrics.cache import digest, entry, get_or_make, store


@pytest.fixture
def number(tmp_path):
    """A function that gets 7 from a file or makes it, and the list of how often it was made."""
    made = []

    def make():
        made.append(1)
        return 7

    def get(path):
        return get_or_make(
            path,
            lambda p: int(p.read_text()),
            make,
            lambda p, value: store(p, lambda beside: beside.write_text(str(value))),
        )

    get.made = made
    return get


def test_what_is_there_is_not_made_again(number, tmp_path):
    path = entry(tmp_path / "new", "number", "key")
    assert [number(path), number(path)] == [7, 7] and len(number.made) == 1
    path.write_text("cut sho")
    assert number(path) == 7 and len(number.made) == 2 and path.read_text() == "7"
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_without_a_folder_nothing_is_kept(number, tmp_path):
    assert entry(None, "number", "key") is None
    assert number(None) == number(None) == 7 and len(number.made) == 2 and not list(tmp_path.iterdir())


def test_what_reads_as_another_one_is_made_anew(tmp_path):
    path = entry(tmp_path, "number", "key")
    path.write_text("1")
    found = get_or_make(path, lambda _: None, lambda: 2, lambda p, value: p.write_text(str(value)))
    assert found == 2 and path.read_text() == "2"


def test_another_key_is_another_file(tmp_path):
    paths = {entry(tmp_path, kind, key) for kind in ("a", "b") for key in ("1", "2")}
    assert len(paths) == 4 and all(path.suffix == ".safetensors" for path in paths)


def test_the_digest_is_of_names_and_values_in_any_order():
    a, b = torch.arange(3.0), torch.tensor(5)
    assert digest({"a": a, "b": b}) == digest({"b": b, "a": a.clone()})
    assert len({digest({"a": a}), digest({"b": a}), digest({"a": a + 1}), digest({"a": a.double()})}) == 4
