"""Settings: the dataclass tree, and how YAML files and the command line fill it."""

from bigbigan.config.cross_checks import augment_parts, check_model
from bigbigan.config.presets import (
    EARLIER,
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
from bigbigan.config.schema import Config, Data, Grow, Loss, Model, Optim, Run
from bigbigan.errors import ConfigError

__all__ = [
    "EARLIER",
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
