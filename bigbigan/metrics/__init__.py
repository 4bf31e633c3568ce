"""Measure a model: each file is one metric."""

from bigbigan.errors import MetricsError, MetricsUnavailable
from bigbigan.metrics.cache import cache_folder
from bigbigan.metrics.classifier import Classifier, accuracy, train_classifier
from bigbigan.metrics.extractors import Inception2015, inception2015
from bigbigan.metrics.frechet import frechet_distance, gaussian_distance
from bigbigan.metrics.generation import (
    compare_generation,
    curve_figures,
    evaluate_generation,
    evaluate_pixels,
    truncation_curve,
)
from bigbigan.metrics.inception_score import InceptionScore
from bigbigan.metrics.kid import kernel_distance
from bigbigan.metrics.manifold import Manifold, manifold_figures
from bigbigan.metrics.moments import Moments
from bigbigan.metrics.ms_ssim import ms_ssim, pairs_ms_ssim
from bigbigan.metrics.own_classifier import ClassifierExtractor, Recipe, in_domain_extractor
from bigbigan.metrics.reconstruction import (
    error_of_random_pairs,
    nearest_neighbour_agreement,
    relative_error,
    squared_error,
)
from bigbigan.metrics.sliced_wasserstein import laplacian_pyramid, sliced_wasserstein

__all__ = [
    "Classifier",
    "ClassifierExtractor",
    "Inception2015",
    "InceptionScore",
    "Manifold",
    "MetricsError",
    "MetricsUnavailable",
    "Moments",
    "Recipe",
    "accuracy",
    "cache_folder",
    "compare_generation",
    "curve_figures",
    "error_of_random_pairs",
    "evaluate_generation",
    "evaluate_pixels",
    "frechet_distance",
    "gaussian_distance",
    "in_domain_extractor",
    "inception2015",
    "kernel_distance",
    "laplacian_pyramid",
    "manifold_figures",
    "ms_ssim",
    "nearest_neighbour_agreement",
    "pairs_ms_ssim",
    "relative_error",
    "sliced_wasserstein",
    "squared_error",
    "train_classifier",
    "truncation_curve",
]
