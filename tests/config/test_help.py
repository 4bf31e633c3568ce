"""--help is short and needs no torch, --list has every preset, a mistyped flag is told the nearest one."""

import subprocess
import sys

import pytest

from bigbigan.config import Config, find_config, flatten, parse, presets
from bigbigan.config.cli import DEFAULT_PRESET, check_flags
from bigbigan.config.help import EXAMPLES, FREQUENT, header, hours_by_device
from bigbigan.errors import ConfigError
from tests.conftest import ROOT


def printed(capsys, *flags: str) -> str:
    with pytest.raises(SystemExit) as stop:
        parse(list(flags))
    assert stop.value.code == 0
    return capsys.readouterr().out


def test_help_is_one_screen_with_ten_settings_and_three_examples(capsys):
    out = printed(capsys, "--help")
    assert set(FREQUENT) <= set(flatten(Config())) and len(FREQUENT) == 10 and len(EXAMPLES) == 3
    assert all(f"--{name} " in out for name in FREQUENT) and all(command in out for command, _ in EXAMPLES)
    assert len(out.splitlines()) < 50 and max(map(len, out.splitlines())) <= 130
    assert "--data.batch_size 32" in printed(capsys, "--config", "bigbigan/cifar10", "-h").replace("256", "32")


def test_the_examples_of_help_name_presets():
    for command, _ in EXAMPLES:
        words = command.split()
        if "--config" in words:
            assert find_config(words[words.index("--config") + 1]).is_file()


def test_help_all_has_every_setting(capsys):
    out = printed(capsys, "--help-all")
    assert all(f"--{name}" in out.replace("\n", "") for name in flatten(Config()))


def test_the_list_has_each_preset_on_a_line_with_its_bill(capsys):
    lines = printed(capsys, "--list").splitlines()
    assert [line.split()[0] for line in lines] == presets()
    assert all(" px " in line and len(line.split("Bill: ")[1]) > 10 for line in lines)
    assert all("launch" not in line or line.split()[0] == DEFAULT_PRESET for line in lines)


def test_a_header_is_read_as_sentences(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(
        "# Digits, 8×8 px, of Smith (2017). More of them.\n#   bigbigan-train --config mine\n# Bill: two cores, "
        "5.5 minutes. Rest.\n# Computed: 3 GFLOP; a device: A100 (312) 1,000 images/s, 66.2 days; RTX 4090 (165) 5\n"
        "# images/s, 2 h 10 min.\nmodel: {image_size: 8}\n"
    )
    found = header(file)
    assert found["what"] == "Digits, 8×8 px, of Smith (2017)."
    assert found["bill"] == "two cores, 5.5 minutes."
    assert hours_by_device(found["computed"]) == {"A100": "66.2 days", "RTX 4090": "2 h 10 min"}


@pytest.mark.parametrize(
    ("flag", "meant"),
    [
        ("--model.image_siz", "--model.image_size"),
        ("--model.image-siz=8", "--model.image_size"),
        ("--modle.encoder", "--model.encoder"),
        ("--batch_size", "--data.batch_size"),
        ("--model.batch-size", "--data.batch_size"),
        ("--optim.lr", "--optim.generator_lr or --optim.discriminator_lr or --optim.encoder_lr"),
        ("--dry_run", "--dry-run"),
        ("--conifg", "--config"),
        ("--hlep", "--help"),
    ],
)
def test_a_mistyped_flag_is_told_the_nearest_one(flag, meant):
    with pytest.raises(ConfigError) as refusal:
        check_flags([flag, "4"], flatten(Config()))
    assert f"{flag.split('=')[0]}: expected a setting; did you mean {meant}? --help-all" in str(refusal.value)


def test_a_flag_that_resembles_nothing_gets_no_guess():
    with pytest.raises(ConfigError, match="--xyzzy: expected a setting; --help-all lists them all"):
        check_flags(["--xyzzy"], flatten(Config()))


@pytest.mark.parametrize(("flags", "said"), [(["--processes", "0"], "1 or more"), (["--config"], "--config")])
def test_a_wrong_option_is_one_sentence(flags, said, capsys):
    with pytest.raises(SystemExit) as stop:
        parse(flags)
    err = capsys.readouterr().err
    assert stop.value.code == 2 and said in err and err.count("\n") == 1


@pytest.mark.run
@pytest.mark.parametrize("module", ["bigbigan.train", "eval_linear.command"])
@pytest.mark.parametrize("flag", ["--help", "--help | true"])
def test_help_loads_nothing_large_and_survives_a_closed_pipe(module, flag):
    code = (
        f"import sys; sys.argv = ['x', '--help']; from {module} import main\ntry: main()\n"
        "finally: print(sorted({'torch', 'tyro', 'numpy'} & set(sys.modules)), file=sys.stderr)"
    )
    pipe = " | true" if "|" in flag else ""
    done = subprocess.run(
        ["bash", "-c", f'set -o pipefail; "$0" -c "$1"{pipe}', sys.executable, code],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stderr.strip() == "[]" and done.returncode == 0
