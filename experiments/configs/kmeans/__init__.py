"""Gated Convolutional Layers and Joint K-Means Weight Initialization (Zhou)."""
