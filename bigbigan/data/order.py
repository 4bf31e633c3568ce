"""Order the images of a run: every epoch a new permutation of the data set."""

import numpy as np


class Order:
    """Map a position in the run to an index in the data set; each epoch's permutation depends on (seed, epoch)."""

    def __init__(self, seed: int, length: int):
        self.seed, self.length = seed, length
        self.epoch, self.permutation = -1, None

    def __getitem__(self, position: int) -> int:
        epoch, place = divmod(int(position), self.length)
        if epoch != self.epoch:
            self.epoch = epoch
            self.permutation = np.random.default_rng([self.seed, epoch]).permutation(self.length)
        return int(self.permutation[place])
