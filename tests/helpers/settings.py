"""The settings of presets, each read once: many tests look at all of them, and reading one takes 50 ms."""

from copy import deepcopy
from functools import cache

from bigbigan.config import Config, find_config, read_yaml


@cache
def _read(name: str) -> Config:
    return read_yaml(find_config(name), Config())


def read_preset(name: str) -> Config:
    """Return the settings of a preset, which the caller may change."""
    return deepcopy(_read(name))
