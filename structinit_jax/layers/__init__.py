"""Flax Linen layers that exploit the structure; needs flax.

Thin wrappers of pure functions of the families, which other frameworks call
themselves:

* `SAODense`, `SAOConv`, `SAOStack`: sparse orthogonal layers that store and
  compute with their nonzeros, by `sao.matmul` and `sao.conv`;
* `LowRankDense`, `LowRankConv`: two factors in place of a kernel; `factored`:
  any model of Flax's own layers with them; `LowRankAttention`: smaller heads,
  by their products; `performer_attention`: by random features;
* `GatedConv`, `GatedDense`: two kernels and a gate between them;
* `ECOConv`, `SOCConv`: convolutions that stay orthogonal while they train;
* `maxmin`, `crelu`: activations that keep norms.
"""

from structinit_jax.layers.activations import crelu
from structinit_jax.layers.activations import maxmin
from structinit_jax.layers.factored import factored
from structinit_jax.layers.gated import gated_features
from structinit_jax.layers.gated import GatedConv
from structinit_jax.layers.gated import GatedDense
from structinit_jax.layers.lowrank import LowRankAttention
from structinit_jax.layers.lowrank import LowRankConv
from structinit_jax.layers.lowrank import LowRankDense
from structinit_jax.layers.orthogonal_convs import ECOConv
from structinit_jax.layers.orthogonal_convs import SOCConv
from structinit_jax.layers.performer import performer_attention
from structinit_jax.layers.sao import SAOConv
from structinit_jax.layers.sao import SAODense
from structinit_jax.layers.sao import SAOStack

__all__ = [
    'ECOConv', 'GatedConv', 'GatedDense', 'LowRankAttention', 'LowRankConv',
    'LowRankDense', 'SAOConv', 'SAODense', 'SAOStack', 'SOCConv', 'crelu',
    'factored', 'gated_features', 'maxmin', 'performer_attention',
]
