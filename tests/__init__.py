"""Tests; a package so that `python -m tests.checkpoints` and the shared fixtures can be imported."""
