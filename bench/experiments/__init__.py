"""The paper's other tables and figures, one command each: python -m bench.experiments.NAME --help."""
