"""The report that a person opens in a browser: records go in, one self-contained HTML file comes out."""
