"""Fit linear classifiers to frozen features: with a full-batch regularisation path, and as the paper does."""
