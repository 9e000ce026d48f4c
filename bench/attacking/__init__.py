"""Attacks on certificates, and what of a finished run they attack."""
