"""The tree, the presets, and what a mistyped setting is told."""

import pytest

from bigbigan.config import Config, Model, differences, find_config, flatten, lineage, parse, presets, read_yaml
from bigbigan.config.cli import DEFAULT_PRESET
from bigbigan.config.presets import merged, preset_list, write_yaml
from bigbigan.errors import ConfigError
from bigbigan.model import BigBiGAN
from tests.helpers.settings import read_preset

GROUPS = {
    "": ["digits", "own"],
    "bigan/": ["ali_digits", "digits", "digits_jlr", "digits_lr", "mnist"],
    "bigbigan/": [
        "cifar10", "cifar10_cpu", "cifar10_small", "imagenet128", "imagenet128_e256", "imagenet128_resnet101",
        "imagenet128_resnet50x2", "imagenet128_revnet50", "imagenet128_revnet50x2", "imagenet128_revnet50x4",
        "imagenet64", "imagenette64", "mnist",
    ],
    "biggan/": ["imagenet128_deep", "imagenet256_deep", "imagenet512_deep", "sagan128"],
    "own/": ["small"],
    "progan/": ["a", "b", "c", "celebahq", "cifar10", "d", "digits", "e", "e_star", "f", "g", "h", "lsun"],
}  # fmt: skip
GROUPED = sorted(group + name for group, names in GROUPS.items() for name in names)
EXPECTED = [name for name in GROUPED if "/" not in name or name.split("/")[0] in ("bigbigan", "biggan", "own")]


def test_the_presets_are_there():
    assert [name for name in presets() if not name.startswith("table1")] == GROUPED  # the tables: see test_table1


@pytest.mark.parametrize("name", presets())
def test_every_preset_is_valid_and_headed_by_its_bill(name):
    path = find_config(name)
    config = read_yaml(path, Config())
    config.validate()
    row = name.startswith("table1")  # whose bill and command stand in the base of its table
    text = "".join(file.read_text() for file, _ in lineage(path)) if row else path.read_text()
    assert path.read_text().startswith("# ") and "Bill:" in text
    assert "bigbigan-train" in text or name == DEFAULT_PRESET
    assert row or name == "digits" or f"--config {name}" in text, "the command is that of this preset"


@pytest.mark.parametrize("name", EXPECTED)
def test_every_preset_builds_its_networks(name):
    from unittest import mock

    import torch

    with (
        mock.patch("bigbigan.networks.generator.initialise"),
        mock.patch("bigbigan.networks.discriminator.initialise"),
        torch.device("meta"),
    ):
        model = BigBiGAN.from_config(read_preset(name).model)
    assert model.encoder.latent_dim == model.generator.latent_dim


def test_the_defaults_are_the_papers_base():
    c = Config()
    assert (c.optim.generator_lr, c.optim.discriminator_lr, c.optim.betas, c.optim.d_steps) == (
        5e-5,
        2e-4,
        (0.0, 0.999),
        2,
    )
    assert (c.model.image_size, c.model.latent_dim, c.model.generator_width, c.data.batch_size) == (128, 120, 96, 2048)
    iterations = c.run.images / ((c.optim.d_steps + 1) * c.data.batch_size)
    assert iterations == 500_000
    assert c.optim.ema_decay == 0.9999, "per E+G update"


def test_command_line_over_file_over_defaults(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("optim: {betas: [0, 0.9], generator_lr: 1e-3}\ndata: {batch_size: 12}\n")
    config, options = parse(["--config", str(file), "--data.batch-size", "6", "--loss.unary_z", "False", "--dry-run"])
    assert config.optim.betas == (0.0, 0.9) and all(isinstance(b, float) for b in config.optim.betas)
    assert config.optim.generator_lr == 1e-3 and config.data.batch_size == 6 and config.loss.unary_z is False
    assert config.run.name == "mine" and options.dry_run


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: {latent_dm: 3}", "latent_dm"),
        ("optim: {generator_lr: fast}", "fast"),
        ("loss: {form: hing}", "hing"),
        ("model: [1, 2]", "model: expected settings"),
        ("model: {image_size: 8", "expected YAML, found an error in line"),
        ("- a\n- b", "mine.yaml"),
        ("just words", "mine.yaml"),
        ("data: {flip: 3}", "data.flip: expected true or false, found 3$"),
        ("run: {name: 12e3}", "run.name: expected a text, found 12000.0; put a text in quotes$"),
        ("data: {path: true}", "data.path: expected a text, found true; put a text in quotes$"),
        ("model: {encoder_last_relu: yes}", "expected one of auto, yes, no, found true; put a text in quotes$"),
        ("run: {seed: 010}", "expected numbers in base 10, found 010 in line 1, which YAML reads as 8; write that"),
        ("run:\n  images: 1:30", "expected numbers in base 10, found 1:30 in line 2, which YAML reads as 90"),
    ],
)
def test_a_wrong_file_is_one_message(tmp_path, text, message):
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_yaml(file, Config())


def test_texts_and_numbers_that_look_like_others_stay_as_they_are(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "run: {name: '010', seed: 0}\ndata: {path: 2024-01-01}\noptim: {betas: [0, 0.9]}"
    )
    config = read_yaml(tmp_path / "mine.yaml", Config())
    assert (config.run.name, config.run.seed, config.data.path) == ("010", 0, "2024-01-01")
    write_yaml(config, tmp_path / "again.yaml")
    assert read_yaml(tmp_path / "again.yaml", Config()) == config


