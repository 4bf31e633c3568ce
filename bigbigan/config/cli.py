"""The command line: `--config NAME or PATH`, `--dry-run`, and `--section.field VALUE` for any setting."""

import argparse
import sys
from typing import Any

from bigbigan.config.presets import find_config, preset_list, read_yaml, run_name
from bigbigan.config.schema import Config
from bigbigan.errors import ConfigError

DEFAULT_PRESET = "digits"


def parse(argv: list[str] | None = None, tree: type = Config) -> tuple[Any, argparse.Namespace]:
    """Return (config, options): the defaults of `tree`, over them the preset or YAML file, over it the flags.

    argv: the command line; sys.argv if None.  options: `config`, as given, and `dry_run`.
    Ends the program with status 2 and one message if an argument is wrong.
    """
    before = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    before.add_argument("--config", default=DEFAULT_PRESET)
    before.add_argument("--dry-run", action="store_true")
    options, flags = before.parse_known_args(argv)
    try:
        config = _with_flags(read_yaml(find_config(options.config), tree()), flags)
        if not config.run.name:
            config.run.name = run_name(find_config(options.config))
        config.validate()
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    return config, options


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
