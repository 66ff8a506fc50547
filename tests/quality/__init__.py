"""Measurements of the results page on quality (`make quality`): one JSON file per section, and the page that shows them."""
