"""Linear evaluation of frozen features: what the representation is worth."""
