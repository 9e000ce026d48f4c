"""Equal tuning: every method gets the same training time to find its settings, judged on validation data alone."""
