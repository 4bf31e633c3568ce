"""What can go wrong with a figure, each as one sentence."""


class MetricsError(ValueError):
    """Input from which a figure cannot be computed; the message says what was expected, what was found, and what to do."""


class MetricsUnavailable(RuntimeError):
    """A figure that needs what is not here (weights, a package); the message says what it is and where to put it."""
