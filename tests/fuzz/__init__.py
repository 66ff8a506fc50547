"""Hostile input, seeded: damaged and forged artifacts, hostile archives, mutated images. `python -m tests.fuzz` tries them all."""
