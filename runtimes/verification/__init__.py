"""Verification of an artifact on the machine that is to run it."""
