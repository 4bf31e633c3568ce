"""A pretend accelerator: a device of torch whose tensors have their content on the CPU, and which counts each wait.

It computes what a CPU computes, and refuses what a GPU refuses: an operation on tensors of two devices, and, as an
Apple GPU does, float64 outside `with_float64`. What makes the
host wait for a GPU is counted: a read of a tensor's content, a copy to the host, a copy from memory that is not
pinned, and an operation whose result has a shape that depends on content.

Registering a device changes torch for the whole process, and must happen before the first backward pass. So tests that
use it run in a process of their own, see `on_pretend_accelerator`.
"""

import functools
import importlib
import multiprocessing
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

try:
    from torch.utils.backend_registration import _DummyBackendModule
    from torch.utils.backend_registration import _setup_privateuseone_for_python_backend as _setup
except ImportError:  # torch below 2.10
    _setup = None

NAME = "pretend"
ROOT = Path(__file__).parent.parent.parent
OURS = (str(ROOT / "bigbigan"), str(ROOT / "eval_linear"), str(ROOT / "tests"))
aten = torch.ops.aten

# Operations whose result on a GPU has a shape, or a value for the host, that the host must wait for.
WAITING = {
    aten._local_scalar_dense: "the host reads a value (item, float, int, bool)",
    aten.is_nonzero: "the host reads a value (bool)",
    aten.equal: "the host reads a value (equal)",
    aten.nonzero: "a shape depends on content (nonzero)",
    aten.masked_select: "a shape depends on content (masked_select)",
    aten._unique2: "a shape depends on content (unique)",
    aten.unique_dim: "a shape depends on content (unique)",
    aten.unique_consecutive: "a shape depends on content (unique)",
    aten.bincount: "a shape depends on content (bincount)",
    aten.repeat_interleave: "a shape depends on content (repeat_interleave)",
}
# Operations that take a tensor of no dimension from the CPU by a copy; all others take it as an argument of a kernel.
COPYING = {aten.where, aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}


class Waits:
    """Counts what makes the host wait for the device. found: {(what, where): times}; where: the innermost own line."""

    def __init__(self):
        self.found: Counter[tuple[str, str]] = Counter()

    def __len__(self) -> int:
        return self.found.total()

    def __str__(self) -> str:
        return "\n".join(f"{times} × {what} at {where}" for (what, where), times in self.found.most_common())

    def kinds(self) -> set[str]:
        """Return what happened, without its places."""
        return {what for what, _ in self.found}


_watching: list[Waits] = []
_float64 = False


@contextmanager
def with_float64() -> Iterator[None]:
    """Let the device have float64 within this context, as CUDA and XLA do."""
    global _float64
    _float64 = True
    try:
        yield
    finally:
        _float64 = False


@contextmanager
def waits() -> Iterator[Waits]:
    """Count what makes the host wait within this context, in backward passes too."""
    found = Waits()
    _watching.append(found)
    try:
        yield found
    finally:
        _watching.remove(found)


def _note(what: str) -> None:
    if not _watching:
        return
    place, frame = "a backward pass", sys._getframe(1)
    while frame is not None:
        path = frame.f_code.co_filename
        if path.startswith(OURS) and path != __file__:
            if what == FROM_HOST and frame.f_code.co_name == "to_device":
                return  # which copies from pinned memory where the device is a GPU
            place = f"{Path(path).relative_to(ROOT)}:{frame.f_lineno} ({frame.f_code.co_name})"
            break
        frame = frame.f_back
    for found in _watching:
        found.found[what, place] += 1


TO_HOST = "a copy to the host (cpu, tolist)"
FROM_HOST = "a copy from memory of the host that is not pinned"


class PretendTensor(torch.Tensor):
    """A tensor on the pretend accelerator. content: the same tensor on the CPU."""

    @staticmethod
    def __new__(cls, content: Tensor):
        return torch.Tensor._make_wrapper_subclass(
            cls,
            content.shape,
            strides=content.stride(),
            storage_offset=content.storage_offset(),
            dtype=content.dtype,
            device=torch.device(NAME, 0),
        )

    def __init__(self, content: Tensor):
        if content.dtype == torch.float64 and not _float64:
            raise TypeError(f"Cannot convert a tensor to float64 on {NAME}:0, which has no such type")
        self.content = content

    __torch_function__ = torch._C._disabled_torch_function_impl

    def tolist(self) -> list | float:
        return self.cpu().tolist()

    def numpy(self, *_, **__):
        raise TypeError(f"can't convert {NAME}:0 device type tensor to numpy. Use Tensor.cpu() first")

    __array__ = numpy

    def __repr__(self, **_) -> str:
        return f"PretendTensor({self.content!r})"

    def __deepcopy__(self, memo: dict) -> "PretendTensor":
        if id(self) in memo:
            return memo[id(self)]
        copied = PretendTensor(self.content.clone())
        if isinstance(self, nn.Parameter):
            copied = nn.Parameter(copied, self.requires_grad)
        memo[id(self)] = copied
        return copied

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _dispatch(func, args, kwargs or {})


def _is_here(device) -> bool:
    return device is not None and torch.device(device).type == NAME


@functools.cache
def _is_composite(func) -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd")


