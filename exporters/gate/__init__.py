"""The gate: an artifact is compared with its checkpoint before it is written."""
