"""Low-rank networks by function approximation (Vodrahalli et al.)."""
