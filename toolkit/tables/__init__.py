"""Numbers to Markdown, CSV and JSON."""
