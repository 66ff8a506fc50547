"""Compare artifacts with their checkpoint, and compute confidence intervals."""
