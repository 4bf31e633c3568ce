"""The networks: G, E and D of every family, and the layers they are made of."""
