"""What the flat commands do once their lines are read: bench/NAME.py is the door, bench/commands/NAME.py the work."""
