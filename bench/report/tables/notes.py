"""What a reader must know of a run beside its title: how it was tuned, how it falls short of the full settings."""

from collections.abc import Mapping
from typing import Any


def run_notes(configuration: Mapping[str, Any]) -> list[str]:
    """Return the notes of a run (its ``configuration`` in run.json), one for each line of a title."""
    notes = []
    if minutes := configuration.get("tuned_minutes"):
        notes.append(f"tuned, {minutes:g} minute{'s' * (minutes != 1)} each")
    if reduced := configuration.get("reduced"):
        notes.append(f"reduced: {reduced}")
    return notes
