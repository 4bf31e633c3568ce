"""What a run takes from its machine: Accelerate, the run folder, the images, the decoders, the revision of the code."""

import difflib
import importlib.util
import logging
import os
import socket
import subprocess
from collections.abc import Collection
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS
from accelerate.utils import DistributedType, InitProcessGroupKwargs, is_torch_xla_available

from bigbigan.config import EARLIER, Config, Data, Model
from bigbigan.config.command import say
from bigbigan.data import Crop, Images, Stream, open_splits
from bigbigan.data.ahead import decoding_processes
from bigbigan.data.classes import why_no_classes
from bigbigan.data.images import LOOKED_AT
from bigbigan.distributed import cores, rank, world_size
from bigbigan.errors import ConfigError, LostProcess, Outside
from bigbigan.files import check_links
from bigbigan.training import checkpoint
from bigbigan.training.precision import cpu_has_bf16

# What evaluations measure (`eval_linear.quick`): {name, or how it begins: (needs labels, needs an encoder)}.
EVALUATED = {
    "top1_linear": (True, True),
    "top1_knn": (True, True),
    "top1_1nn": (True, True),
    "fid_classifier": (True, False),
    "is_classifier": (True, False),
    "reconstruction_error_relative": (False, True),
}
WRITTEN = ("config.yaml", "stats.jsonl", "report.html", "probe.json", "release")  # by a run, in the place of others
log = logging.getLogger(__name__)


def build_accelerator(config: Config, folder: Path) -> Accelerator:
    """Start Accelerate (launcher, device, precision, collectives) and set torch up for the run.

    folder: the run's, for trackers.  Raises ConfigError for what the networks cannot be trained with, LostProcess where
    another process does not come within `run.timeout`.
    """
    refuse_unsupported(config)
    torch.set_num_threads(config.run.threads or cores())  # `accelerate launch` would leave one thread
    if config.run.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = not config.run.deterministic
    check_gpus()
    accelerator = start_accelerate(config, folder)
    if accelerator.distributed_type in (DistributedType.DEEPSPEED, DistributedType.FSDP, DistributedType.MEGATRON_LM):
        raise ConfigError(f"{accelerator.distributed_type}: expected plain data parallelism; see `accelerate config`")
    if accelerator.num_processes != world_size():
        raise ConfigError(
            f"{accelerator.distributed_type}: expected one process, or a torch.distributed group, found "
            f"{accelerator.num_processes} processes without one, which could not join their batches; start one process"
        )
    config.validate(accelerator.num_processes)
    return accelerator


def refuse_unsupported(config: Config) -> None:
    """Raise ConfigError for what `accelerate launch` was told and the networks cannot be trained with."""
    wanted = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if config.run.precision == "auto" and wanted in ("fp16", "fp8"):
        raise ConfigError(
            f"mixed precision {wanted}: expected no or bf16, since three networks cannot share one gradient scaler; "
            "see `accelerate config`"
        )
    for variable, name in (("ACCELERATE_USE_DEEPSPEED", "DeepSpeed"), ("ACCELERATE_USE_FSDP", "FSDP")):
        if os.environ.get(variable, "false").lower() == "true":
            raise ConfigError(
                f"{name}: expected plain data parallelism, the networks fit on one device; see `accelerate config`"
            )


def check_gpus() -> None:
    """Raise ConfigError for more processes on this machine than it has GPUs, if it has any."""
    processes, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", 1)), torch.cuda.device_count()
    if 0 < gpus < processes and not told_to_use_the_cpu():
        raise ConfigError(
            f"--processes {processes}: expected at most one for each GPU, found {gpus}; start {gpus}, or hide the GPUs "
            "by CUDA_VISIBLE_DEVICES="
        )


def told_to_use_the_cpu() -> bool:
    """Return whether Accelerate was told to leave accelerators alone."""
    return os.environ.get("ACCELERATE_USE_CPU", "false").lower() in ("true", "1", "yes")


def chosen_precision(config: Config) -> str:
    """Return Accelerate's name of the precision.

    "auto" is bf16 if Accelerate was told so or the GPU that it uses has it, else float32. On a CPU that has no
    instructions for bf16 it is float32 whatever Accelerate was told.
    """
    on_gpu = (torch.accelerator.is_available() or is_torch_xla_available()) and not told_to_use_the_cpu()
    told = os.environ.get("ACCELERATE_MIXED_PRECISION", "no") == "bf16" and (on_gpu or cpu_has_bf16())
    bf16 = told or (on_gpu and torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False))
    return {"auto": "bf16" if bf16 else "no", "bf16": "bf16", "float32": "no"}[config.run.precision]


