"""Sessions that run an artifact, with one package per engine."""
