"""Turn the published BigBiGAN modules of TensorFlow Hub into releases of this library, without TensorFlow.

`checkpoint` reads the variables and `saved_model` the graph; `interpreter` computes its operations with torch; `layers`
finds convolutions, linear layers and batch norms in them; `follow` finds the parts of G, E and D; `convert` builds our
model, compares it with the graph and writes the release; `proof` runs the module in TensorFlow where that is installed.
"""
