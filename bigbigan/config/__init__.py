"""Settings: the dataclass tree, and how YAML files and the command line fill it."""

from bigbigan.config.checks import ConfigError, augment_parts, check_model
from bigbigan.config.reading import (
    differences,
    find_config,
    flatten,
    lineage,
    merged,
    parse,
    preset_name,
    presets,
    read_yaml,
    write_yaml,
)
from bigbigan.config.tree import Config, Data, Grow, Loss, Model, Optim, Run

__all__ = [
    "Config",
    "ConfigError",
    "Data",
    "Grow",
    "Loss",
    "Model",
    "Optim",
    "Run",
    "augment_parts",
    "check_model",
    "differences",
    "find_config",
    "flatten",
    "lineage",
    "merged",
    "parse",
    "preset_name",
    "presets",
    "read_yaml",
    "write_yaml",
]
