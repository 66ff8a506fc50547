"""An HTTP server for an artifact: an ASGI application, and a process that runs the model."""