def chosen_trackers(config: Config) -> list[str]:
    """Return the names of `run.trackers`; ConfigError for one that is not installed, or unknown to Accelerate."""
    trackers = [name.strip() for name in config.run.trackers.split(",") if name.strip()]
    for name in trackers:
        if name not in LOGGER_TYPE_TO_CLASS:
            known = sorted(LOGGER_TYPE_TO_CLASS)
            near = difflib.get_close_matches(name, known, 1)
            raise ConfigError(
                f"--run.trackers {name}: expected trackers of Accelerate, which are {', '.join(known)}"
                + "".join(f"; did you mean {other}?" for other in near)
            )
        if importlib.util.find_spec(name) is None:
            raise ConfigError(f"--run.trackers {name}: it is not installed; pip install {name}")
    return trackers


def start_accelerate(config: Config, folder: Path) -> Accelerator:
    """Return an `Accelerator`, which joins the process group if there is one."""
    processes = int(os.environ.get("WORLD_SIZE", 1))
    # Several processes without an accelerator: Accelerate sees them only if it is told that this is meant.
    on_cpus = processes > 1 and not torch.accelerator.is_available() and not is_torch_xla_available()
    try:
        return Accelerator(
            cpu=True if on_cpus else None,
            mixed_precision=chosen_precision(config),
            log_with=chosen_trackers(config) or None,
            project_dir=str(folder),
            kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(minutes=config.run.timeout))],
        )
    except RuntimeError as error:
        if processes == 1:
            raise
        raise LostProcess(
            f"expected {processes} processes to meet within --run.timeout, found one gone or late "
            f"({str(error).strip().splitlines()[0]})"
        ) from error


def _check_not_foreign(folder: Path) -> None:
    """Raise ConfigError for a folder in which no run was begun, and whose files a run would replace."""
    begun = (folder / "run.lock").exists() or checkpoint.complete(folder / "checkpoints")
    if (folder / "config.json").exists():
        raise ConfigError(
            f"{folder}: expected a run folder or a new one, found one with a config.json, as releases have, which "
            "would be loaded in the place of the run; move it away, or choose another --run.name"
        )
    found = [name for name in WRITTEN if (folder / name).exists()] if not begun else []
    if found:
        raise ConfigError(
            f"{folder}: expected a run folder or a new one, found a folder with another {', '.join(found)}, which the "
            "run would replace; choose another --run.name"
        )


@contextmanager
def lock_run_folder(folder: Path):
    """Lock a run folder while this context lasts; ConfigError if another run is at work in it.

    A POSIX record lock on run.lock: it dies with its process, however that ends, and decoding workers do not inherit
    it.
    """
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise ConfigError(f"{folder}: expected a run folder or none, found a file; choose another --run.name")
    try:
        _check_not_foreign(folder)
        folder.mkdir(parents=True, exist_ok=True)
        check_links(folder, deep=True)
        file = open(folder / "run.lock", "a+")  # noqa: SIM115
    except Outside as error:
        raise ConfigError(str(error)) from None
    except OSError as error:
        raise ConfigError(
            f"--run.root: expected a place to write the run folder {folder}, found {error.strerror}; choose another one"
        ) from None
    try:
        import fcntl
    except ImportError:  # Windows has another kind
        file.close()
        yield
        return
    with file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            file.seek(0)
            other = file.read().strip() or "another process"
            raise ConfigError(
                f"{folder}: expected a run folder to itself, found that {other} is training in it; "
                "stop that run, wait for its end, or choose another --run.name"
            ) from None
        except OSError as error:
            log.warning(
                "%s: this file system has no locks (%s); see to it that no second run is started here", folder, error
            )
        file.truncate(0)
        file.write(f"process {os.getpid()} of {socket.gethostname()}\n")
        file.flush()
        yield


def open_data(config: Config, flags: Collection[str] = ()) -> tuple[Images, Images]:
    """Open the training and the evaluation images that the settings name, and check them.

    A warning names the classes that only one of the two splits has.  flags: names of the settings that the command line
    sets.  Raises DataError or ConfigError.
    """
    train, test = open_splits(config.data)
    if test.note and rank() == 0:
        log.warning("--data.path %s: %s", config.data.path, test.note)
    train.check_some_can_be_read()
    check_classes(config.model.classes, train, test)
    settle_grey(config.model, train, flags)
    check_best(config.run.best, train, config.model)
    return train, test


def split_rule(config: Config, begun: dict | None) -> str:
    """Return the rule by which this run holds test images out: it keeps an earlier version's that it began with.

    begun: the flat config of its newest checkpoint, None if it starts.
    """
    rule = config.data.split_rule
    return (EARLIER | begun)["data.split_rule"] if begun and rule == Data.split_rule else rule


