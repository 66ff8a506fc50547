"""What an artifact, a package or a checkpoint is."""
