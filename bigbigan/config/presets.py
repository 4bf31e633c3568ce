"""YAML files of settings: the presets of configs/ and their names; files that stand on others (`base:`).

A file holds differences only. Nothing unknown passes: keys, types, tags and interpolations are checked.
"""

import dataclasses
import difflib
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import KeyValidationError, OmegaConfBaseException

from bigbigan.config.mistakes import misread, mistake
from bigbigan.errors import ConfigError
from bigbigan.files import printable, read_text, write_text_whole

PACKAGE = Path(__file__).parent.parent
OTHER_BASES = re.compile(r"[-+]?(0[0-7_]*[1-7][0-7_]*|[1-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?)")  # 010, 1:30

# Names of presets from before configs/ had groups. They keep working, and a run keeps the old name (see `run_name`).
ALIASES = {
    "ali_digits": "bigan/ali_digits",
    "bigan_digits": "bigan/digits",
    "bigan_digits_jlr": "bigan/digits_jlr",
    "bigan_digits_lr": "bigan/digits_lr",
    "bigan_mnist": "bigan/mnist",
    "cifar10": "bigbigan/cifar10",
    "cifar10_small": "bigbigan/cifar10_small",
    "digits_progressive": "progan/digits",
    "imagenet128": "bigbigan/imagenet128",
    "imagenet128_deep": "biggan/imagenet128_deep",
    "imagenet128_e256": "bigbigan/imagenet128_e256",
    "imagenet128_resnet101": "bigbigan/imagenet128_resnet101",
    "imagenet128_resnet50x2": "bigbigan/imagenet128_resnet50x2",
    "imagenet128_revnet50": "bigbigan/imagenet128_revnet50",
    "imagenet128_revnet50x2": "bigbigan/imagenet128_revnet50x2",
    "imagenet128_revnet50x4": "bigbigan/imagenet128_revnet50x4",
    "imagenet256_deep": "biggan/imagenet256_deep",
    "imagenet512_deep": "biggan/imagenet512_deep",
    "imagenet64": "bigbigan/imagenet64",
    "imagenette64": "bigbigan/imagenette64",
    "progan_a": "progan/a",
    "progan_b": "progan/b",
    "progan_c": "progan/c",
    "progan_celebahq": "progan/celebahq",
    "progan_cifar10": "progan/cifar10",
    "progan_d": "progan/d",
    "progan_e": "progan/e",
    "progan_e_star": "progan/e_star",
    "progan_f": "progan/f",
    "progan_g": "progan/g",
    "progan_h": "progan/h",
    "progan_lsun": "progan/lsun",
    "sagan128": "biggan/sagan128",
    "small": "own/small",
}


# Settings of older versions: {name: what says so now}. Their unit changed, so the old name does not take a new meaning.
REMOVED = {
    "optim.ema_half_life": (
        "--optim.ema_decay, the decay per E+G update: 0.5 ** (images of an iteration / half-life in images), 0 for no "
        "averages"
    )
}


def preset_folder() -> Path:
    """Return configs/ of the installed wheel, or of the repository."""
    inside = PACKAGE / "configs"
    return inside if inside.is_dir() else PACKAGE.parent / "configs"


def presets() -> list[str]:
    """Return the names of all presets: digits, table1/base, ...; `ALIASES` are not among them."""
    return sorted(preset_name(path) for path in preset_folder().rglob("*.yaml"))


def preset_name(path: Path) -> str:
    """Return the name by which --config takes a preset's file; of any other file, its name without the ending."""
    inside = path.is_relative_to(preset_folder())
    return path.relative_to(preset_folder()).with_suffix("").as_posix() if inside else path.stem


def run_name(path: Path) -> str:
    """Return the folder's name of a run of this file: the preset's oldest name, so that older runs resume."""
    name = preset_name(path)
    oldest = next((old for old, new in ALIASES.items() if new == name and path.is_relative_to(preset_folder())), name)
    return oldest.replace("/", "-")


