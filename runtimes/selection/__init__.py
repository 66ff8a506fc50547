"""Choice of one of several artifacts for this machine."""
