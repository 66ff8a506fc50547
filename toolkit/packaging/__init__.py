"""Packages: an artifact goes in; one file comes out that carries it to another machine and proves itself there."""
