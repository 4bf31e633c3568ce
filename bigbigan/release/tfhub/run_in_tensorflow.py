"""Run a hub module in TensorFlow: `python run_in_tensorflow.py MODULE INPUTS.npz OUTPUTS.npz`.

A process of its own, since TensorFlow and torch do not always bear each other in one; it imports nothing of this
library, so any Python that has TensorFlow can run it. Keys of both files are "signature.name".
"""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")


def main(module: str, inputs: str, outputs: str) -> None:
    """Compute every output of the signatures that the inputs name."""
    import numpy as np
    import tensorflow.compat.v1 as tf

    given = dict(np.load(inputs, allow_pickle=False))
    with tf.Graph().as_default(), tf.Session() as session:
        loaded = tf.saved_model.load(session, [], module)
        found = {}
        for name in sorted({key.split(".")[0] for key in given}):
            signature = loaded.signature_def[name]
            own = {key.split(".")[1]: value for key, value in given.items() if key.split(".")[0] == name}
            tensors = {key: info.name for key, info in signature.inputs.items()}
            if len(own) == len(tensors) == 1:  # a single input may have another name
                feeds = dict(zip(tensors.values(), own.values(), strict=True))
            else:
                feeds = {tensors[key]: value for key, value in own.items()}
            values = session.run({key: info.name for key, info in signature.outputs.items()}, feeds)
            found |= {f"{name}.{key}": value for key, value in values.items()}
    np.savez(outputs, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
