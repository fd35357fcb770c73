"""Which kernels become factors, and how budgets are spent."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from structinit_jax import lowrank
from structinit_jax.lowrank import ranks

KEY = jax.random.key(0)
FULL = {
    'stem': {'kernel': jnp.ones((3, 3, 3, 16)), 'bias': jnp.ones(16)},
    'block': {'kernel': jnp.ones((3, 3, 16, 32))},
    'depthwise': {'kernel': jnp.ones((3, 3, 1, 32))},
    'query': {'kernel': jnp.ones((32, 4, 8))},
    'out': {'kernel': jnp.ones((4, 8, 32))},
    'head': {'kernel': jnp.ones((32, 10), jnp.bfloat16)},
}


def weights(tree):
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def test_shapes_of_factors():
  low = lowrank.factor_shapes(FULL, rank_scale=0.25, select='(?!stem).*')
  assert jax.tree.map(lambda x: x.shape, low) == {
      'stem': {'kernel': (3, 3, 3, 16), 'bias': (16,)},
      'block': {'u': (1, 3, 16, 12), 'v': (3, 1, 12, 32)},
      'depthwise': {'kernel': (3, 3, 1, 32)},
      'query': {'u': (32, 8), 'v': (8, 4, 8)},
      'out': {'u': (4, 8, 8), 'v': (8, 32)},
      'head': {'u': (32, 2), 'v': (2, 10)}}
  assert low['head']['u'].dtype == jnp.bfloat16
  form = lowrank.factor_shapes(FULL, rank=4, kind='pointwise')['block']
  assert (form['u'].shape, form['v'].shape) == ((3, 3, 16, 4), (1, 1, 4, 32))


def test_leaves_may_be_numbers():
  params = {'h': {'kernel': jnp.ones((8, 8))}, 'scale': 1.0}
  found = lowrank.factor_shapes(params, rank=1)
  assert found['scale'] == jax.ShapeDtypeStruct((), jnp.float32)


@pytest.mark.parametrize('budget', [0.2, 0.5, 0.9, 1.0])
def test_a_budget_is_kept_and_used(budget):
  select = '(?!stem|depthwise).*'
  kernels = {name: FULL[name] for name in ('block', 'query', 'out', 'head')}
  low = lowrank.factor_shapes(kernels, budget=budget, select=select)
  assert weights(low) <= budget * weights(kernels)
  # A rank more everywhere is too much, or would save nothing.
  more = sum(
      sum(math.prod(x.shape) // r for x in p.values())
      for p, r in ((p, p['v'].shape[-2 if p['v'].ndim == 4 else 0])
                   for p in low.values()))
  at_most = lowrank.factor_shapes(kernels, rank_scale=1.0)
  if budget < 0.9:
    assert weights(low) + more > budget * weights(kernels)
  assert all('kernel' in p for p in at_most.values())  # saves nothing


def test_multiplications_are_weighed():
  chosen = lowrank.factor_shapes(FULL, budget=0.5, uses={'block': 64})
  plain = lowrank.factor_shapes(FULL, budget=0.5)
  cost = {name: math.prod(FULL[name]['kernel'].shape) for name in FULL}
  total = sum(cost.values()) + 63 * cost['block'] - cost['depthwise']
  spent = weights(chosen) - 16 - cost['depthwise'] + 63 * sum(
      math.prod(x.shape) for x in chosen['block'].values())
  assert spent <= 0.5 * total
  assert weights(chosen) != weights(plain)


def test_a_budget_keeps_the_most_energy():
  """Against all combinations of ranks."""
  keys = jax.random.split(KEY, 3)
  params = {
      name: {'kernel': jax.random.normal(key, shape) * jnp.exp(
          -decay * jnp.arange(1.0 * shape[1]))[None]}
      for name, key, shape, decay in zip(
          'abc', keys, [(8, 8), (6, 10), (12, 6)], [0.3, 0.8, 0.], strict=True)}
  shapes = {name: p['kernel'].shape for name, p in params.items()}
  squares = {name: np.linalg.svd(p['kernel'], compute_uv=False)**2
             for name, p in params.items()}
  total = sum(math.prod(shape) for shape in shapes.values())

  def kept(chosen):
    return sum(squares[name][:r].sum() / squares[name].sum()
               for name, r in chosen.items())

  def cost(chosen):
    return sum(r * sum(shapes[name]) for name, r in chosen.items())

  for budget in (0.4, 0.55, 0.7):
    small = lowrank.compress(params, budget=budget)
    got = {name: small[name]['u'].shape[1] for name in shapes}
    every = [dict(zip('abc', sizes, strict=True)) for sizes in
             itertools.product(range(1, 4), range(1, 4), range(1, 4))]
    affordable = [c for c in every if cost(c) <= budget * total]
    assert got in affordable
    # The best per price is within one rank of the best at all.
    dearest = max(squares[name][0] / squares[name].sum() for name in shapes)
    assert kept(got) >= max(map(kept, affordable)) - dearest
    assert kept(got) >= np.quantile([kept(c) for c in affordable], 0.9)


def test_requests_that_are_refused():
  for options, message in [
      ({}, 'give one of'), ({'rank': 2, 'budget': 0.5}, 'give one of'),
      ({'budget': 0.001}, 'nearest that works is 0'),
      ({'budget': 1.5}, r'in \(0, 1\]'), ({'budget': math.nan}, r'in \(0, 1\]'),
      ({'rank': 2, 'uses': {'block': 2}}, 'uses are for a budget'),
      ({'budget': 0.5, 'uses': {'other': 2}}, 'of other are of no kernel'),
      ({'budget': 0.5, 'uses': {'block': 0}}, "uses of 'block'"),
      ({'rank': 2, 'kind': 'tucker'}, 'is unknown')]:
    with pytest.raises(ValueError, match=message):
      lowrank.factor_shapes(FULL, **options)
  near = ranks.chooser(budget=0.001)
  with pytest.raises(ValueError, match='nearest') as caught:
    near({'a': ((8, 8), None)})
  least = float(str(caught.value).split()[-1])
  assert ranks.chooser(budget=least)({'a': ((8, 8), None)}) == {'a': 1}


@pytest.mark.parametrize('shape', [(12, 7), (3, 3, 4, 6), (5, 2, 3)])
@pytest.mark.parametrize('kind', ['separable', 'pointwise'])
def test_kernels_of_low_rank(shape, kind):
  init = lowrank.low_rank(rank=2, kind=kind, method='spectral')
  kernel = init(KEY, shape)
  assert init.aux(KEY, shape) == {'rank': 2}
  if len(shape) == 4 and kind == 'separable':
    kernel = kernel.transpose(1, 2, 0, 3).reshape(12, 18)
  values = np.linalg.svd(
      kernel.reshape(-1, kernel.shape[-1]), compute_uv=False)
  if len(shape) == 3 and kind == 'separable':
    values = np.linalg.svd(
        kernel.transpose(0, 1, 2).reshape(-1, shape[-1]), compute_uv=False)
  assert values[1] > 1e-2
  assert (values[2:] < 1e-5).all()
  with pytest.raises(ValueError, match='give one of'):
    lowrank.low_rank()
  with pytest.raises(ValueError, match='nearest that works is'):
    lowrank.low_rank(rank=50)(KEY, shape)
