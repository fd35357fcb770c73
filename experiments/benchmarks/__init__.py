"""Benchmarks: ratios, peers measured side by side in one process."""
