"""The HTML page of `toolkit sensitivity`."""
