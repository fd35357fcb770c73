"""Sparsity-Aware Orthogonal Initialization (Esguerra)."""
