"""Hostile input, seeded: damaged and forged artifacts, hostile archives, mutated pictures. `python -m tests.fuzz` tries them all."""
