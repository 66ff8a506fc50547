"""Documentation: generated parts, links, and the blocks that a test executes."""
