"""InferX: GPU model-serving policies behind one interface, simulated and real."""

__version__ = "0.1.0"
