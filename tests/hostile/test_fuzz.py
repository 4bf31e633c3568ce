"""Inputs made by chance: whatever comes in, our own errors or a result, in time.

100 cases each, always the same ones; `pytest -m soak tests/hostile/test_fuzz.py` makes BIGBIGAN_FUZZ (5,000) others
each.
"""

import json
import os
import shutil
import warnings
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import bigbigan
from bigbigan.config import Config, flatten, read_yaml
from bigbigan.errors import CheckpointError, ConfigError, InputError
from bigbigan.release.load import load_model
from bigbigan.report import write_page
from bigbigan.training.checkpoint import read
from tests.conftest import ROOT, tiny_model
from tests.helpers import fake_run

CASES = int(os.environ.get("BIGBIGAN_FUZZ", "5000"))
DEADLINE = 20_000  # milliseconds of one case, on a busy machine: none may hang
FIXTURE = next((ROOT / "tests" / "fixtures" / "checkpoint-format-1").iterdir())

few = settings(
    max_examples=100, derandomize=True, deadline=DEADLINE, database=None, suppress_health_check=list(HealthCheck)
)
many = settings(few, max_examples=CASES, derandomize=False, print_blob=True)

leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=12),
    st.dates(),
    st.sampled_from(["${oc.env:HOME}", "${data.path}", "???", "1e3", "!!int 3", "0x1F", "-.inf", "digits", "hinge"]),
    st.sampled_from(["\udcff", "\0", "../x", "", "true", "null", "a\nb"]),
)
trees = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4)
)
known = st.sampled_from(sorted(flatten(Config())))


@st.composite
def settings_files(draw) -> bytes:
    """YAML of our own keys with any values, of any tree, or any bytes."""
    kind = draw(st.integers(0, 9))
    if kind == 0:
        return draw(st.binary(max_size=200))
    if kind == 1:
        return draw(st.text(alphabet="{}[]:,-&*!|>'\"#%@ \n\tab01.?<=", max_size=60)).encode("utf-8", "surrogatepass")
    tree: dict = {}
    for key in draw(st.lists(known, min_size=1, max_size=5)):
        section, name = key.split(".")
        tree.setdefault(section, {})[name] = draw(leaves if kind < 8 else trees)
    tree = draw(trees) if kind == 9 else tree
    try:
        return yaml.safe_dump(tree, allow_unicode=kind % 2 == 0).encode("utf-8", "surrogatepass")
    except yaml.YAMLError:
        return json.dumps(tree, default=str).encode()


def check_settings(folder: Path, content: bytes) -> None:
    file = folder / "mine.yaml"
    file.write_bytes(content)
    try:
        config = read_yaml(file, Config())
        config.validate()
    except ConfigError as error:
        assert str(error).strip() and "\n" not in str(error)
        return
    for key, value in flatten(Config()).items():
        assert type(flatten(config)[key]) is type(value), key


@pytest.fixture(scope="module")
def model():
    return tiny_model().eval()


pixels = st.one_of(
    hnp.integer_dtypes(),
    hnp.unsigned_integer_dtypes(),
    hnp.floating_dtypes(),
    hnp.boolean_dtypes(),
    st.just(np.dtype("u1")),
    hnp.complex_number_dtypes(),
    hnp.byte_string_dtypes(),
    hnp.unicode_string_dtypes(),
    hnp.datetime64_dtypes(),
    st.just(np.dtype(object)),
)
shapes = st.one_of(
    hnp.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=12),
    st.tuples(st.integers(1, 3), st.integers(1, 20), st.integers(1, 20), st.sampled_from([1, 3, 4])),
    st.tuples(st.integers(1, 3), st.sampled_from([1, 3]), st.integers(1, 20), st.integers(1, 20)),
)


@st.composite
def inputs(draw):
    """Arrays of any kind, shape, value and layout in memory, tensors, lists of them, and what is no image at all."""
    kind = draw(st.integers(0, 9))
    if kind == 0:
        return draw(
            st.recursive(leaves | st.binary(max_size=9), lambda inner: st.lists(inner, max_size=3), max_leaves=4)
        )
    if kind < 3:
        x = draw(hnp.arrays(draw(st.sampled_from(["u1", "f4"])), draw(shapes), elements=st.integers(0, 1)))
    else:
        x = draw(hnp.arrays(draw(pixels), draw(shapes)))
    if draw(st.booleans()) and x.ndim:
        x = x[:: draw(st.sampled_from([-1, 2, 1]))].swapaxes(0, draw(st.integers(0, x.ndim - 1)))
    if kind == 9:
        return [x, x]
    if kind == 8 and x.dtype.kind in "uifb" and x.dtype.isnative and x.dtype.itemsize <= 8:
        return torch.from_numpy(x.copy(order="C"))
    return x


