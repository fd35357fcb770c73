"""LeNet is the one that Li et al. count."""

import jax
import jax.numpy as jnp
import pytest

from experiments import models


@pytest.mark.parametrize('shape, parameters', [
    ((28, 28, 1), 44_426), ((32, 32, 3), 62_006)])
def test_lenet_has_the_published_number_of_parameters(shape, parameters):
  model = models.LeNet(10)
  shapes = jax.eval_shape(
      model.init, jax.random.key(0), jnp.zeros((1, *shape)))['params']
  assert sum(x.size for x in jax.tree.leaves(shapes)) == parameters
  assert shapes['stem']['kernel'].shape == (5, 5, shape[-1], 6)


def test_the_perceptron_has_the_published_number_of_parameters():
  shapes = jax.eval_shape(
      models.MLP(10, (200, 200)).init, jax.random.key(0),
      jnp.zeros((1, 28, 28, 1)))['params']
  assert sum(x.size for x in jax.tree.leaves(shapes)) == 199_210
