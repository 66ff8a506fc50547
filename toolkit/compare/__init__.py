"""Compare two files of benchmark records: pair cases, compute changes with confidence intervals, render them and check limits."""