def preset_list() -> str:
    """Return the names of the presets for a sentence, a group as one: digits, progan/NAME (13), ..."""
    names = presets()
    single = [name for name in names if "/" not in name]
    groups = Counter(name.split("/")[0] for name in names if "/" in name)
    return ", ".join(single + [f"{name}/NAME ({count})" for name, count in groups.items()])


def find_config(name: str, asked: str = "--config", beside: Path | None = None) -> Path:
    """Return the path of a preset or alias, or of a path that ends in .yaml or .yml; ConfigError if there is none.

    asked: the flag or key, for the error message.  beside: the folder that a relative path begins in.
    """
    path = Path(name) if beside is None else beside / name
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            moved = f"; there is a preset {ALIASES[path.stem]}" if path.stem in ALIASES else ""
            raise ConfigError(
                f"{asked} {name}: expected a YAML file or one of the presets {preset_list()}; found no such file{moved}"
            )
        return path
    preset = ALIASES.get(name, name)
    if preset not in presets():
        own = [f"{name}/config.yaml"] if (path / "config.yaml").is_file() else []  # a run folder
        near = own or difflib.get_close_matches(name, [*presets(), *ALIASES], n=1)
        raise ConfigError(
            f"{asked} {name}: expected one of {preset_list()}, or a path ending in .yaml"
            + (f"; did you mean {near[0]}?" if near else "")
        )
    return preset_folder() / f"{preset}.yaml"


def read_yaml(path: Path, default: Any) -> Any:
    """Return the dataclass `default` with the values of a YAML file, and before them of the files that it stands on.

    See `lineage`. Raises ConfigError for unknown keys and wrong types.
    """
    typed = OmegaConf.structured(default)  # most of the time of reading: once for all files
    for file, content in reversed(lineage(path)):
        default = _merged_into(typed, default, content, printable(file))
    return default


def lineage(path: Path) -> list[tuple[Path, Any]]:
    """Return [(file, its content)] of a YAML file and of those that it stands on, each named by the key `base`.

    base: the name of a preset; or a YAML file in the same folder or under it, as "other.yaml" or "./other"; a preset's
    may also begin with ../ and stay within configs/. Raises ConfigError.
    """
    found: list[tuple[Path, Any]] = []
    while True:
        content = _content(path)
        base = content.pop("base", None) if isinstance(content, dict) else None
        found.append((path, content))
        if base is None:
            return found
        asked = f"{printable(path)}: base"
        try:
            below = _find_base(path, base, asked)
            again = any(below.samefile(file) for file, _ in found)
        except OSError as error:  # a name too long, say
            raise ConfigError(f"{asked} {base}: {_in_one_line(error)}") from None
        if again:
            circle = " → ".join(printable(preset_name(file)) for file in (*(file for file, _ in found), below))
            raise ConfigError(f"{asked} {base}: expected a file that stands on others, found a circle: {circle}")
        path = below


def _find_base(path: Path, base: Any, asked: str) -> Path:
    """Return the file that the key `base` of the file `path` names."""
    named = isinstance(base, str) and base and printable(base) == base and not PurePath(base).is_absolute()
    if not named or (".." in PurePath(base).parts and not _within_presets(path, path.parent / base)):
        raise ConfigError(f"{asked} {base!r}: expected a preset's name, or a YAML file in the same folder or under it")
    beside = base.startswith(("./", "../")) and PurePath(base).suffix not in (".yaml", ".yml")
    return find_config(f"{base}.yaml" if beside else base, asked, path.parent)


def _within_presets(*paths: Path) -> bool:
    return all(path.resolve().is_relative_to(preset_folder().resolve()) for path in paths)


def _content(path: Path) -> Any:
    """Return what a YAML file holds, as mappings, lists and values; ConfigError."""
    try:
        text = read_text(path)
        _check_plain(text)
        return OmegaConf.to_container(OmegaConf.load(io.StringIO(text)))
    except AssertionError:  # raised by OmegaConf for a quoted text that contains YAML again
        raise ConfigError(f"{printable(path)}: expected settings, found a text in quotes") from None
    except (OmegaConfBaseException, yaml.YAMLError, OSError, TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"{printable(path)}: {_in_one_line(error)}") from None


