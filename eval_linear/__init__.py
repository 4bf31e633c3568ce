"""Measure what a model is worth: linear evaluation of frozen features, samples, encoder and generator together."""
