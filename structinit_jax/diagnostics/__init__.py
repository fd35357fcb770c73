"""Measurements of parameters and units: what an initializer left behind."""

from structinit_jax.diagnostics.describe import describe
from structinit_jax.diagnostics.kernels import dead_units
from structinit_jax.diagnostics.kernels import kernel_statistics
from structinit_jax.diagnostics.kernels import KernelStatistics

__all__ = ['KernelStatistics', 'dead_units', 'describe', 'kernel_statistics']
