"""Choosing one of several artifacts for this machine."""
