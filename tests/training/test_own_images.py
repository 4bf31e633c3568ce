"""Preset own: settings chosen by the images and the device, kept when the run goes on, and never against a flag."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from bigbigan.config import Config, find_config, flatten, lineage, parse
from bigbigan.config.presets import nested_names
from bigbigan.data import Images
from bigbigan.errors import ConfigError, DataError
from bigbigan.model import BigBiGAN
from bigbigan.networks.layers.sizes import image_sizes
from bigbigan.training import own_images
from bigbigan.training.launch import open_data
from bigbigan.training.own_images import CHOSEN, CPU, GPU, choose, choose_settings, shorter_side
from tests.conftest import picture, train

CPU_ALONE = SimpleNamespace(device=torch.device("cpu"), num_processes=1, is_main_process=True)


def settings(count: int, side: int, device: str, **options) -> dict:
    return {
        k: v for c in choose(count, side, device, options.pop("given", {}), **options) for k, v in c.settings.items()
    }


@pytest.mark.parametrize("device", ["cpu", "cuda", "mps"])
@pytest.mark.parametrize("side", [3, 8, 31, 50, 100, 130, 300, 4000])
@pytest.mark.parametrize("count", [2, 30, 900, 20_000, 2_000_000])
def test_the_choice_keeps_its_rules(count, side, device):
    found, machine = settings(count, side, device), CPU if device == "cpu" else GPU
    size = found["model.image_size"]
    assert size in image_sizes() and size <= machine.size and size <= max(side, 8), "never enlarged"
    larger = [s for s in image_sizes() if size < s <= min(side, machine.size, 64 if count < 2_000 else 512)]
    assert not larger, "as large as the images, their number and the machine allow"
    assert found["run.images"] <= machine.images
    assert found["run.images"] <= max(1_000 * count, 60_000), "few images are seen fewer times"
    assert found["data.batch_size"] <= machine.batch
    assert (found["optim.augment"] == "ada") == (count < 50_000)
    assert 5 <= found["run.images"] / found["run.sample_every"] <= 50
    assert set(found) >= set(CHOSEN) - {"optim.ada_images"}


def test_examples():
    """The numbers themselves, for who reads them: 900 images are not seen 11,111 times."""
    assert settings(900, 400, "cpu")["run.images"] == 500_000
    assert settings(900, 400, "cuda")["run.images"] == 900_000 and settings(900, 400, "cuda")["model.image_size"] == 64
    assert settings(30, 400, "cuda")["run.images"] == 60_000 and settings(30, 400, "cuda")["data.batch_size"] == 16
    many = settings(20_000, 250, "cuda")
    assert (many["model.image_size"], many["run.images"], many["data.batch_size"]) == (128, 10_000_000, 64)
    assert settings(20_000, 100, "cuda")["model.image_size"] == 96
    assert settings(20_000, 100, "cpu")["model.image_size"] == 32
    assert settings(900, 400, "cpu", parts=3)["data.batch_size"] == 33


@pytest.mark.parametrize("size", [8, 10, 28, 32, 48, 112, 128])
def test_every_size_can_be_built_with_the_chosen_widths(size):
    from unittest import mock

    for device in ("cpu", "cuda"):
        found = settings(900, 400, device, given={"model.image_size": size})
        config = parse(["--config", "own", "--data.path", "here", f"--model.image_size={size}"])[0]
        assert "model.image_size" not in found
        changes = {k.removeprefix("model."): v for k, v in found.items() if k.startswith("model.")}
        with (
            mock.patch("bigbigan.networks.generator.initialise"),
            mock.patch("bigbigan.networks.discriminator.initialise"),
            torch.device("meta"),
        ):
            BigBiGAN.from_config(dataclasses.replace(config.model, **changes))


def test_the_preset_sets_nothing_that_is_chosen():
    set_there = {name for _, content in lineage(find_config("own")) for name in nested_names(content)}
    assert not set_there & set(CHOSEN)
    assert all(name in flatten(Config()) for name in CHOSEN)


def write(folder, count: int, sides=(70, 90)):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        picture(i, (sides[i % len(sides)], 100)).save(folder / f"{i}.png")
    return folder


def chosen(tmp_path, *flags: str, checkpoints=None, accelerator=CPU_ALONE) -> Config:
    config, options = parse(["--config", "own", *flags])
    choose_settings(config, options.given, checkpoints or tmp_path / "none", accelerator)
    return config


def test_flags_and_files_win_and_the_rest_follows(tmp_path, capsys):
    path = write(tmp_path / "photos", 30)
    config = chosen(tmp_path, f"--data.path={path}")
    assert config.model.image_size == 32 and config.data.batch_size == 16 and not config.run.choose_settings
    out = capsys.readouterr().out
    assert "--model.image_size 32" in out and "--run.images 60_000" in out and "given" not in out
    flags = ("--model.image_size=64", "--run.images=1000000", "--data.batch_size", "24", "--optim.augment=none")
    config = chosen(tmp_path, f"--data.path={path}", *flags)
    assert (config.model.image_size, config.model.generator_attention) == (64, 32)
    assert config.run.images == 1_000_000 and config.run.sample_every == 40_000
    assert config.data.batch_size == 24 and config.optim.augment == "none"
    out = capsys.readouterr().out
    assert "given" in out and all(flag.split("=")[0] in out for flag in flags if flag.startswith("--"))
    mine = tmp_path / "mine.yaml"
    mine.write_text(f"base: own\nmodel: {{generator_width: 24}}\ndata: {{path: {path}}}\n")
    config, options = parse(["--config", str(mine)])
    choose_settings(config, options.given, tmp_path / "none", CPU_ALONE)
    assert config.model.generator_width == 24 and config.model.discriminator_width == 16


def test_nothing_is_chosen_that_the_networks_or_the_objective_do_not_have(tmp_path):
    path = write(tmp_path / "photos", 30)
    config = chosen(tmp_path, f"--data.path={path}", "--model.encoder=convnext_atto")
    assert config.model.encoder_width == 1.0 and config.optim.augment == "ada"
    config = chosen(
        tmp_path,
        f"--data.path={path}",
        "--model.family=progressive",
        "--model.encoder=progressive",
        "--loss.form=lsgan",
    )
    assert config.optim.augment == "none"
    config = chosen(tmp_path, f"--data.path={path}", "--model.joint=False", "--model.posterior=deterministic")
    assert config.optim.augment == "none"


def grey_pictures(folder, count: int = 6, suffix: str = "jpg"):
    """Photos without colour, stored as RGB JPEGs, whose channels differ a little."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        picture(i, (70, 90), "L").convert("RGB").save(folder / f"{i}.{suffix}")
    return folder


