"""Reading and preprocessing images."""
