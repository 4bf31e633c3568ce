"""All errors that this library raises on purpose, and how it warns.

Each message says what was expected, what was found, and what to do.
"""

import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep


class BigBiGANError(Exception):
    """Base class of our errors.

    status: the exit status of a command that such an error ends: 2 where the input must change (settings, files, data),
    1 where the work failed.
    """

    status = 2


class ConfigError(BigBiGANError, ValueError):
    """An invalid setting; the message names the flag to change."""


class DataError(BigBiGANError, ValueError):
    """Training or test images that cannot be used."""


class InputError(BigBiGANError, ValueError):
    """Images or latents, passed by a caller, that cannot be used."""


class UnreadableImage(InputError):
    """An image, passed by a caller, that cannot be decoded.

    name: what a message calls it.  reason: why, in one line.  place: its number among all images passed, once it is
    known.
    """

    def __init__(self, name: str, reason: str, cure: str = "mend it or leave it out"):
        super().__init__(f"{name}: expected a readable image; {reason}; {cure}")
        self.name, self.reason, self.place = name, reason, -1


class CheckpointError(BigBiGANError, ValueError):
    """A checkpoint, release or hub id that cannot be loaded."""


class Outside(BigBiGANError, ValueError):
    """A link that leads out of its folder; the message says where to."""


class ConversionError(BigBiGANError, ValueError):
    """A file of foreign weights that does not have the expected layout."""


class ExportError(BigBiGANError, ValueError):
    """A model that cannot be exported as asked."""


class FeatureError(BigBiGANError, ValueError):
    """Features that cannot be extracted or used."""


class ProbeError(BigBiGANError, ValueError):
    """A probe that cannot be made."""


class ReportError(BigBiGANError, ValueError):
    """A page that is asked of a folder which is no run."""


class MetricsError(BigBiGANError, ValueError):
    """Images or features from which a metric cannot be computed."""


class MetricsUnavailable(BigBiGANError, RuntimeError):
    """A metric that needs weights or a package that are not here; the message says where to put them."""

    status = 1


class TrainingFailure(BigBiGANError, RuntimeError):
    """The run cannot go on; the message says what was found and from where to go on."""

    status = 1


class CompilationError(BigBiGANError, RuntimeError):
    """An update that torch.compile cannot compile, or whose compiled gradients differ from the eager ones."""

    status = 1


class LostProcess(BigBiGANError, RuntimeError):
    """Another process of the run is gone, or silent for longer than the group's timeout."""

    status = 1


def warn_caller(message: str) -> None:
    """Warn with the file and line that called this library, however deep inside it the warning arises."""
    frame, level = sys._getframe(1), 2
    while frame.f_back and (frame.f_code.co_filename.startswith(PACKAGE) or _wraps(frame.f_code.co_filename)):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, UserWarning, stacklevel=level)


def _wraps(file: str) -> bool:
    """Return whether a file holds the frame of a decorated function: torch's of `no_grad`, or Python's contextlib."""
    return os.path.basename(file) in ("_contextlib.py", "contextlib.py")


def _sentence(error: Exception) -> str:
    """Return what an error says; of one of the file system "PATH: Permission denied", without its number."""
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    path = error.filename2 or error.filename
    if not isinstance(path, (str, bytes, os.PathLike)):
        return error.strerror
    name = os.fsdecode(path)
    return f"{name if name.isprintable() else ascii(name)}: {error.strerror}"


@contextmanager
def exit_with_a_sentence(advice: Callable[[BaseException], str] = lambda error: "") -> Iterator[None]:
    """Wrap a command: our errors and those of the file system end it with one sentence on stderr and an exit status.

    advice: returns what is appended to the sentence of an error, such as which checkpoint the same command resumes
    from.
    Exit status: that of the error; 1 for OSError (a full disk, a folder without write permission); 130 after Ctrl-C.
    """
    try:
        yield
    except (BigBiGANError, OSError) as error:
        print(f"error: {_sentence(error)}{advice(error)}", file=sys.stderr)
        raise SystemExit(getattr(error, "status", 1)) from None
    except KeyboardInterrupt as error:
        if os.environ.get("RANK", "0") == "0":  # once for all processes of a launch
            print(f"interrupted{advice(error)}", file=sys.stderr)
        raise SystemExit(130) from None
