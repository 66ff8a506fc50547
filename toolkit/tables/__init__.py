"""Reports as Markdown, CSV and JSON."""