def test_a_value_nested_too_deeply_is_one_message():
    value = 3
    for _ in range(400):
        value = [value]
    with pytest.raises(ConfigError, match="^state.json: expected YAML, found brackets nested too deeply$"):
        merged(Model(), {"latent_dim": value}, "state.json")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--config", "digit"], "did you mean digits?"),
        (["--config", "nowhere.yaml"], "found no such file"),
        (["--data.batch_size", "1"], "--data.batch_size 1: expected at least 2"),
        (
            ["--data.batch_size", "64", "--data.chunks", "3"],
            "--data.batch_size 64: expected a multiple of processes × chunks = 1 × 3",
        ),
        (
            ["--model.encoder_image_size", "12"],
            "--model.encoder_image_size 12: expected a multiple of --model.image_size 8",
        ),
        (["--model.prior", "uniform"], "expected the uniform prior together with the posterior tanh"),
        (["--optim.betas", "0", "1"], "--optim.betas"),
        (["--optim.encoder_lr", "-1"], "--optim.encoder_lr -1.0: expected a number above 0"),
        (["--model.image_siz", "8"], "did you mean --model.image_size?"),
        (["--run.images", "many"], "run.images"),
    ],
)
def test_a_wrong_flag_is_one_message_and_status_2(flags, message, capsys):
    with pytest.raises(SystemExit) as stop:
        parse(flags)
    assert stop.value.code == 2
    text = capsys.readouterr().err.replace("\n", " ")
    assert message in " ".join(text.replace("│", " ").split())


@pytest.mark.parametrize("name", [name for name in presets() if not read_preset(name).data.path])
def test_a_preset_that_needs_a_path_asks_for_it_with_the_command(name, capsys):
    with pytest.raises(SystemExit) as stop:
        parse(["--config", name])
    assert stop.value.code == 2
    message = capsys.readouterr().err
    assert f"--config {name}: expected --data.path too" in message and f"--config {name} --data.path FOLDER" in message
    assert parse(["--config", name, "--data.path", "here"])[0].data.path == "here"


def test_no_preset_names_images_that_only_the_user_has():
    """A path is a data set's name that every reader of the preset can have, or it is left to be given."""
    paths = {read_preset(name).data.path for name in presets()}
    assert all(path in ("", "digits") or path.count("/") == 1 for path in paths), paths


def test_a_file_on_such_a_preset_may_give_the_path(tmp_path, capsys):
    (tmp_path / "mine.yaml").write_text("base: own/small\n")
    with pytest.raises(SystemExit):
        parse(["--config", str(tmp_path / "mine.yaml")])
    assert "expected --data.path too" in capsys.readouterr().err
    (tmp_path / "mine.yaml").write_text("base: own/small\ndata: {path: photos, batch_size: 32}\n")
    config, options = parse(["--config", str(tmp_path / "mine.yaml"), "--data.batch-size=16", "--run.grid", "4"])
    assert config.data.path == "photos" and config.data.batch_size == 16
    assert options.flags == {"data.batch_size", "run.grid"}
    assert options.given >= options.flags | {"data.path", "model.image_size"} and "model.classes" not in options.given


def test_the_list_of_presets_names_each_once():
    assert preset_list().startswith("digits, own, ") and "own/NAME (1)" in preset_list()


@pytest.mark.parametrize("written", ["photos/", "./photos", "there/photos", "sub/../photos", "link"])
def test_a_folder_is_the_same_however_it_is_written(written, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("photos", "sub", "others"):
        (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to("photos")
    old, new = Config(), Config()
    old.data.path, new.data.path = "photos", written.replace("there", str(tmp_path))
    assert differences(flatten(old), new) == []
    new.data.path = "others"
    assert differences(flatten(old), new) == ["data.path: photos → others"]
    new.data.path = "gone"
    assert differences(flatten(old), new) == ["data.path: photos → gone"]


@pytest.mark.parametrize("name", ["runs/mine", "runs/mine/"])
def test_a_run_folder_in_place_of_a_preset_is_answered_with_its_file(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    (tmp_path / "runs" / "mine" / "config.yaml").write_text("run: {images: 5}")
    with pytest.raises(ConfigError, match=r"did you mean runs/mine/+config.yaml\?"):
        find_config(name)


def test_differences_name_what_changed():
    old = flatten(Config())
    new = Config()
    assert differences(old, new) == []
    new.optim.encoder_lr, new.run.images, new.data.workers = 1.0, 5, 3
    assert differences(old, new) == ["optim.encoder_lr: 5e-05 → 1.0"]


def test_a_torn_path_of_a_config_is_advised_to_be_quoted(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my own file.yaml").write_text("run: {seed: 3}")
    for line in (["--config", "my", "own", "file.yaml"], ["--run.seed", "2", "--config", "my", "own", "file.yaml"]):
        with pytest.raises(SystemExit):
            parse(line)
        assert "; put a path with blanks in quotes, 'my own file.yaml'" in capsys.readouterr().err
    assert parse(["--config", "my own file.yaml"])[0].run.seed == 3
