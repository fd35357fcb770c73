"""Comparing initializers on models and data; see `experiments/main.py`."""
