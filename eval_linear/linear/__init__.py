"""Linear classifiers on frozen features: the full-batch one with its regularisation path, and the paper's two."""
