"""Draft."""

from structinit_jax.subspace.initializers import drawn
from structinit_jax.subspace.projections import Projection
from structinit_jax.subspace.projections import projection
from structinit_jax.subspace.storage import load
from structinit_jax.subspace.storage import save
from structinit_jax.subspace.training import reparameterize
from structinit_jax.subspace.training import Subspace
from structinit_jax.subspace.training import within
from structinit_jax.subspace.training import WithinState

__all__ = [
    'Projection', 'Subspace', 'WithinState', 'drawn', 'load', 'projection',
    'reparameterize', 'save', 'within',
]
