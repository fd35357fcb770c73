"""Grassmannian Packings in Neural Networks (Yap, Roberts, Prabhu)."""
