"""YAML and command line → config: files hold differences, the command line has the last word; nothing unknown
passes."""

import argparse
import dataclasses
import difflib
import io
import sys
from collections import Counter
from pathlib import Path, PurePath
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bigbigan.config.schema import Config
from bigbigan.errors import ConfigError
from bigbigan.files import printable, read_text

DEFAULT_PRESET = "digits"
PACKAGE = Path(__file__).parent.parent

# What may differ between a checkpoint and the run that resumes it: how far to go, what to show, where and how fast to
# compute.
FREE_TO_CHANGE = {
    "run.name", "run.root", "run.images", "run.threads", "run.compile", "run.log_every", "run.sample_every", "run.checkpoint_every",
    "run.keep_checkpoints", "run.grid", "run.trackers", "run.accept_changes", "run.probe", "run.evaluate_every",
    "run.evaluate_images", "run.best", "run.stop_after", "run.timeout", "data.workers", "data.cache", "data.cache_gib",
    "data.max_unreadable", "data.follow_links", "run.spectra_every", "run.on_nonfinite", "run.on_collapse", "run.recoveries",
}  # fmt: skip


# What a setting that is younger than a checkpoint was then, where that is not its default now.
EARLIER = {"data.split_rule": "permutation"}


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """{"section.field": value} of a dataclass or a mapping."""
    items = dataclasses.asdict(tree) if dataclasses.is_dataclass(tree) else tree
    flat = {}
    for key, value in items.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def differences(old: dict, new: Config) -> list[str]:
    """Lines "section.field: old → new" for the hyper-parameters that differ from a checkpoint's config.

    A setting that is younger than the checkpoint was then as in `EARLIER`, or had its default.
    """
    before, after = flatten(Config()) | EARLIER | flatten(old), flatten(new)
    same = lambda a, b: (list(a) if isinstance(a, tuple) else a) == (list(b) if isinstance(b, tuple) else b)  # noqa: E731
    return [
        f"{key}: {before.get(key, 'absent')} → {after.get(key, 'absent')}"
        for key in sorted(before.keys() | after.keys())
        if key not in FREE_TO_CHANGE and not same(before.get(key), after.get(key))
    ]


def preset_folder() -> Path:
    """configs/ of an installed wheel, or of the repository."""
    inside = PACKAGE / "configs"
    return inside if inside.is_dir() else PACKAGE.parent / "configs"


def presets() -> list[str]:
    """All names that --config takes: digits, table1/base, ..."""
    return sorted(preset_name(path) for path in preset_folder().rglob("*.yaml"))


def preset_name(path: Path) -> str:
    """What --config calls a preset's file; of any other file, its name without the ending."""
    inside = path.is_relative_to(preset_folder())
    return path.relative_to(preset_folder()).with_suffix("").as_posix() if inside else path.stem


def preset_list() -> str:
    """The presets for a sentence, a group as one."""
    groups = Counter(name.split("/")[0] if "/" in name else name for name in presets())
    return ", ".join(name if count == 1 else f"{name}/NAME ({count})" for name, count in groups.items())


def find_config(name: str, asked: str = "--config", beside: Path | None = None) -> Path:
    """A preset's name or a path to a YAML file → the path.  asked: by what.  beside: the folder that a path begins
    in."""
    path = Path(name) if beside is None else beside / name
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise ConfigError(
                f"{asked} {name}: expected a YAML file or one of the presets {preset_list()}; found no such file"
            )
        return path
    preset = preset_folder() / f"{name}.yaml"
    if name not in presets():
        near = difflib.get_close_matches(name, presets(), n=1)
        raise ConfigError(
            f"{asked} {name}: expected one of {preset_list()}, or a path ending in .yaml"
            + (f"; did you mean {near[0]}?" if near else "")
        )
    return preset


def read_yaml(path: Path, default: Any) -> Any:
    """The dataclass `default` with the values of a YAML file, and before them those of the files that it stands on, see
    `lineage`.

    Unknown keys and wrong types raise ConfigError.
    """
    for file, content in reversed(lineage(path)):
        default = merged(default, content, printable(file))
    return default


