"""The commands of the toolkit, one module each: a command parses options, calls library code and prints the result."""
