"""What to compare: suites of data sets, methods, norms, seeds and budgets, and how they are read."""