def check_encode(model, images) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            out = bigbigan.encode(images, model, "avepool_feat")
        except InputError as error:
            assert str(error).strip() and "\n" not in str(error)
            return
    assert out.isfinite().all() and out.shape[1] == 64


@st.composite
def damages(draw):
    """(file, a list of (place as a share, kind, byte)), whether the checksums are made right again."""
    file = draw(st.sampled_from(["state.json", "model.safetensors", "averages.safetensors", "config"]))
    if file == "config":
        return file, [(draw(known.filter(lambda k: k.startswith("model."))), draw(trees))], True
    near = st.floats(0, 0.2) if draw(st.booleans()) else st.floats(0, 1)  # headers lie at the beginning
    change = st.tuples(near, st.sampled_from(["set", "cut", "insert", "repeat"]), st.binary(min_size=1, max_size=9))
    return file, draw(st.lists(change, min_size=1, max_size=4)), draw(st.booleans())


def damaged(content: bytes, changes) -> bytes:
    for place, kind, some in changes:
        at = int(place * len(content))
        if kind == "set":
            content = content[:at] + some + content[at + len(some) :]
        elif kind == "cut":
            content = content[:at]
        else:
            content = content[:at] + (some if kind == "insert" else content[at : at + 100]) + content[at:]
    return content


def check_checkpoint(folder: Path, damage) -> None:
    file, changes, sealed = damage
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(FIXTURE, folder)
    state = json.loads((folder / "state.json").read_text())
    if file == "config":
        state["config"] |= dict(changes)
        (folder / "state.json").write_text(json.dumps(state, default=str))
    else:
        (folder / file).write_bytes(damaged((folder / file).read_bytes(), changes))
        if sealed and file != "state.json":
            state["sha256"][file] = sha256((folder / file).read_bytes()).hexdigest()
            (folder / "state.json").write_text(json.dumps(state))
    for reader in (read, load_model):
        try:
            reader(folder)
        except CheckpointError as error:
            assert str(error).strip() and "\n" not in str(error)


def places(tree, path=()) -> list[tuple]:
    """The paths of all that is in a tree of dicts and lists."""
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [path] * bool(path) + [place for key, value in inner for place in places(value, (*path, key))]


EVALUATION = fake_run.probe(3)
changes = st.lists(st.tuples(st.sampled_from(places(EVALUATION)), trees), min_size=1, max_size=3)


def check_page(folder: Path, changes) -> None:
    """Whatever stands in probe.json, there is a page."""
    content = json.loads(json.dumps(EVALUATION))
    for path, value in changes:
        try:
            inner = content
            for key in path[:-1]:
                inner = inner[key]
            inner[path[-1]] = value
        except (LookupError, TypeError):  # what was there has been changed before
            continue
    (folder / "probe.json").write_text(json.dumps(content, default=str), encoding="utf-8", errors="surrogatepass")
    page = write_page(folder).read_text(encoding="utf-8")
    assert page.rstrip().endswith("</html>")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return fake_run.fake_run(tmp_path_factory.mktemp("fuzz") / "run", 3, lines=3, frames=1, side=8)


@given(changes)
@few
def test_pages(run, changes):
    check_page(run, changes)


@given(settings_files())
@few
def test_settings(tmp_path_factory, content):
    check_settings(tmp_path_factory.getbasetemp(), content)


@given(inputs())
@few
def test_encode(model, images):
    check_encode(model, images)


@given(damages())
@few
def test_checkpoints(tmp_path_factory, damage):
    check_checkpoint(tmp_path_factory.getbasetemp() / "damaged", damage)


@pytest.mark.soak
@given(changes)
@many
def test_soak_pages(run, changes):
    check_page(run, changes)


@pytest.mark.soak
@given(settings_files())
@many
def test_soak_settings(tmp_path_factory, content):
    check_settings(tmp_path_factory.getbasetemp(), content)


@pytest.mark.soak
@given(inputs())
@many
def test_soak_encode(model, images):
    check_encode(model, images)


@pytest.mark.soak
@given(damages())
@many
def test_soak_checkpoints(tmp_path_factory, damage):
    check_checkpoint(tmp_path_factory.getbasetemp() / "damaged", damage)