def merged(default: Any, content: Any, where: str) -> Any:
    """Return the dataclass `default` with the values of a parsed file.

    where: the file, for the error message. Raises ConfigError for unknown keys, wrong types and interpolations.
    """
    return _merged_into(OmegaConf.structured(default), default, content, where)


def _merged_into(typed: DictConfig, default: Any, content: Any, where: str) -> Any:
    """Do `merged`, and change `typed`, which is `default` as OmegaConf has it."""
    try:
        created = OmegaConf.create(content)
        check_removed(nested_names(content), where)
        for text in _texts(content):
            if "${" in text or text == "???":
                raise ConfigError(f"{where}: expected values, found {text!r}; write what it stands for")
        typed.merge_with(created)
        found = OmegaConf.to_object(typed)
        if wrong := misread(default, content):
            raise ConfigError(f"{where}: {wrong}")
        return found
    except ConfigError:
        raise
    except (OmegaConfBaseException, TypeError, ValueError, AttributeError, RecursionError) as error:
        wrong = "" if isinstance(error, RecursionError) else mistake(default, content)
        raise ConfigError(f"{where}: {wrong or _in_one_line(error)}") from None


def check_removed(names: Iterable[str], where: str) -> None:
    """Raise ConfigError for the name of a setting that no longer exists, as "section.field".

    where: the file or the flag, for the error message.
    """
    for name in names:
        if name in REMOVED:
            raise ConfigError(f"{where}: {name} is a setting of an older version; use {REMOVED[name]}")


def nested_names(content: Any) -> Iterator[str]:
    """Yield "section.field" of every setting in a parsed file."""
    for section, fields in content.items() if isinstance(content, Mapping) else ():
        for name in fields if isinstance(fields, Mapping) else ():
            yield f"{section}.{name}"


def _texts(tree: Any) -> Iterator[str]:
    """Yield every text of nested mappings and lists."""
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, (dict, list)):
        for value in tree.values() if isinstance(tree, dict) else tree:
            yield from _texts(value)


def _check_plain(text: str) -> None:
    """Raise ValueError for a tag, by which a YAML file asks a reader to build objects, or run code; and for a number
    that YAML reads in base 8 or 60.
    """
    for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        if isinstance(event, yaml.ScalarEvent) and event.implicit[0] and OTHER_BASES.fullmatch(event.value):
            raise ValueError(
                f"expected numbers in base 10, found {event.value} in line {event.start_mark.line + 1}, which YAML "
                f"reads as {yaml.safe_load(event.value)}; write that, or put a text in quotes"
            )
        if getattr(event, "tag", None):
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            raise ValueError(
                f"expected plain values, found the tag {tag} in line {event.start_mark.line + 1}; remove it"
            )


def _in_one_line(error: Exception) -> str:
    """Return the message of an error of reading, parsing or merging as one line."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem:
        line = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        return f"expected YAML, found an error{line}: {error.problem}"
    if isinstance(error, KeyValidationError):
        return "expected settings by their names, found a key that is no name"
    if isinstance(error, RecursionError):
        return "expected YAML, found brackets nested too deeply"
    if isinstance(error, OSError) and not error.strerror:  # OmegaConf's, for a file of one number or date
        return "expected settings, as in `run: {seed: 1}`, found a single value"
    if isinstance(error, OSError):
        return f"expected a file that can be read, found {error.strerror or error}"
    key = getattr(error, "full_key", None)
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    return first + (f" (at {printable(str(key))})" if key else "")


def write_yaml(config: Any, path: Path, header: str = "") -> None:
    """Write a config as a YAML file that --config takes, complete or not at all.

    header: lines that become comments before it.
    """
    text = yaml.safe_dump(_plain(dataclasses.asdict(config)), sort_keys=False, allow_unicode=True)
    write_text_whole(path, "".join(f"# {line}\n" for line in header.splitlines()) + text)


def _plain(tree: Any) -> Any:
    """Return a tree with its tuples as lists, as YAML has them."""
    if isinstance(tree, dict):
        return {key: _plain(value) for key, value in tree.items()}
    return list(tree) if isinstance(tree, tuple) else tree
