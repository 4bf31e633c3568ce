"""Tell the kinds of lines of stats.jsonl apart, and describe the figures that training writes there."""

from bigbigan.files import significant
from eval_linear.result import FigureInfo

KINDS = ("training", "spectra", "alarm", "recovery", "evaluation", "closing")


def kind_of(record: dict) -> str:
    """Return the kind of a line of stats.jsonl, one of KINDS.

    A line without the key `kind`, or with one that is not known, is judged by its other keys: those are the lines of
    versions that did not write it.
    """
    if record.get("kind") in KINDS:
        return record["kind"]
    for kind in ("spectra", "alarm", "recovery"):
        if kind in record:
            return kind
    return "training" if "loss_d" in record else "closing" if "n_test" in record else "evaluation"


FIGURES = (
    FigureInfo("top1_linear", "Linear probe, top-1", "share"),
    FigureInfo("top1_knn", "k-NN, top-1", "share"),
    FigureInfo("top1_1nn", "Nearest neighbour, top-1", "share"),
    FigureInfo("level", "Resolution of the growing networks, in doublings", better=""),
    FigureInfo("loss_d", "Discriminator loss", better=""),
    FigureInfo("loss_eg", "Encoder and generator loss", better=""),
    FigureInfo("gradient_penalty", "Gradient penalty of WGAN-GP", better=""),
    FigureInfo("drift", "Drift term of WGAN-GP", better=""),
    FigureInfo("r1", "R1 penalty", better=""),
    FigureInfo("loss_latent", "Error of E's prediction of z", better=""),
    FigureInfo("confidence_d", "LSGAN: 1 − mean score of samples", better=""),
    FigureInfo("images_per_second", "Speed, images/s"),
    FigureInfo("score_gap", "Score gap: pairs (x, E(x)) minus pairs (G(z), z), training images", better=""),
    FigureInfo("score_gap_held_out", "Score gap: pairs (x, E(x)) minus pairs (G(z), z), held-out images", better=""),
    FigureInfo("sample_diversity", "Diversity of samples, 1 = held-out images"),
    FigureInfo("memorised", "Chance that D scores a training image above a held-out one", better="lower"),
    FigureInfo("d_right_on_training_images", "D is right on training images", "share", better=""),
    FigureInfo("d_right_on_held_out_images", "D is right on held-out images", "share", better=""),
    FigureInfo("d_right_on_samples", "D is right on samples", "share", better=""),
    FigureInfo("sigma0_generator", "Largest singular value of G's layers", better=""),
    FigureInfo("sigma0_discriminator", "Largest singular value of D's layers", better=""),
    FigureInfo("posterior_stddev", "Posterior, mean standard deviation", better=""),
    FigureInfo("posterior_mean_square", "Posterior, mean square of the means", better=""),
    FigureInfo("augment_p", "Probability of ADA's transforms", better=""),
    FigureInfo("augment_sign", "Mean sign of D's scores of real images", better=""),
)

# What the figures of an evaluation are called on a line of the terminal, by how their names begin.
SHORT = {
    "top1_linear": "linear probe",
    "top1_knn": "k-NN",
    "top1_1nn": "1-NN",
    "fid": "FID",
    "is": "Inception score",
    "reconstruction_error_relative": "reconstruction error",
}


def figure_in_words(name: str, value: float) -> str:
    """Return a figure of an evaluation for a line of the terminal, such as "k-NN 91.4 %"; others by their own name."""
    short = next((word for key, word in SHORT.items() if name == key or name.startswith(f"{key}_")), name)
    return f"{short} {100 * value:.1f} %" if name.startswith("top1") else f"{short} {significant(value, 4)}"
