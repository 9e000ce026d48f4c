"""What comes out of a run: tables, figures, the claim, and the report, one page for people with no network needed."""
