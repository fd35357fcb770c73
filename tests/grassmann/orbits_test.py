"""Group actions: that they are groups, and that the search may trust them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from structinit_jax.grassmann import descent
from structinit_jax.grassmann import orbits

SIZES = [(3, 1, 8), (5, 2, 13), (6, 3, 18), (16, 1, 32), (7, 3, 20)]


@functools.cache
def actions(dim, rank, num, count=24):
  even = dim + dim % 2
  return orbits.actions(
      dim, rank, num, count=count, most=-(-num // 3), padded=(num, even))


def matrices(table, row):
  """The matrix (num, dim, dim) that makes each subspace of its base."""
  straight, across = table.straight[row], table.across[row]
  num, dim = straight.shape
  made = np.zeros((num, dim, dim))
  i = np.arange(dim)
  made[:, i, i] = straight
  made[:, i, i ^ 1] = across
  return made


@pytest.mark.parametrize('order', [2, 3, 4, 6, 8, 12, 27])
def test_representations_are_groups_of_orthogonal_matrices(order):
  rng = np.random.default_rng(0)
  for group in orbits._groups(order):
    assert len(group.flips) == order
    for dim in (2, 5, 8):
      blocks = orbits._representation(group, dim, None, rng)
      full = np.zeros((order, blocks.shape[1] * 2, blocks.shape[1] * 2))
      for p in range(blocks.shape[1]):
        full[:, 2 * p:2 * p + 2, 2 * p:2 * p + 2] = blocks[:, p]
      full = full[:, :dim, :dim]
      np.testing.assert_allclose(full[0], np.eye(dim), atol=1e-12)
      np.testing.assert_allclose(
          full @ full.mT, np.broadcast_to(np.eye(dim), full.shape), atol=1e-12)
      products = np.einsum('gij,hjk->ghik', full, full).reshape(-1, 1, dim, dim)
      nearest = np.abs(products - full[None]).max((2, 3)).min(1)
      np.testing.assert_allclose(nearest, 0, atol=1e-9)


def test_the_groups_of_an_order():
  names = {order: {g.name for g in orbits._groups(order)}
           for order in (2, 6, 8, 9, 12)}
  assert names == {
      2: {'C2'}, 6: {'C6', 'D3'}, 8: {'C8', 'C2 x C4', 'C2 x C2 x C2', 'D4'},
      9: {'C9', 'C3 x C3'}, 12: {'C12', 'C2 x C6', 'D6'}}


@pytest.mark.parametrize('dim, rank, num', SIZES)
def test_unions_of_orbits_are_mapped_to_themselves(dim, rank, num):
  """By every element of the group, fixed subspaces included."""
  table, names = actions(dim, rank, num)
  rng = np.random.default_rng(1)
  sizes = descent._Sizes(*map(jnp.int32, (dim, rank, num)))
  for row in range(len(table.base)):
    action = jax.tree.map(lambda a, row=row: jnp.asarray(a[row]), table)
    assert 1 <= action.name <= len(names)
    bases = int(action.bases)
    assert set(np.asarray(action.base)) == set(range(bases))
    x = np.zeros((bases, table.straight.shape[2], rank), np.float32)
    x[:, :dim] = np.linalg.qr(rng.normal(size=(bases, dim, rank)))[0]
    x = descent._fixed(action, jnp.asarray(x), sizes)
    frames = np.asarray(descent._expand(x, action), np.float64)[:, :dim]
    np.testing.assert_allclose(
        frames.mT @ frames, np.broadcast_to(np.eye(rank), (num, rank, rank)),
        atol=1e-5)
    projectors = frames @ frames.mT
    first = np.asarray(action.base) == 0
    for element in matrices(table, row)[first][:, :dim, :dim]:
      moved = element @ projectors @ element.T
      gaps = np.abs(moved[:, None] - projectors[None]).max((2, 3))
      np.testing.assert_allclose(gaps.min(1), 0, atol=1e-5)


@pytest.mark.parametrize('metric', ['chordal', 'fubini_study'])
def test_forces_are_the_gradient(metric):
  """Of the log-sum-exp over all pairs, up to a positive factor per orbit."""
  dim, rank, num = 6, 2, 12
  sizes = descent._Sizes(*map(jnp.int32, (dim, rank, num)))
  table, _ = actions(dim, rank, num)
  sharpness = jnp.float32(7)

  def smooth_max(x, action):
    y = descent._expand(x, action)
    gram = jnp.einsum('ndk,mdl->nkml', y, y)
    values = jax.vmap(lambda g: descent._SIMILARITIES[metric](
        g, sizes.rank, sharpness))(gram)
    values = jnp.where(jnp.eye(num, dtype=bool), -jnp.inf, values)
    return jax.nn.logsumexp(sharpness * values) / sharpness

  for row in (None, 0, 5, 11):
    action = None if row is None else jax.tree.map(
        lambda a, row=row: jnp.asarray(a[row]), table)
    bases = num if action is None else int(action.bases)
    moving = num if action is None else int(action.moving)
    x = jnp.linalg.qr(jax.random.normal(jax.random.key(2), (bases, dim, rank)))
    x = x[0] if action is None else descent._fixed(action, x[0], sizes)
    firsts = descent._firsts(x, action)
    forces, _ = descent._forces(x, sizes, action, firsts, metric, sharpness)
    gradient = jax.grad(smooth_max)(x, action)
    for force, want in zip(forces[:moving], gradient[:moving], strict=True):
      cosine = jnp.sum(force * want) / jnp.linalg.norm(force) / (
          jnp.linalg.norm(want))
      np.testing.assert_allclose(cosine, 1, atol=1e-4)


def test_rows_of_pairs_can_be_taken_in_parts(monkeypatch):
  sizes = descent._Sizes(*map(jnp.int32, (5, 2, 9)))
  x = jnp.linalg.qr(jax.random.normal(jax.random.key(3), (9, 5, 2)))[0]
  firsts = descent._firsts(x, None)
  args = x, sizes, None, firsts, 'chordal', jnp.float32(20)
  whole = descent._forces(*args)
  pair = descent._closest(x, sizes, 'chordal')
  monkeypatch.setattr(descent, '_ENTRIES_AT_ONCE', 80)
  parts = descent._forces(*args)
  for a, b in zip(whole, parts, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
  distance, which = descent._closest(x, sizes, 'chordal')
  # Products of other shapes may be summed in another order.
  np.testing.assert_allclose(distance, pair[0], rtol=1e-6)
  assert which.tolist() == pair[1].tolist()
