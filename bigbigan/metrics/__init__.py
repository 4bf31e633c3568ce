"""Figures of a model; each file one metric."""

from bigbigan.metrics.reconstruction import nearest_neighbour_agreement, relative_error, squared_error

__all__ = ["nearest_neighbour_agreement", "relative_error", "squared_error"]
