"""Verifying an artifact where it is to run."""
