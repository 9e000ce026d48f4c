"""Running a suite: what a cell is, where cells are computed, and how a run survives what happens to it."""
