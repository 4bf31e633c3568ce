"""The command `bigbigan-convert`: answers --help at once, and loads torch only when there is something to convert."""

import argparse
import sys

from bigbigan.config.command import prepare_process, print_and_leave, say
from bigbigan.config.help import columns
from bigbigan.errors import ConversionError, exit_with_a_sentence
from bigbigan.files import expanded, printable

FORMS = (
    ("bigbigan-convert tfhub DIR OUT", "a BigBiGAN module of TensorFlow Hub: encoder, generator and discriminator"),
    ("    --tensorflow PYTHON", "a Python that has TensorFlow, to prove the result with (none: do not)"),
    ("bigbigan-convert biggan FILE OUT", "a generator of BigGAN-PyTorch (.pth or .safetensors): no encoder"),
    ("    --eps 1e-4", "epsilon of its batch norms, which the file does not hold"),
    ("    --last_eps 1e-5", "that of the last one, if it is another"),
)
HELP = "\n".join(
    ["Convert published weights to a release folder OUT, which any model= takes.\n", *columns(FORMS, 38)]
    + ["\nDIR holds saved_model.pb and variables/. TensorFlow is not needed to read it. See docs/published_weights.md."]
)


def main(argv: list[str] | None = None) -> None:
    """Convert as the command line says; the exit status is 0, or 2 for what cannot be converted."""
    argv = sys.argv[1:] if argv is None else argv
    if {"-h", "--help"} & set(argv):
        print_and_leave(HELP)
    with exit_with_a_sentence():
        prepare_process()
        options = _parse(argv)
        say(tfhub(options) if options.kind == "tfhub" else biggan(options))


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        raise ConversionError(f"bigbigan-convert: {message}; --help shows the two forms")


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = _Parser(prog="bigbigan-convert", add_help=False, allow_abbrev=False)
    kinds = parser.add_subparsers(dest="kind", required=True, parser_class=_Parser)
    for kind in ("tfhub", "biggan"):
        own = kinds.add_parser(kind, add_help=False, allow_abbrev=False)
        own.add_argument("source", type=expanded)
        own.add_argument("out", type=expanded)
        if kind == "tfhub":
            own.add_argument("--tensorflow", default="")
        else:
            own.add_argument("--eps", type=float, default=1e-4)
            own.add_argument("--last_eps", type=float)
    return parser.parse_args(argv)


def tfhub(options: argparse.Namespace) -> str:
    """Convert a module of TensorFlow Hub, prove it if there is a TensorFlow, and return what is to be printed."""
    from bigbigan.release.format import check_place
    from bigbigan.release.tfhub.convert import convert_module, report, write
    from bigbigan.release.tfhub.proof import prove, python_with_tensorflow

    check_place(options.out)
    conversion = convert_module(options.source)
    python = options.tensorflow or python_with_tensorflow()
    proof = prove(options.source, conversion, python) if python not in ("", "none") else None
    lines = report(conversion, proof)
    write(options.out, options.source, conversion, lines)
    return f"{lines.summary}\nwritten: {printable(options.out)}, every variable in its conversion.txt"


def biggan(options: argparse.Namespace) -> str:
    """Convert a generator of BigGAN-PyTorch and return what is to be printed."""
    from bigbigan.release.convert import convert_biggan

    config = convert_biggan(options.source, options.out, options.eps, options.last_eps).config
    classes = f"{config.classes} classes" if config.classes else "no classes"
    return f"written: {printable(options.out)}, a generator of {config.image_size} px and {classes}, without encoder"
