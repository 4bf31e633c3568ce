"""Settings: the dataclass tree, and how YAML files and the command line fill it."""

from bigbigan.config.reading import differences, find_config, flatten, parse, presets, read_yaml, write_yaml
from bigbigan.config.tree import Config, ConfigError, Data, Grow, Loss, Model, Optim, Run

__all__ = [
    "Config",
    "ConfigError",
    "Data",
    "Grow",
    "Loss",
    "Model",
    "Optim",
    "Run",
    "differences",
    "find_config",
    "flatten",
    "parse",
    "presets",
    "read_yaml",
    "write_yaml",
]
