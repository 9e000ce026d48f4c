"""What there is to time, one module each."""

TOPICS = ("fcnn", "baselines", "running")
