"""Trained networks and questions in the formats of neural network verifiers: see ``python -m bench.export --help``."""
