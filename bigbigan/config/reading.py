"""YAML and command line → config: files hold differences, the command line has the last word; nothing unknown passes."""

import argparse
import dataclasses
import difflib
import io
import sys
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bigbigan.config.checks import ConfigError
from bigbigan.config.tree import Config
from bigbigan.files import printable, read_text

DEFAULT_PRESET = "digits"
PACKAGE = Path(__file__).parent.parent

# What may differ between a checkpoint and the run that resumes it: how far to go, what to show, where and how fast to compute.
FREE_TO_CHANGE = {
    "run.name", "run.root", "run.images", "run.threads", "run.compile", "run.log_every", "run.sample_every", "run.checkpoint_every",
    "run.keep_checkpoints", "run.grid", "run.trackers", "run.accept_changes", "run.probe", "run.evaluate_every",
    "run.evaluate_images", "run.best", "run.stop_after", "run.timeout", "data.workers", "data.cache", "data.cache_gib",
    "data.max_unreadable", "data.follow_links", "run.spectra_every", "run.on_nonfinite", "run.on_collapse", "run.recoveries",
}  # fmt: skip


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """{"section.field": value} of a dataclass or a mapping."""
    items = dataclasses.asdict(tree) if dataclasses.is_dataclass(tree) else tree
    flat = {}
    for key, value in items.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def differences(old: dict, new: Config) -> list[str]:
    """Lines "section.field: old → new" for the hyper-parameters that differ from a checkpoint's config.

    A setting that is younger than the checkpoint had its default then.
    """
    before, after = flatten(Config()) | flatten(old), flatten(new)
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
    return sorted(path.stem for path in preset_folder().glob("*.yaml"))


def find_config(name: str) -> Path:
    """A preset's name or a path to a YAML file → the path."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise ConfigError(
                f"--config {name}: expected a YAML file or one of the presets {', '.join(presets())}; found no such file"
            )
        return path
    preset = preset_folder() / f"{name}.yaml"
    if not preset.is_file():
        near = difflib.get_close_matches(name, presets(), n=1)
        raise ConfigError(
            f"--config {name}: expected one of {', '.join(presets())}, or a path ending in .yaml"
            + (f"; did you mean {near[0]}?" if near else "")
        )
    return preset


def read_yaml(path: Path, default: Any) -> Any:
    """The dataclass `default` with the values of a YAML file; unknown keys and wrong types raise ConfigError."""
    try:
        text = read_text(path)
        _only_values(text)
        return merged(default, OmegaConf.load(io.StringIO(text)), printable(path))
    except ConfigError:
        raise
    except (OmegaConfBaseException, yaml.YAMLError, OSError, TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"{printable(path)}: {_in_one_line(error)}") from None


def merged(default: Any, content: Any, where: str) -> Any:
    """The dataclass `default` with the values of a parsed file; ConfigError for unknown keys, wrong types, interpolations."""
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
    """Refuse tags, by which a YAML file asks for objects of other types than its own; readers differ in what they then build."""
    for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        if getattr(event, "tag", None):
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            raise ValueError(f"expected plain values, found the tag {tag} in line {event.start_mark.line + 1}; remove it")


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
    """Command line → (config, options): `--config NAME or PATH`, `--dry-run`, then `--section.field VALUE` for any field.

    Ends the program with status 2 and one message when an argument cannot be.
    """
    import tyro

    before = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    before.add_argument("--config", default=DEFAULT_PRESET)
    before.add_argument("--dry-run", action="store_true")
    options, rest = before.parse_known_args(argv)
    description = (
        f"{tree.__doc__}\n\n--config NAME or PATH   one of {', '.join(presets())} (default {DEFAULT_PRESET}), or a YAML file\n"
        "--dry-run               build everything, print it with one forward's shapes, and stop"
    )
    try:
        default = read_yaml(find_config(options.config), tree())
        config = tyro.cli(tree, default=default, args=rest, description=description, config=(tyro.conf.FlagConversionOff,))
        if not config.run.name:
            config.run.name = Path(options.config).stem
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