def _dispatch(func, args: tuple, kwargs: dict):
    """Compute `func` on the contents, and return tensors on the device that a real accelerator would return."""
    if _is_composite(func):  # which torch takes apart before it comes here, unless in inference mode
        return func.decompose(*args, **kwargs)
    packet, here, on_cpu = func._overloadpacket, [], []

    def content(value):
        if isinstance(value, PretendTensor):
            here.append(value)
            return value.content
        if isinstance(value, Tensor):
            on_cpu.append(value)
        elif isinstance(value, (list, tuple)):
            return type(value)(map(content, value))
        return value

    inner = [content(arg) for arg in args]
    named = {name: content(value) for name, value in kwargs.items()}
    if packet is aten._fused_sdp_choice:
        return 0  # the mathematical form, which every device has
    if packet is aten.copy_:
        _copied(args[0], args[1], kwargs.get("non_blocking", len(args) > 2 and args[2]))
        inner[0].copy_(inner[1])
        return args[0]
    device = named.get("device")
    if device is not None:
        named["device"] = torch.device("cpu")
        if packet is aten._to_copy and not _is_here(device):
            _copied(None, args[0], named.get("non_blocking", False))
            return func(*inner, **named)
    _check_devices(packet, func, here, on_cpu)
    if what := WAITING.get(packet):
        _note(what)
    if packet in (aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_) and any(
        i is not None and i.dtype in (torch.bool, torch.uint8) for i in inner[1]
    ):
        _note("a shape depends on content (a mask as index)")
    if named.get("pin_memory"):
        named["pin_memory"] = False
    # A view of a tensor from outside inference mode is no inference tensor either.
    with torch.inference_mode(torch.is_inference_mode_enabled() and not (func.is_view and not here[0].is_inference())):
        return _result(func, args, kwargs, func(*inner, **named))


def _copied(to: Tensor | None, source: Tensor, non_blocking: bool) -> None:
    if isinstance(source, PretendTensor) and not isinstance(to, PretendTensor) and not non_blocking:
        _note(TO_HOST)
    if isinstance(to, PretendTensor) and not isinstance(source, PretendTensor) and not non_blocking and source.numel():
        _note(FROM_HOST)


def _check_devices(packet, func, here: list, on_cpu: list) -> None:
    """Raise RuntimeError for tensors of two devices, as a GPU does."""
    if not here or not on_cpu:
        return
    if packet in COPYING:
        _note(FROM_HOST)
        if packet is not aten.where:  # an index may lie on the CPU
            return
    if any(tensor.ndim for tensor in on_cpu):
        shapes = [tuple(tensor.shape) for tensor in on_cpu]
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found at least two devices, {NAME}:0 and cpu! "
            f"({func}, with tensors {shapes} on the CPU)"
        )


def _result(func, args: tuple, kwargs: dict, found):
    """Return what `func` returned as tensors of the device; arguments that it wrote to as they are."""
    written = [
        kwargs.get(a.name, args[i] if i < len(args) else None)
        for i, a in enumerate(func._schema.arguments)
        if a.alias_info is not None and a.alias_info.is_write
    ]
    flat = [t for value in written for t in (value if isinstance(value, (list, tuple)) else [value])]
    known = {id(tensor.content): tensor for tensor in flat if isinstance(tensor, PretendTensor)}

    def wrapped(value):
        if isinstance(value, Tensor):
            return known[id(value)] if id(value) in known else PretendTensor(value)
        if isinstance(value, (list, tuple)):
            return type(value)(map(wrapped, value))
        return value

    return wrapped(found)


def _register() -> torch.device:
    """Register the device in this process, once, and return it."""

    class Module(_DummyBackendModule):
        def get_amp_supported_dtype(self) -> list[torch.dtype]:
            return [torch.bfloat16]

    _setup(NAME, Module())
    library = torch.library.Library("aten", "IMPL")

    def empty(size, *, dtype=None, layout=None, device=None, pin_memory=None, memory_format=None):
        return PretendTensor(torch.empty(size, dtype=dtype, memory_format=memory_format, device="cpu"))

    def empty_strided(size, stride, *, dtype=None, layout=None, device=None, pin_memory=None):
        return PretendTensor(torch.empty_strided(size, stride, dtype=dtype, device="cpu"))

    def copy_(to, source, non_blocking=False):
        _copied(to, source, non_blocking)
        contents = [t.content if isinstance(t, PretendTensor) else t for t in (to, source)]
        contents[0].copy_(contents[1])
        return to

    def zeros(size, *, dtype=None, layout=None, device=None, pin_memory=None):  # which some derivatives use
        return PretendTensor(torch.zeros(size, dtype=dtype, device="cpu"))

    library.impl("_efficientzerotensor", zeros, "PrivateUse1")
    library.impl("empty.memory_format", empty, "PrivateUse1")
    library.impl("empty_strided", empty_strided, "PrivateUse1")
    library.impl("copy_", copy_, "PrivateUse1")
    _register.library = library  # which unregisters when it is dropped
    return torch.device(NAME, 0)


DEVICE: torch.device | None = None  # within the process that `on_pretend_accelerator` starts


def _start() -> None:
    global DEVICE
    torch.set_num_threads(1)
    DEVICE = _register()


def _call(module: str, name: str, arguments: dict) -> None:
    getattr(importlib.import_module(module), name).__wrapped__(**arguments)


@functools.cache
def _process() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _start)


def on_pretend_accelerator(test: Callable) -> Callable:
    """Run a test in a process that has the pretend accelerator; it takes parameters that can be pickled alone."""

    @functools.wraps(test)
    def run(**arguments):
        if _setup is None:
            pytest.skip("torch cannot register a device from Python before 2.10")
        _process().submit(_call, test.__module__, test.__name__, arguments).result()

    return run
