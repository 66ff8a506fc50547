"""What runs on the build machine: a checkpoint goes in, an artifact comes out."""