def selection_share(config: Config, begun: dict | None) -> float:
    """Return the share of the training images that this run holds out for choices; 0 if it trains on all of them.

    A run keeps what it began with, since it has been trained on the other images: `begun` is the flat config of its
    newest checkpoint, None if it starts. One of an older version held none out, and goes on choosing by test images if
    it did.  Raises ConfigError for a choice that no held-out images can make.
    """
    run = config.run
    if begun is None:
        return run.selection_share if run.evaluate_every else 0.0
    share = begun.get("run.selection_share", 0.0)
    if type(share) not in (int, float) or not 0 <= share < 1:
        raise ConfigError(f"run.selection_share of the run's checkpoint: expected a share from 0 to 1, found {share!r}")
    if run.best and not share and not begun.get("run.best"):
        raise ConfigError(
            f"--run.best {run.best}: expected a run that has held out training images since its beginning, found one "
            "that trains on all of them; leave --run.best out, or begin another run (--run.name)"
        )
    return share


def check_best(wanted: str, train: Images, model: Model) -> None:
    """Raise ConfigError for a choice, `run.best`, by a figure that there is not, or not of these images and this model.

    A name that goes on, such as fid_classifier_digits, is taken of the figures of a classifier alone.
    """
    if not wanted:
        return
    meant = [n for n in EVALUATED if n.startswith(wanted) or (n.endswith("_classifier") and wanted.startswith(n))]
    if not meant:
        near = difflib.get_close_matches(wanted, EVALUATED, 1)
        raise ConfigError(
            f"--run.best {wanted}: expected a figure of the evaluations, or how its name begins: {', '.join(EVALUATED)}"
            + "".join(f"; did you mean {name}?" for name in near)
        )
    why, encoder = why_no_classes(train, train), model.encoder != "none"
    there = [name for name, (labels, of_e) in EVALUATED.items() if not (labels and why) and (encoder or not of_e)]
    if not set(meant) & set(there):
        lacks = [why] * bool(why) + ["the model has no encoder"] * (not encoder)
        raise ConfigError(
            f"--run.best {wanted}: expected a figure that this run has: {', '.join(there) or 'none'}; "
            f"{' and '.join(lacks)}"
        )


def check_classes(wanted: int, train: Images, test: Images) -> None:
    """Raise ConfigError for a conditional model, of `wanted` classes, whose data have not as many."""
    found = train.class_names
    if wanted and test.labels is None:
        found = f"found that {test.note}" if test.note else "found none"
        raise ConfigError(
            f"--model.classes {wanted}: expected labels in the test split too, {found}; see --data.test_split"
        )
    if wanted and (found is None or len(found) != wanted):
        count = len(found) if found else "no labels"
        raise ConfigError(f"--model.classes {wanted}: expected data with as many classes, found {count}")


def settle_grey(model: Model, train: Images, flags: Collection[str]) -> None:
    """Switch off a preset's grey G where training images have colour, by which D would tell them from samples.

    A line says so. Raises ConfigError where a flag, or the weights of `model.init_from`, ask for a grey G.
    """
    if not (model.grey and model.family == "biggan" and (coloured := train.coloured())):
        return
    found = f"found colour in {coloured} of {min(LOOKED_AT, len(train))} that were looked at"
    if model.init_from and "model.grey" not in flags:
        raise ConfigError(
            f"--model.init_from {model.init_from}: its G draws grey images alone, so expected images without colour, "
            f"{found}; give grey copies of them, or another model"
        )
    if "model.grey" in flags:
        raise ConfigError(f"--model.grey True: expected images without colour, {found}; set it to False")
    model.grey = False
    if rank() == 0:
        say(f"the preset's model.grey True is not used: {found}")


def open_stream(config: Config, images: Images, accelerator: Accelerator) -> Stream:
    """Open this process's share of the training images, at E's full size."""
    data = config.data
    return Stream(
        images,
        config.model.encoder_image_size or config.model.image_size,
        config.run.seed,
        Crop(data.augment, data.flip),
        rank=accelerator.process_index,
        processes=accelerator.num_processes,
        workers=decoders(config),
        device=accelerator.device,
        cache=data.cache,
        cache_bytes=data.cache_gib * 2**30,
        max_unreadable=data.max_unreadable,
    )


def decoders(config: Config) -> int:
    """Return how many processes decode training images: as set, or one less than the cores of each process."""
    return config.data.workers if config.data.workers >= 0 else decoding_processes()


def revision() -> str:
    """The git revision of the code, if it is run from a repository."""
    try:
        root = Path(__file__).parent.parent.parent
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=root, capture_output=True, text=True, timeout=10
        )
        return f"git {found.stdout.strip()}" if found.returncode == 0 else "installed"
    except (OSError, subprocess.TimeoutExpired):
        return "installed"
