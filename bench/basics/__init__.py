"""What every room stands on: files, seeds, settings, what commands do with what goes wrong."""
