"""Measurements of `toolkit distribute`: `python -m tests.scale`, `make distribute-soak`."""
