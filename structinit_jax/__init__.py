"""structinit_jax: structured initial parameters for JAX models.

A map of the public names:

* `partition`, `labels`, `leaf_names`, `StructuredInit`, `zeros`: make a whole
  tree of parameters from ordered (regex, initializer) rules;
* `with_axes`, `axes`: serve kernels that are not laid out as Flax does;
* `masks`: keep removed weights removed under any optax optimizer;
* `grassmann`: kernels that are optimal packings of subspaces;
* `sao`: sparse kernels that are exactly orthogonal;
* `lowrank`: two factors in place of a kernel, close past the activation;
* `subspace`: few coordinates in place of all parameters, trained and stored;
* `kmeans`: filters that are clusters of what the network's layers see;
* `pruning`: the sparse baselines that papers compare with;
* `layers`: Flax modules that store and compute with the structure alone;
* `diagnostics`, `describe`: measure what an initializer gave;
* `linalg`, `tree`: the pieces they share.
"""

import importlib
from typing import Any

from structinit_jax import axes
from structinit_jax import diagnostics
from structinit_jax import grassmann
from structinit_jax import kmeans
from structinit_jax import linalg
from structinit_jax import lowrank
from structinit_jax import masks
from structinit_jax import pruning
from structinit_jax import sao
from structinit_jax import subspace
from structinit_jax import tree
from structinit_jax._version import __version__
from structinit_jax.axes import Axes
from structinit_jax.axes import with_axes
from structinit_jax.base import InitFn
from structinit_jax.base import Initializer
from structinit_jax.base import StructuredInit
from structinit_jax.base import zeros
from structinit_jax.combine import labels
from structinit_jax.combine import partition
from structinit_jax.diagnostics import describe
from structinit_jax.tree import leaf_names

__all__ = [
    'Axes', 'InitFn', 'Initializer', 'StructuredInit', '__version__', 'axes',
    'describe', 'diagnostics', 'grassmann', 'kmeans', 'labels', 'layers',
    'leaf_names', 'linalg', 'lowrank', 'masks', 'partition', 'pruning', 'sao',
    'subspace', 'tree', 'with_axes', 'zeros',
]


def __getattr__(name: str) -> Any:
  """Imports `layers`, and with it flax, when it is first asked for."""
  if name == 'layers':
    return importlib.import_module('structinit_jax.layers')
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
