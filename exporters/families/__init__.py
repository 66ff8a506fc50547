"""The export side of each model family."""
