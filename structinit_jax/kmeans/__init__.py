"""Joint k-means initialization: filters that are clusters of what they see."""

from structinit_jax.kmeans.initializers import clusters
from structinit_jax.kmeans.initializers import joint
from structinit_jax.kmeans.initializers import joint_loss
from structinit_jax.kmeans.initializers import layer_statistics
from structinit_jax.kmeans.initializers import lsuv
from structinit_jax.kmeans.objectives import cosine_penalty
from structinit_jax.kmeans.objectives import score
from structinit_jax.kmeans.objectives import scores
from structinit_jax.kmeans.objectives import Statistics
from structinit_jax.kmeans.objectives import statistics

__all__ = [
    'Statistics', 'clusters', 'cosine_penalty', 'joint', 'joint_loss',
    'layer_statistics', 'lsuv', 'score', 'scores', 'statistics',
]
