"""Describe an artifact, a package or a checkpoint from its metadata."""
