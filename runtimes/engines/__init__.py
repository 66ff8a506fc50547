"""The libraries that run an artifact's model, one package each."""
