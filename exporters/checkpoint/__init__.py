"""Checkpoints as people have them, and the reference that artifacts are compared with."""
