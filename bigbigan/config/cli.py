"""The command line: `--config NAME or PATH`, `--dry-run`, `--processes N`, and `--section.field VALUE` for any setting.

`--help` prints the settings that people change, `--help-all` all of them, `--list` the presets.
"""

import argparse
import difflib
import os
import sys
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from bigbigan.config.command import print_and_leave
from bigbigan.config.comparison import flatten
from bigbigan.config.cross_checks import OWN_ENCODERS, RESNET_DEFAULTS, check_path, takes_resnet_settings
from bigbigan.config.help import preset_table, short_help
from bigbigan.config.parsing import parse_options, torn_path
from bigbigan.config.presets import (
    check_removed,
    find_config,
    lineage,
    nested_names,
    preset_list,
    read_yaml,
    run_name,
)
from bigbigan.config.schema import Config, Model
from bigbigan.errors import ConfigError

DEFAULT_PRESET = "digits"
OWN_FLAGS = ("--config", "--dry-run", "--processes", "--list", "--help", "--help-all")


def parse(argv: list[str] | None = None, tree: type = Config) -> tuple[Any, argparse.Namespace]:
    """Return (config, options): the defaults of `tree`, over them the preset or YAML file, over it the flags.

    argv: the command line; sys.argv if None.  options: `config`, as given, `dry_run` and `processes`, 0 if not given;
    and two sets of names "section.field": `flags`, what the command line sets, and `given`, what it or a file sets.
    Ends the program with status 2 and one message if an argument is wrong, and with status 0 after --help, --help-all
    and --list.
    """
    options, flags = _own_options(argv)
    try:
        if options.list:
            print_and_leave(preset_table())
        options.flags = {_flag_name(flag) for flag in flags if flag.startswith("--")}
        check_removed(options.flags, "command line")
        path = _find(options.config, flags, argv)
        config = read_yaml(path, tree())
        if options.help:
            print_and_leave(short_help(config, options.config, DEFAULT_PRESET))
        if not options.help_all:
            check_flags(flags, flatten(config))
        config = _with_flags(config, [*flags, *["--help"] * options.help_all])
        options.given = options.flags.union(*(nested_names(content) for _, content in lineage(path)))
        check_path(config.data.path, options.config)
        if not config.run.name:
            config.run.name = run_name(path)
        dropped = drop_resnet_settings(config.model, options.flags)
        dropped = [f"{', '.join(dropped)} not used, --model.encoder {config.model.encoder} has none"] * bool(dropped)
        if config.model.grey and config.model.family == "progressive" and "model.grey" not in options.flags:
            config.model.grey = False
            dropped.append("model.grey True not used, --model.family progressive has no grey G")
        config.validate()
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    if dropped and os.environ.get("RANK", "0") == "0" and options.processes < 2:  # once for all processes of a launch
        print(f"{options.config}: {'; '.join(dropped)}")
    return config, options


def _find(name: str, flags: list[str], argv: list[str] | None) -> Path:
    """Return what `find_config` returns, and in its error advice about a path that a blank has torn.

    flags: what is left of the command line argv.
    """
    try:
        return find_config(name)
    except ConfigError as error:
        line = sys.argv[1:] if argv is None else argv
        torn = [advice for word in flags if not word.startswith("--") and (advice := torn_path(word, line))]
        raise ConfigError(f"{error}{torn[0]}" if torn else str(error)) from None


def _own_options(argv: list[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """Return what is no setting of the tree, and the rest of the command line."""
    before = argparse.ArgumentParser(prog="bigbigan-train", add_help=False, allow_abbrev=False)
    before.add_argument("--config", default=DEFAULT_PRESET)
    before.add_argument("--dry-run", action="store_true")
    before.add_argument("--processes", type=_count, default=0)
    before.add_argument("--list", action="store_true")
    before.add_argument("-h", "--help", action="store_true")
    before.add_argument("--help-all", action="store_true")
    before.error = _refuse
    return before.parse_known_args(argv)


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text}: expected a number of processes, 1 or more")
    return int(text)


def _refuse(message: str) -> None:
    print(f"error: {message.removeprefix('argument ')}; --help shows what there is", file=sys.stderr)
    raise SystemExit(2)


def check_flags(flags: Iterable[str], known: Collection[str], own: Collection[str] = OWN_FLAGS) -> None:
    """Raise ConfigError for a flag that is no setting, and name the nearest one.

    known: the settings, as section.field.  own: flags of the command that are no settings.
    """
    for flag in flags:
        name = _flag_name(flag)
        if flag.startswith("--") and name not in known:
            found = " or ".join(_nearest(name, [*known, *(option.removeprefix("--") for option in own)])[:3])
            meant = f"did you mean {found}? " if found else ""
            raise ConfigError(f"{flag.split('=')[0]}: expected a setting; {meant}--help-all lists them all")


def _nearest(name: str, known: Collection[str]) -> list[str]:
    """Return the flags that a mistyped one may stand for: those of another section, else the one of nearest letters."""
    last = name.split(".")[-1]
    same = [key for key in known if key.split(".")[-1] == last]
    like = difflib.get_close_matches(name, known, 1, 0.75)
    longer = [key for key in known if key.endswith(f"_{last}")]
    return [f"--{key}" for key in same or like or longer or difflib.get_close_matches(name, known, 1, 0.6)]


def drop_resnet_settings(model: Model, given: Collection[str]) -> list[str]:
    """Reset the settings of a preset that only ResNet-v2 and RevNet encoders have, if `model` has another backbone.

    given: names that the command line sets; what it sets itself stays, and the encoder, which knows the names of
    backbones, refuses it when it is built. The stem is refused here: releases of older versions may hold one that had
    no effect.
    Returns "model.NAME VALUE" of each that was reset.
    """
    if takes_resnet_settings(model.encoder) or model.encoder in (*OWN_ENCODERS, "none"):
        return []
    dropped = []
    for name, default in RESNET_DEFAULTS.items():
        value = getattr(model, name)
        if value == default:
            continue
        if f"model.{name}" not in given:
            dropped.append(f"model.{name} {' '.join(map(str, value)) if isinstance(value, tuple) else value}")
            setattr(model, name, default)
        elif name == "encoder_stem":
            raise ConfigError(
                f"--model.encoder_stem {value}: expected auto with --model.encoder {model.encoder}; only revnet50 "
                "and the resnetv2 family have stems to choose"
            )
    return dropped


def _flag_name(flag: str) -> str:
    """Return section.field of --section.field or --section.field=VALUE, however it is hyphenated."""
    return flag.split("=")[0].removeprefix("--").replace("-", "_")


def _with_flags(default: Any, flags: list[str]) -> Any:
    """Return the config `default` with the values of --section.field flags; `--help` prints them all and exits."""
    description = (
        f"{type(default).__doc__}\n\n"
        f"--config NAME or PATH   one of {preset_list()} (default {DEFAULT_PRESET}), or a YAML file\n"
        "--dry-run               build everything, print it with what the run would cost, and stop\n"
        "--processes N           train with N processes on this machine, one for each GPU"
    )
    return parse_options(type(default), "bigbigan-train", flags, default=default, description=description)
