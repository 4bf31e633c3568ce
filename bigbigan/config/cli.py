"""The command line: `--config NAME or PATH`, `--dry-run`, and `--section.field VALUE` for any setting."""

import argparse
import os
import sys
from collections.abc import Collection
from typing import Any

from bigbigan.config.cross_checks import OWN_ENCODERS, RESNET_DEFAULTS, check_path, takes_resnet_settings
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


def parse(argv: list[str] | None = None, tree: type = Config) -> tuple[Any, argparse.Namespace]:
    """Return (config, options): the defaults of `tree`, over them the preset or YAML file, over it the flags.

    argv: the command line; sys.argv if None.  options: `config`, as given, and `dry_run`; and two sets of names
    "section.field": `flags`, what the command line sets, and `given`, what it or a file sets.
    Ends the program with status 2 and one message if an argument is wrong.
    """
    before = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    before.add_argument("--config", default=DEFAULT_PRESET)
    before.add_argument("--dry-run", action="store_true")
    options, flags = before.parse_known_args(argv)
    try:
        options.flags = {_flag_name(flag) for flag in flags if flag.startswith("--")}
        check_removed(options.flags, "command line")
        path = find_config(options.config)
        config = _with_flags(read_yaml(path, tree()), flags)
        options.given = options.flags.union(*(nested_names(content) for _, content in lineage(path)))
        check_path(config.data.path, options.config)
        if not config.run.name:
            config.run.name = run_name(path)
        dropped = drop_resnet_settings(config.model, options.flags)
        config.validate()
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    if dropped and os.environ.get("RANK", "0") == "0":  # once for all processes of a launch
        print(f"{options.config}: {', '.join(dropped)} not used, --model.encoder {config.model.encoder} has none")
    return config, options


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
    import tyro

    description = (
        f"{type(default).__doc__}\n\n"
        f"--config NAME or PATH   one of {preset_list()} (default {DEFAULT_PRESET}), or a YAML file\n"
        "--dry-run               build everything, print it with the shapes of one forward, and stop"
    )
    return tyro.cli(
        type(default), default=default, args=flags, description=description, config=(tyro.conf.FlagConversionOff,)
    )
