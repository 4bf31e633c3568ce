"""Every command and every piece of Python in README.md and docs/ is run at toy length, or a comment says why not.

The blocks of a page are run one after the other in one temporary folder, outside the clone, as a reader would run them.
What a block needs and no earlier one makes is laid there: photos, a finished run. Commands run in this process, with
flags before the page's own that shrink networks and lengths.
"""

import configparser
import contextlib
import importlib
import inspect
import io
import re
import runpy
import shlex
import shutil
import sys
import tarfile
import textwrap
import warnings
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState

from bigbigan import errors
from bigbigan.config import Config, flatten, presets, read_yaml
from bigbigan.config.presets import ALIASES
from bigbigan.extract import Extract
from eval_linear.command import names
from eval_linear.probe import Probe
from tests.conftest import ROOT, picture
from tests.helpers.documents import NO_CODE, Block, all_blocks, pages
from tests.helpers.settings import read_preset
from tests.helpers.shrunk import shrunk

BLOCKS = all_blocks()
CODE = [block for block in BLOCKS if block.language not in NO_CODE]
RUN = [block for block in CODE if block.mark not in ("not run", "from")]
EXTRAS = configparser.ConfigParser()
EXTRAS.read(ROOT / "setup.cfg")
ENTRY_POINTS = dict(
    re.split(r"\s*=\s*", line) for line in EXTRAS["options.entry_points"]["console_scripts"].strip().splitlines()
)
TOY_TRAIN = {
    "run.images": 48, "run.log_every": 24, "run.sample_every": 48, "run.checkpoint_every": 48, "run.grid": 2,
    "run.statistics_images": 16, "run.threads": 1, "run.spectra_every": 0, "run.probe": False, "data.workers": 0,
    "run.evaluate_every": 0,
}  # fmt: skip
TOY_USES = {
    "bigbigan.uses.directions": ["--train_steps=30"], "bigbigan.uses.few_shot": ["--draws=2", "--shots", "1", "2"],
    "bigbigan.uses.inversion": ["--steps=20", "--images=20"],
}  # fmt: skip
TOY_PROBE = ["--untrained=1", "--queries=20", "--labels=1", "--cache=False"]


def test_every_block_is_code_of_a_known_kind_or_no_code():
    known = {"shell", "python", "yaml", *NO_CODE}
    wrong = [f"{block}: {block.language or 'none'}" for block in BLOCKS if block.language not in known]
    assert not wrong, f"expected fences of {', '.join(sorted(known))}: {wrong}"
    assert len(RUN) > 25 and len(RUN) > len(CODE) / 2


def test_a_block_that_is_not_run_says_why():
    for block in CODE:
        if block.mark == "not run":
            assert len(block.why) > 12, f"{block}: say in a few words why it is not run"
        for path in re.findall(r"(?:tests|benchmarks)/[\w/]+\.\w+", block.why):
            assert (ROOT / path).is_file(), f"{block}: names {path}, which is not there"


@pytest.mark.parametrize("block", [block for block in CODE if block.mark == "from"], ids=str)
def test_quoted_lines_stand_in_the_source(block):
    """<!-- from: FILE, NAME -->: the lines are those of the function or class, in order; "..." stands for some left
    out."""
    path, _, name = block.why.partition(", ")
    module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
    found = module
    for part in name.split("."):
        found = getattr(found, part)
    source, at = textwrap.dedent(inspect.getsource(found)), 0
    for piece in re.split(r"^\s*\.\.\.\n", block.text + "\n", flags=re.MULTILINE):
        lines = textwrap.dedent(piece).strip("\n")
        here = [m for depth in (0, 4, 8, 12) if (m := source.find(textwrap.indent(lines, " " * depth), at)) >= 0]
        assert here, f"{block}: these lines are not in {name} of {path} any more, in this order:\n{lines}"
        at = here[0] + len(lines)


