"""What a model must compute and what this machine can do at most."""
