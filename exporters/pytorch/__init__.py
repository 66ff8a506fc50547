"""Build PyTorch artifacts."""