def toy_train(argv: list[str]) -> list[str]:
    """Return the arguments with flags before them that make the preset small; what the page itself sets stays."""
    preset = argv[argv.index("--config") + 1] if "--config" in argv else "digits"
    given = {word.split("=")[0].removeprefix("--") for word in argv if word.startswith("--")}
    before, small = flatten(read_preset(preset)), flatten(shrunk(preset))
    changed = {name: value for name, value in small.items() if value != before[name]}
    changed.pop("run.choose_settings", None)
    if not before["data.path"]:  # a preset that asks for images
        changed.pop("data.path")
    if "model.init_from" in given:  # whose architecture is taken over
        changed = {name: value for name, value in changed.items() if not name.startswith("model.")}
    flags = []
    for name, value in (changed | TOY_TRAIN).items():
        if name not in given and value not in (None, ()):
            flags += [f"--{name}", *map(str, value if isinstance(value, (list, tuple)) else [value])]
    return flags + argv


def toy(program: str, argv: list[str]) -> list[str]:
    """Return a command's arguments at toy length."""
    if program == "bigbigan-train":
        return toy_train(argv)
    if program == "bigbigan-probe":
        labelled = "photos" not in argv[0] or "LABELLED" in argv
        return argv + TOY_PROBE + ["--parts", *["linear", "knn"] * labelled, "pairs"] * ("--parts" not in argv)
    return argv


def run_command(argv: list[str]) -> int:
    """Run one command of a page in this process and return its exit status; what is unknown fails, to be marked."""
    program, *rest = argv
    if program == "pip":
        return check_install(rest)
    if program in ENTRY_POINTS:
        module, function = ENTRY_POINTS[program].split(":")
        return as_program([program, *toy(program, rest)], lambda: getattr(importlib.import_module(module), function)())
    if program == "python" and rest[0] == "-m":
        toys = TOY_USES.get(rest[1], [])  # after the page's own flags, which they override
        return as_program([*rest[1:], *toys], lambda: runpy.run_module(rest[1], run_name="__main__"))
    return pytest.fail(f"{program}: no test runs it; mark the block, <!-- not run: WHY -->")


def check_install(arguments: list[str]) -> int:
    """The extras that are to be installed exist; the installation itself is made by .ci/run."""
    for extra in re.findall(r"\[(\w+)\]", " ".join(arguments)):
        assert extra in EXTRAS["options.extras_require"], f"setup.cfg has no extra {extra}"
    return 0


