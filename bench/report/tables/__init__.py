"""The tables of a run: rows, curves and summary."""
