"""The model process, its supervisor and the messages between them."""
