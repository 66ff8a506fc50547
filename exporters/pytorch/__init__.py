"""PyTorch artifacts."""
