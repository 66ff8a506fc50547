"""Meters that are read while a case runs: memory, energy, throttling."""