def as_program(argv: list[str], call) -> int:
    """Call with sys.argv set, and return the exit status."""
    AcceleratorState._reset_state(reset_partial_state=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", list(map(str, argv)))
        try:
            call()
        except SystemExit as stop:
            return stop.code or 0
        finally:
            AcceleratorState._reset_state(reset_partial_state=True)
    return 0


def printed_after(block: Block) -> str:
    """Return the text that a page shows as what a block prints: that of the next block."""
    following = BLOCKS[BLOCKS.index(block) + 1]
    assert following.page == block.page and following.language == "text", f"{block}: expected its error after it"
    return following.text


def check_error(block: Block, shown: str, variables: dict) -> None:
    """A command or Python that fails does so as the page says, with each line that the page shows in its message."""
    if block.mark == "raises":
        with pytest.raises(getattr(errors, block.why)) as caught:
            exec(compile(block.text, str(block), "exec"), variables)
        found = str(caught.value)
    else:
        written = io.StringIO()
        with contextlib.redirect_stderr(written):
            status = run_command(shlex.split(block.text))
        found = written.getvalue()
        assert str(status) == block.why, f"{block}: exit {status}\n{found}"
    missing = [line for line in shown.splitlines() if line not in found]
    assert not missing, f"{block}: the page shows {missing}, found:\n{found}"


def put_picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(seed, (20, 16 + seed % 3)).save(path)


def lay_out(folder: Path, page_blocks: list[Block], run: Path) -> None:
    """Lay in `folder` what the blocks of a page take for granted: images under the names they use, finished runs."""
    text = "\n".join(block.text for block in page_blocks)
    for name in ("photos", "PHOTOS", "LABELLED", "CELEBA-HQ"):
        for i in range(24 if re.search(rf"\b{name}\b", text) else 0):
            put_picture(folder / name / ("ab"[i % 2] if name == "LABELLED" else "") / f"{i:02d}.png", i)
    if "shards" in text:
        (folder / "shards").mkdir()
        with tarfile.open(folder / "shards" / "train-0000.tar", "w") as tar:
            for i in range(24):
                picture(i, (16, 16)).save(folder / "one.png")
                tar.add(folder / "one.png", f"{i:04d}.png")
    for name, content in (("broken/cut.jpg", b"no picture"), ("empty/notes.txt", b"words")):
        if name.split("/")[0] in text:
            (folder / name).parent.mkdir()
            (folder / name).write_bytes(content)
    for i in range(12 if "vehicles" in text else 0):
        put_picture(folder / "vehicles" / ("bus", "car", "train")[i % 3] / f"{i}.png", i)
    picture(0).save(folder / "one.jpg")
    made = {name for block in page_blocks if not block.mark for name in re.findall(r"--run\.name ([\w-]+)", block.text)}
    if any(not block.mark and re.search(r"bigbigan-train *$", block.text, re.MULTILINE) for block in page_blocks):
        made.add("digits")
    known = set(re.findall(r"(?:runs/|--run\.name )([\w-]+)", text)) - {"nothing", "exploded"}
    for name in known - made:
        shutil.copytree(run, folder / "runs" / name)
    if "path/to/this/clone" in text:
        (folder / "path/to/this").mkdir(parents=True)
        (folder / "path/to/this/clone").symlink_to(ROOT)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BIGBIGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    return tmp_path


@pytest.mark.run
@pytest.mark.parametrize("page", sorted({block.page for block in RUN}))
def test_the_blocks_of_a_page_run(page, folder, run_folder, monkeypatch):
    here = [block for block in RUN if block.page == page]
    lay_out(folder, here, run_folder)
    variables: dict = {}
    for block in here:
        with warnings.catch_warnings(), contextlib.ExitStack() as stack:
            warnings.simplefilter("ignore")
            stack.callback(print, f"{block} has run, or failed")
            if block.mark in ("fails", "raises"):
                check_error(block, printed_after(block), variables)
                continue
            if block.language == "python":
                exec(compile(block.text, str(block), "exec"), variables)
                continue
            if block.language == "yaml":  # a file of settings
                (folder / "settings.yaml").write_text(block.text)
                read_yaml(folder / "settings.yaml", Config()).validate()
                continue
            for line in block.text.splitlines():
                for command in shlex.split(line, comments=True) and line.split("&&"):
                    status = run_command(shlex.split(command, comments=True))
                    assert status == 0, f"{block}: {command}: exit {status}"


PROSE = [(path, path.read_text(encoding="utf-8")) for path in pages() if path.name != "CHANGELOG.md"]
FLAG = re.compile(r"(?<![\w-])--((?:model|loss|optim|data|grow|run|generation)\.[a-z_0-9]+)")
FLAGS = set(flatten(Config())) | set(names(Probe)) | set(names(Extract))


@pytest.mark.parametrize(("path", "text"), PROSE, ids=[str(path.relative_to(ROOT)) for path, _ in PROSE])
def test_what_a_page_names_exists(path, text):
    """Flags, presets, commands and files of the repository, in blocks, tables and sentences alike."""
    unknown = set(FLAG.findall(text)) - FLAGS - {"data.pth"}  # which is mistyped on purpose
    assert not unknown, "flags that no command has"
    called = set(re.findall(r"--config ([a-z][\w/]*)", text))
    assert not called - {*presets()}, "presets that are not there"
    if path.name != "presets.md":  # which says that the names of before still work
        before = set(ALIASES) - {"cifar10", "small"}  # the one is also a model's name, the other an ordinary word
        assert not {name for name in before if f"`{name}`" in text}, "presets by their names of before"
    assert not set(re.findall(r"\bbigbigan-[a-z]+\b(?!\])", text)) - {*ENTRY_POINTS}, "commands that are not installed"
    files = set(re.findall(r"\b(?:tests|benchmarks|bigbigan|eval_linear|configs)/[\w/]+\.(?:py|sh|yaml|md)\b", text))
    assert not {name for name in files if not (ROOT / name).exists()}, "files that are not in the repository"
