"""Tests of the exporters; a package because tests/cli has a test_export.py too."""
