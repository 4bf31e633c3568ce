"""Bounds beside the settings: each is named when it is crossed, and --help shows the plain type."""

import importlib
import math
import pkgutil
from dataclasses import dataclass, fields, is_dataclass
from typing import get_type_hints

import numpy as np
import pytest

import bigbigan.uses
import eval_linear
from bigbigan.config import Config, parse
from bigbigan.config.bounds import AtLeastOne, Bounds, Positive, check_argument, check_bounds, check_numbers
from bigbigan.errors import ConfigError, InputError
from bigbigan.extract import Extract
from bigbigan.release.export import Export
from bigbigan.uses.command_line import UseOptions
from eval_linear.cluster_labels import Clusters
from eval_linear.probe import Probe

BOUNDED = [
    (section.name, name, bounds)
    for section in fields(Config)
    for name, hint in get_type_hints(section.type, include_extras=True).items()
    for bounds in getattr(hint, "__metadata__", ())
]


def outside(bounds: Bounds) -> float:
    """A number that is out of bounds by one, or on an excluded bound."""
    if bounds.least > -math.inf:
        return bounds.least - 1
    return bounds.above if bounds.above > -math.inf else bounds.below


def test_most_numbers_have_bounds():
    assert len(BOUNDED) > 50 and all(isinstance(bounds, Bounds) for *_, bounds in BOUNDED)
    numbers = [
        f"{section.name}.{f.name}"
        for section in fields(Config)
        for f in fields(section.type)
        if type(getattr(getattr(Config(), section.name), f.name)) in (int, float)
    ]
    assert set(numbers) == {f"{section}.{name}" for section, name, _ in BOUNDED} & set(numbers)


def settings_of_commands():
    """The dataclasses that the commands besides bigbigan-train parse, and those within them."""
    for package in (bigbigan.uses, eval_linear):
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    found = [Extract, Export, Probe, Clusters, *UseOptions.__subclasses__()]
    for options in found:
        found += [hint for hint in get_type_hints(options).values() if is_dataclass(hint) and hint not in found]
    return found


FREE = {"value_range", "layer"}  # numbers that a rule of their own checks


@pytest.mark.parametrize("options", settings_of_commands(), ids=lambda options: options.__name__)
def test_every_number_of_a_command_has_bounds(options):
    plain, annotated = get_type_hints(options), get_type_hints(options, include_extras=True)
    numbers = [n for n, kind in plain.items() if kind in (int, float, tuple[int, ...], tuple[float, ...])]
    for name in set(numbers) - FREE:
        bounds = annotated[name].__metadata__[0]
        wrong = outside(bounds)
        wrong = (wrong,) if plain[name] not in (int, float) else wrong
        values = {"ckpt": "x", "out": "x", "model": "x", "folder": "x", "classes": 2, name: wrong}
        known = {f.name for f in fields(options)}
        with pytest.raises(ConfigError, match=f"^--{name} .*: expected "):
            check_numbers(options(**{k: v for k, v in values.items() if k in known}))


def test_an_argument_of_a_function_is_checked_by_the_same_kinds():
    check_argument("k", np.int64(1), AtLeastOne), check_argument("lr", 1, Positive)
    for value in (0, 1.0, True, None, "1"):
        with pytest.raises(InputError, match="^k: expected a whole number of at least 1, found "):
            check_argument("k", value, AtLeastOne)
    with pytest.raises(InputError, match="^lr: expected a number above 0, found nan$"):
        check_argument("lr", math.nan, Positive)


@pytest.mark.parametrize(("section", "name", "bounds"), BOUNDED, ids=lambda value: value if type(value) is str else "")
def test_a_setting_out_of_bounds_is_named_with_what_was_expected(section, name, bounds):
    config = Config()
    values = getattr(config, section)
    default = getattr(values, name)
    assert bounds.accepts(default)
    wrong = outside(bounds)
    wrong = (wrong,) * (len(default) or 4) if isinstance(default, tuple) else wrong
    setattr(values, name, wrong)
    with pytest.raises(ConfigError) as error:
        config.validate()
    found = " ".join(map(str, wrong)) if isinstance(wrong, tuple) else wrong
    assert str(error.value) == f"--{section}.{name} {found}: expected {bounds.words()}"


@pytest.mark.parametrize(
    ("bounds", "inside", "beyond", "words"),
    [
        (Bounds(least=2), (2, 2.5, 10**9), (1, math.nan), "at least 2"),
        (Bounds(above=0), (1e-9, 5), (0, -1, math.nan), "a number above 0"),
        (Bounds(least=1, most=65_536), (1, 65_536), (0, 65_537), "from 1 to 65,536"),
        (Bounds(least=2, most=1_000, even=True), (2, 1_000), (0, 3, 1_002), "an even number from 2 to 1,000"),
        (Bounds(least=0, below=1, expected="a share"), (0, 0.5, (0.1, 0.9)), (1, (0.5, 1.0), -0.1), "a share"),
        (Bounds(above=0, most=0.5), (0.1, 0.5), (0, 0.6), "a number above 0 and at most 0.5"),
        (Bounds(least=1, lengths=(0, 4)), ((), (1, 2, 3, 4)), ((1, 2), (0, 1, 1, 1)), "at least 1"),
    ],
)
def test_bounds(bounds, inside, beyond, words):
    assert all(map(bounds.accepts, inside)) and not any(map(bounds.accepts, beyond)) and bounds.words() == words


@dataclass
class Inner:
    k: AtLeastOne = 1
    rates: tuple[float, ...] = ()


@dataclass
class Outer:
    inner: Inner
    words: tuple[str, ...] = ()


@pytest.mark.parametrize(
    ("inner", "flag"),
    [(Inner(k=0), "k 0: expected at least 1"), (Inner(rates=(1.0, math.inf)), "rates inf: expected a")],
)
def test_settings_within_settings_and_parts_of_several_are_checked_too(inner, flag):
    with pytest.raises(ConfigError, match=f"^--run.inner.{flag}"):
        check_numbers(Outer(inner), "run.")
    with pytest.raises(ConfigError, match=r"^--run.words 'a\\\\x00b': expected text that can be printed"):
        check_bounds("run", Outer(Inner(), ("a", "a\0b")))


def test_help_shows_plain_types_and_every_description(capsys):
    with pytest.raises(SystemExit) as stop:
        parse(["--help-all"])
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert not stop.value.code and "Bounds" not in text and "Annotated" not in text
    assert "--data.batch_size INT Images of one update, over all processes. (default: 64)" in text
    assert "--optim.betas FLOAT FLOAT Adam's decay rates" in text
    for section in fields(Config):
        for f in fields(section.type):
            after = text.split(f"--{section.name}.{f.name} ")[1]
            assert after.split("(default:")[0].count(" ") >= 3, f"{f.name} has a description"
