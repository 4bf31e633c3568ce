"""Measure samples of G by the Inception of 2015 and by a classifier of the data's own domain: IS, FID and others."""

from dataclasses import dataclass, replace
from typing import Annotated

from bigbigan.config.bounds import AtLeastOne, Bounds, NotNegative
from bigbigan.data import Images
from bigbigan.data.classes import why_no_classes
from bigbigan.errors import MetricsError, MetricsUnavailable
from bigbigan.metrics import (
    cache_folder,
    compare_generation,
    curve_figures,
    evaluate_generation,
    evaluate_pixels,
    frechet_distance,
    in_domain_extractor,
    inception2015,
    truncation_curve,
)
from bigbigan.metrics.generation import OF_FEATURES
from bigbigan.metrics.reference import real_statistics
from bigbigan.metrics.sampling import sampler
from bigbigan.model import BigBiGAN
from eval_linear.representations import Splits
from eval_linear.result import ExtractorFigures, GenerationResult, TruncationCurve, from_json


@dataclass
class Generation:
    """Measure IS, FID, KID, precision, recall, density, coverage, SWD and MS-SSIM, and FID and IS over truncation."""

    images: AtLeastOne = 10_000
    """Samples of G. The figures' names carry the number; published FIDs take 50,000."""
    inception: bool = True
    """With the Inception of 2015, the network of published figures, if its weights can be had."""
    inception_weights: str = ""
    """Path of its weights; empty for torch's cache, then the download."""
    in_domain: bool = True
    """With a small classifier trained once on the labelled training split, and cached."""
    thresholds: Annotated[tuple[float, ...], Bounds(above=0)] = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
    """Truncations of the curve, beside none."""
    truncation_images: NotNegative = 2_000
    """Samples per truncation; 0 for no curve."""
    quick: bool = False
    """What evaluations in training report alone, FID and IS by the in-domain classifier: seconds on small images."""


def check_images(options: Generation) -> None:
    """Raise MetricsError for fewer samples than metrics can be of."""
    if options.images < 20:
        raise MetricsError(
            f"--generation.images {options.images}: expected at least 20 samples, published figures take 50,000"
        )


def generation(options: Generation, model: BigBiGAN, splits: Splits, batch_size: int) -> GenerationResult:
    """Measure samples of the model's G by every extractor that can be had. Raises MetricsError."""
    check_images(options)
    if options.quick:
        options = replace(options, inception=False, truncation_images=0)
    metrics = tuple(metric for metric in OF_FEATURES if metric.in_training or not options.quick)
    device = next(model.generator.parameters()).device
    sample, size, cache = sampler(model, batch_size=batch_size), model.generator.image_size, cache_folder()
    extractors, skipped = _extractors(options, splits, size, device)
    references = {"train": splits.train, "test": splits.test}
    if len(splits.test) < 2:  # which have no covariance
        del references["test"]
        skipped.append(f"no figures beside the test split: expected two images or more, found {len(splits.test)}")
    results = []
    for extractor, note in extractors:
        figures = compare_generation(
            sample, references, size, extractor, options.images, cache=cache, batch_size=batch_size, metrics=metrics
        )
        if "test" in references:
            figures |= real_distance(splits, size, extractor, batch_size)
        results.append(ExtractorFigures(extractor.name, note, figures))
    if options.quick:
        return GenerationResult(results, skipped)
    pixels = evaluate_pixels(
        sample, splits.train, size, "train", min(options.images, 16_384), batch_size, device=device
    )
    results.append(ExtractorFigures("pixels", "sliced Wasserstein distance × 10³, similarity of pairs", pixels))
    curve = _curve(options, model, splits, extractors, batch_size)
    if curve is None:
        return GenerationResult(results, skipped)
    results[0].figures |= curve_figures(curve)
    return GenerationResult(results, skipped, from_json(TruncationCurve, curve, "truncation"))


def _extractors(options: Generation, splits: Splits, size: int, device) -> tuple[list, list[str]]:
    """Return [(extractor, note)], and a sentence for each extractor that cannot be had."""
    found, skipped = [], []
    if options.inception:
        try:
            found.append((inception2015(options.inception_weights or None, device), "the network of published figures"))
        except MetricsUnavailable as error:
            skipped.append(str(error))
    if options.in_domain and (why := why_no_classes(splits.train, splits.train)):
        skipped.append(f"no figures of a classifier of the data's own classes: {why}")
    elif options.in_domain:
        try:
            extractor = in_domain_extractor(splits.train, size, splits.name, cache_folder(), device)
            found.append((extractor, extractor.note()))
        except MetricsError as error:  # too few images of a second class
            skipped.append(f"no figures of a classifier of the data's own classes: {error}")
    return found, skipped


def _curve(options: Generation, model: BigBiGAN, splits: Splits, extractors: list, batch_size: int) -> dict | None:
    """Return FID and IS over truncation by the first extractor; None for a prior other than normal, or without one."""
    if not options.truncation_images or not extractors or model.prior != "normal":
        return None
    return truncation_curve(
        lambda threshold: sampler(model, threshold, batch_size=batch_size),
        [*options.thresholds, None], splits.train, splits.test if len(splits.test) > 1 else None,
        model.generator.image_size, extractors[0][0], n=options.truncation_images, split_name="train",
        cache=cache_folder(), batch_size=batch_size,
    )  # fmt: skip


def real_distance(splits: Splits, size: int, extractor, batch_size: int) -> dict[str, float]:
    """Return the FID of the test split against the training split: the floor of any model."""
    test, train = (
        real_statistics(images, size, extractor, name, cache_folder(), batch_size)
        for images, name in ((splits.test, "test"), (splits.train, "train"))
    )
    return {
        f"fid_real_{extractor.name}_test_train_n{test.moments.count}": frechet_distance(test.moments, train.moments)
    }


def quick_generation(model: BigBiGAN, train: Images, name: str, limit: int, batch_size: int = 256) -> dict[str, float]:
    """Return what metrics report during training (FID and IS) of `limit` samples, by the in-domain extractor.

    The reference is all training images.
    """
    device, size = next(model.generator.parameters()).device, model.generator.image_size
    extractor = in_domain_extractor(train, size, name, cache_folder(), device)
    figures = evaluate_generation(
        sampler(model, batch_size=batch_size),
        train,
        size,
        extractor,
        limit,
        "train",
        cache=cache_folder(),
        batch_size=batch_size,
    )
    wanted = tuple(f"{name}_{extractor.name}" for metric in OF_FEATURES for name in metric.in_training)
    return {k: v for k, v in figures.items() if k.startswith(wanted)}
