"""Statistics that are computed from records."""
