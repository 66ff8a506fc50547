"""Write artifacts to disk."""