def lineage(path: Path) -> list[tuple[Path, Any]]:
    """[(file, its content)] of a YAML file and of those below it: `base: NAME` in a file says what it differs from.

    NAME: a preset, or a YAML file in the same folder or under it. Raises ConfigError.
    """
    found: list[tuple[Path, Any]] = []
    while True:
        content = _content(path)
        base = content.pop("base", None) if isinstance(content, dict) else None
        found.append((path, content))
        if base is None:
            return found
        asked, sound = f"{printable(path)}: base", isinstance(base, str) and base and printable(base) == base
        if not sound or PurePath(base).is_absolute() or ".." in PurePath(base).parts:
            raise ConfigError(
                f"{asked} {base!r}: expected a preset's name, or a YAML file in the same folder or under it"
            )
        try:
            below = find_config(base, asked, path.parent)
            again = any(below.samefile(file) for file, _ in found)
        except OSError as error:  # a name too long, say
            raise ConfigError(f"{asked} {base}: {_in_one_line(error)}") from None
        if again:
            circle = " → ".join(printable(preset_name(file)) for file in (*(file for file, _ in found), below))
            raise ConfigError(f"{asked} {base}: expected a file that stands on others, found a circle: {circle}")
        path = below


def _content(path: Path) -> Any:
    """What a YAML file holds, as mappings, lists and values; ConfigError."""
    try:
        text = read_text(path)
        _only_values(text)
        return OmegaConf.to_container(OmegaConf.load(io.StringIO(text)))
    except AssertionError:  # OmegaConf's word on a quoted text in which there is YAML again
        raise ConfigError(f"{printable(path)}: expected settings, found a text in quotes") from None
    except (OmegaConfBaseException, yaml.YAMLError, OSError, TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"{printable(path)}: {_in_one_line(error)}") from None


def merged(default: Any, content: Any, where: str) -> Any:
    """The dataclass `default` with the values of a parsed file; ConfigError for unknown keys, wrong types,
    interpolations."""
    try:
        content = OmegaConf.create(content)
        for text in _texts(OmegaConf.to_container(content)):
            if "${" in text or text == "???":
                raise ConfigError(f"{where}: expected values, found {text!r}; write what it stands for")
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(default), content))
    except ConfigError:
        raise
    except (OmegaConfBaseException, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{where}: {_in_one_line(error)}") from None


def _texts(tree: Any):
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, (dict, list)):
        for value in tree.values() if isinstance(tree, dict) else tree:
            yield from _texts(value)


def _only_values(text: str) -> None:
    """Refuse tags, by which a YAML file asks for objects of other types than its own; readers differ in what they then
    build."""
    for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        if getattr(event, "tag", None):
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            raise ValueError(
                f"expected plain values, found the tag {tag} in line {event.start_mark.line + 1}; remove it"
            )


def _in_one_line(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem:
        line = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        return f"expected YAML, found an error{line}: {error.problem}"
    if isinstance(error, RecursionError):
        return "expected YAML, found brackets nested too deeply"
    if isinstance(error, OSError):
        return f"expected a file that can be read, found {error.strerror or error}"
    key = getattr(error, "full_key", None)
    return (str(error).strip() or type(error).__name__).splitlines()[0] + (f" (at {key})" if key else "")


def parse(argv: list[str] | None = None, tree: type = Config) -> tuple[Any, argparse.Namespace]:
    """Command line → (config, options): `--config NAME or PATH`, `--dry-run`, then `--section.field VALUE` for any
    field.

    Ends the program with status 2 and one message when an argument cannot be.
    """
    import tyro

    before = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    before.add_argument("--config", default=DEFAULT_PRESET)
    before.add_argument("--dry-run", action="store_true")
    options, rest = before.parse_known_args(argv)
    description = (
        f"{tree.__doc__}\n\n--config NAME or PATH   one of {preset_list()} (default {DEFAULT_PRESET}), or a YAML file\n"
        "--dry-run               build everything, print it with one forward's shapes, and stop"
    )
    try:
        default = read_yaml(find_config(options.config), tree())
        config = tyro.cli(
            tree, default=default, args=rest, description=description, config=(tyro.conf.FlagConversionOff,)
        )
        if not config.run.name:
            config.run.name = preset_name(find_config(options.config)).replace("/", "-")
        config.validate()
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    return config, options


def write_yaml(config: Any, path: Path, header: str = "") -> None:
    text = yaml.safe_dump(_plain(dataclasses.asdict(config)), sort_keys=False, allow_unicode=True)
    beside = path.with_name(f".{path.name}.tmp")
    beside.write_text("".join(f"# {line}\n" for line in header.splitlines()) + text)
    beside.replace(path)


def _plain(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _plain(value) for key, value in tree.items()}
    return list(tree) if isinstance(tree, tuple) else tree
