"""What the benchmark does with the artifacts of each task."""
