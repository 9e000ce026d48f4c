"""python -m bench.speed: ratios against limits or peers, both measured in the same run."""
