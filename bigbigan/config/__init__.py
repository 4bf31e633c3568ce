"""Settings: the dataclass tree with its bounds, and how YAML files and the command line fill it."""

from bigbigan.config.cli import parse
from bigbigan.config.comparison import EARLIER, differences, flatten, older_settings
from bigbigan.config.cross_checks import augment_parts, check_model, check_value_range
from bigbigan.config.images_given import ImagesGiven
from bigbigan.config.presets import (
    find_config,
    lineage,
    merged,
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
    "ImagesGiven",
    "Loss",
    "Model",
    "Optim",
    "Run",
    "augment_parts",
    "check_model",
    "check_value_range",
    "differences",
    "find_config",
    "flatten",
    "lineage",
    "merged",
    "older_settings",
    "parse",
    "preset_name",
    "presets",
    "read_yaml",
    "write_yaml",
]
