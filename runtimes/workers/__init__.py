"""The JSON-lines protocol between a process and its subprocesses."""
