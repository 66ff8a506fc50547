"""The load test of `toolkit serve`: `python -m tests.load`, `make serve-load`."""