def test_images_without_colour_get_a_grey_generator(tmp_path, capsys):
    grey = grey_pictures(tmp_path / "xrays")
    assert (
        chosen(tmp_path, f"--data.path={grey}").model.grey
        and "none of the 5 looked at have colour" in capsys.readouterr().out
    )
    assert not chosen(tmp_path, f"--data.path={grey}", "--model.grey=False").model.grey
    progressive = ("--model.family=progressive", "--model.encoder=progressive", "--loss.form=lsgan")
    assert not chosen(tmp_path, f"--data.path={grey}", *progressive).model.grey
    write(grey, 5)
    assert not chosen(tmp_path, f"--data.path={grey}").model.grey


def test_a_grey_generator_is_refused_for_images_with_colour(tmp_path, capsys):
    """D would tell real images by their colour; of family mlp it sees grey, too."""
    photos = write(tmp_path / "photos", 5)
    with pytest.raises(ConfigError, match="--model.grey True: expected images without colour, found colour in 4 of 4"):
        open_data(parse(["--config", "own/small", f"--data.path={photos}", "--model.grey=True"])[0], {"model.grey"})
    taken = parse(["--config", "own/small", f"--data.path={photos}", "--model.init_from=xrays"])[0]
    taken.model.grey = True  # as adopt_architecture leaves it
    with pytest.raises(ConfigError, match="init_from xrays: its G draws grey images alone, so expected images without"):
        open_data(taken)
    config = parse(["--config", "digits", f"--data.path={photos}"])[0]
    open_data(config)  # what the preset alone sets gives way
    assert not config.model.grey and "the preset's model.grey True is not used" in capsys.readouterr().out
    open_data(parse(["--config", "bigan/mnist", f"--data.path={photos}"])[0])
    grey = grey_pictures(tmp_path / "grey")
    open_data(parse(["--config", "own/small", f"--data.path={grey}", "--model.grey=True"])[0])


def test_a_model_to_start_from_keeps_its_architecture(tmp_path):
    config, options = parse(["--config", "own", f"--data.path={write(tmp_path / 'photos', 30)}"])
    config.model.init_from, config.model.image_size = "other", 64  # as adopt_architecture leaves it
    choose_settings(config, options.given, tmp_path / "none", CPU_ALONE)
    assert config.model.image_size == 64 and config.model.generator_width == 96 and config.data.batch_size == 16


def test_processes_share_the_batch(tmp_path):
    three = SimpleNamespace(device=torch.device("cpu"), num_processes=3, is_main_process=False)
    path = write(tmp_path / "photos", 30)
    assert chosen(tmp_path, f"--data.path={path}", accelerator=three).data.batch_size == 18


def test_most_images_are_not_enlarged(tmp_path):
    class Sizes:
        def __len__(self):
            return 20_000

        def __getitem__(self, i):
            if i == 0:
                raise OSError("damaged")
            return Image.new("L", (40 if i % 10 == 0 else 200, 180 if i % 2 else 500))

    images = Images(Sizes(), None, None, "here", "stub")
    assert shorter_side(images) == 180
    nothing = dataclasses.replace(images, items=[])
    with pytest.raises(DataError, match="here: expected images that can be read, found none of 0"):
        shorter_side(nothing)
    small = Images([picture(0, (20 + i, 40)) for i in range(20)], None, None, "here", "stub")
    share = np.mean([min(small[i].size) >= shorter_side(small) for i in range(20)])
    assert share >= own_images.LARGE


@pytest.mark.run
def test_a_resumed_run_keeps_its_choice_when_images_are_added(tmp_path):
    """The command of the beginning goes on, and so does its config.yaml; tiny networks are given as flags."""
    path = write(tmp_path / "photos", 40, (9, 10))
    flags = ["--config=own", f"--data.path={path}", "--run.name=run", "--run.probe=False"]
    out, _ = train(tmp_path, *flags, "--run.images=48")
    assert "settings chosen for" in out and "--optim.augment ada" in out
    first = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert first["run"]["choose_settings"] is False and first["optim"]["augment"] == "ada"
    write(path, 400, (9, 10))
    out, _ = train(tmp_path, *flags, "--run.images=72", "--run.accept_changes=True")
    assert "settings that this run chose when it began" in out and "resumed from" in out
    second = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    given = ("images", "accept_changes")
    assert all(second["run"][k] == v for k, v in first["run"].items() if k not in given)
    assert second["optim"] == first["optim"] and second["data"] == first["data"]
    out, _ = train(tmp_path, f"--config={tmp_path / 'run' / 'config.yaml'}", "--run.images=96", "--run.name=run")
    assert "settings" not in out.split("bigbigan 0")[0] and "resumed from" in out
