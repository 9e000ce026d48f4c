"""Certificates for a trained network that the user brings: see ``python -m bench.certify --help``."""
