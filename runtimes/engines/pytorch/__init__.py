"""Run artifacts with PyTorch."""
