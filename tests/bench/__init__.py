"""Benchmarks: `python -m tests.bench NAME` prints a JSON object a line. Ratios of one run, medians of several turns."""
