"""Files by name: local paths, and objects of an S3 server."""
