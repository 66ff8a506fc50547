"""Other tools for the same checkpoint, measured beside the artifacts."""
