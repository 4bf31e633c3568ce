"""The command `bigbigan-probe`: answers --help at once, and loads what measures only when there is something to do."""

import dataclasses
import sys
from collections.abc import Iterator

from bigbigan.config.cli import check_flags
from bigbigan.config.command import prepare_process, print_and_leave
from bigbigan.config.help import columns
from bigbigan.errors import exit_with_a_sentence

SETTINGS = (
    ("--parts linear knn ...", "linear, knn, kmeans, generation, pairs, classes; all of them if not given"),
    ("--data.path PATH", "labelled images; those that the model was trained on if not given"),
    ("--transfer PATH", "a second labelled data set, whose rows stand beside the first's"),
    ("--features avepool_feat ...", "avepool_feat, bn_crelu_feat, z_mean, or names of E's layers"),
    ("--linear full_batch ...", "full_batch, or adam_5k and adam_100k, the paper's protocols"),
    ("--labels 1 0.1 0.01", "shares of the training labels that linear classifiers are given"),
    ("--seeds 1", "fits per row"),
    ("--untrained 3", "randomly initialised encoders to compare with"),
    ("--generation.images 10000", "samples for FID and IS"),
    ("--cache False", "do not keep extracted features beside the checkpoint"),
    ("--help-all", "all settings with their reasons"),
)
EXAMPLES = (
    ("bigbigan-probe runs/digits", "all figures of a run"),
    ("bigbigan-probe runs/digits --parts linear knn", "two of its parts"),
    ("bigbigan-probe OWNER/NAME --data.path PHOTOS", "a model of the hub on your images"),
)
HELP = "\n".join(
    [
        "Measure a model: its features beside their baselines, its samples, encoder and generator together.\n",
        "  bigbigan-probe CKPT [--field VALUE ...]\n",
        "CKPT: a run folder, checkpoint folder or release folder, in which probe.json and report.html are written; or",
        "a hub id, or the name of a model that comes with the package, of which the table alone is printed.\n",
        *columns(SETTINGS, 48),
        "\nExamples:\n",
        *columns(EXAMPLES, 48),
    ]
)


def main(argv: list[str] | None = None) -> None:
    """Run the probe as the command line says; the exit status is 0, or that of an error."""
    argv = sys.argv[1:] if argv is None else argv
    if {"-h", "--help"} & set(argv):
        print_and_leave(HELP)
    with exit_with_a_sentence():
        prepare_process()
        from eval_linear import probe

        check_flags([flag for flag in argv if flag != "--help-all"], list(names(probe.Probe)), ("--help", "--help-all"))
        probe.main(["--help"] if "--help-all" in argv else argv)


def names(tree: type, prefix: str = "") -> Iterator[str]:
    """Yield the settings of a dataclass of dataclasses, as section.field."""
    for field in dataclasses.fields(tree):
        if dataclasses.is_dataclass(field.type):
            yield from names(field.type, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}"
