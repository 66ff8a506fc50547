"""Commands that are stopped or fail at each call to the file system: `python -m tests.faults`, `make faults`."""
