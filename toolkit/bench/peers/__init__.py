"""Other tools, measured beside ours."""
