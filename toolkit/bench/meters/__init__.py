"""What is read while a case runs: memory, energy, throttling."""
