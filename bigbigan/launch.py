"""How a run meets its machine: Accelerate's launcher, device, precision and collectives; threads, decoders, revision."""

import importlib.util
import os
import subprocess
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, is_torch_xla_available

from bigbigan.config import Config, ConfigError


def build_accelerator(config: Config, folder: Path) -> Accelerator:
    """Accelerate's launcher, device, precision and collectives; refuses what the networks cannot be trained with."""
    wanted = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if config.run.precision == "auto" and wanted in ("fp16", "fp8"):
        raise ConfigError(
            f"mixed precision {wanted}: expected no or bf16, since three networks cannot share one gradient scaler; "
            "see `accelerate config`"
        )
    for variable, name in (("ACCELERATE_USE_DEEPSPEED", "DeepSpeed"), ("ACCELERATE_USE_FSDP", "FSDP")):
        if os.environ.get(variable, "false").lower() == "true":
            raise ConfigError(f"{name}: expected plain data parallelism, the networks fit on one device; see `accelerate config`")
    bf16 = wanted == "bf16" or (torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False))
    precision = {"auto": "bf16" if bf16 else "no", "bf16": "bf16", "float32": "no"}[config.run.precision]
    local = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    torch.set_num_threads(config.run.threads or max(1, cores // local))  # `accelerate launch` would leave one thread
    if config.run.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = not config.run.deterministic
    trackers = [name.strip() for name in config.run.trackers.split(",") if name.strip()]
    for name in trackers:
        if not name.isidentifier() or importlib.util.find_spec(name) is None:
            raise ConfigError(f"--run.trackers {name}: it is not installed; pip install {name}")
    # Several processes without an accelerator: Accelerate sees them only if it is told that this is meant.
    several = int(os.environ.get("WORLD_SIZE", 1)) > 1 and not torch.accelerator.is_available() and not is_torch_xla_available()
    accelerator = Accelerator(
        cpu=True if several else None, mixed_precision=precision, log_with=trackers or None, project_dir=str(folder)
    )
    if accelerator.distributed_type in (DistributedType.DEEPSPEED, DistributedType.FSDP, DistributedType.MEGATRON_LM):
        raise ConfigError(f"{accelerator.distributed_type}: expected plain data parallelism; see `accelerate config`")
    return accelerator


def decoders(config: Config) -> int:
    if config.data.workers >= 0:
        return config.data.workers
    return max(1, (os.cpu_count() or 2) // int(os.environ.get("LOCAL_WORLD_SIZE", 1)) - 1)


def revision() -> str:
    """The git revision of the code, if it is run from a repository."""
    try:
        root = Path(__file__).parent.parent
        found = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=root, capture_output=True, text=True, timeout=10)
        return f"git {found.stdout.strip()}" if found.returncode == 0 else "installed"
    except (OSError, subprocess.TimeoutExpired):
        return "installed"
