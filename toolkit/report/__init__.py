"""Render the report that `toolkit report --format html` writes: one self-contained HTML file, from records."""
