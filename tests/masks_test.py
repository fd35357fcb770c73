"""Masked entries are zero and stay zero."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import structinit_jax as si

MASKS = {
    'dense': {'kernel': jnp.array([[True, False, True], [False, False, True]]),
              'bias': True},
    'scale': jnp.array([False, True]),
}
PARAMS = {
    'dense': {'kernel': jnp.array([[1., 2., 3.], [4., 5., 6.]]),
              'bias': jnp.array([7., 8., 9.])},
    'scale': jnp.array([10., 11.]),
}


def test_apply():
  got = si.masks.apply(PARAMS, MASKS)
  assert jax.tree.map(lambda x: x.tolist(), got) == {
      'dense': {'kernel': [[1., 0., 3.], [0., 0., 6.]], 'bias': [7., 8., 9.]},
      'scale': [0., 11.]}


@pytest.mark.parametrize('bad', [np.nan, np.inf, -np.inf])
def test_apply_removes_what_is_not_finite(bad):
  params = jax.tree.map(
      lambda p, m: jnp.where(m, p, bad), PARAMS, MASKS)
  got = si.masks.apply(params, MASKS)
  jax.tree.map(
      np.testing.assert_array_equal, got, si.masks.apply(PARAMS, MASKS))
  # An entry that is not masked is left alone.
  kept = si.masks.apply({'w': jnp.array([bad, bad])}, {'w': MASKS['scale']})
  np.testing.assert_array_equal(kept['w'], [0., bad])


def test_apply_removes_the_sign_of_zero():
  got = si.masks.apply({'w': jnp.array([-1., -1.])}, {'w': MASKS['scale']})
  assert not np.signbit(got['w'][0])


@pytest.mark.parametrize('dtype', [jnp.bfloat16, jnp.float16, jnp.float32])
def test_apply_keeps_the_dtype(dtype):
  params = jax.tree.map(lambda p: p.astype(dtype), PARAMS)
  for leaf in jax.tree.leaves(jax.jit(si.masks.apply)(params, MASKS)):
    assert leaf.dtype == dtype


OPTIMIZERS = {
    'sgd': optax.sgd(0.1, momentum=0.9, nesterov=True),
    'adamw': optax.adamw(1e-2, weight_decay=0.3),
    'adadelta': optax.adadelta(1.0),
    'noise': optax.chain(
        optax.add_noise(0.1, 0.55, jax.random.key(0)),
        optax.sgd(0.1, momentum=0.9)),
}


@pytest.mark.parametrize('name', OPTIMIZERS)
def test_masked_entries_stay_exactly_zero(name):
  """Wherever they start; and the others go as they would without masks."""
  plain = OPTIMIZERS[name]
  optimizer = optax.chain(plain, si.masks.keep_masked(MASKS))
  update, free_update = jax.jit(optimizer.update), jax.jit(plain.update)
  for params in (PARAMS, si.masks.apply(PARAMS, MASKS)):
    free, state, free_state = params, optimizer.init(params), plain.init(params)
    for i in range(20):
      # Gradients push every entry, masked or not, and do not depend on them.
      gradient = jax.tree.map(
          lambda p, i=i: np.sin(p + np.float32(10 * i)), PARAMS)
      with jax.numpy_dtype_promotion('standard'):  # optax's Adam needs it
        updates, state = update(gradient, state, params)
        free_updates, free_state = free_update(gradient, free_state, free)
      params = optax.apply_updates(params, updates)
      free = optax.apply_updates(free, free_updates)
      for p, m in zip(
          jax.tree.leaves(params), jax.tree.leaves(MASKS), strict=True):
        assert not np.any(np.asarray(p)[~np.broadcast_to(m, p.shape)])
    for p, f, m, start in zip(*map(
        jax.tree.leaves, (params, free, MASKS, PARAMS)), strict=True):
      kept = np.broadcast_to(m, p.shape)
      np.testing.assert_allclose(
          np.asarray(p)[kept], np.asarray(f)[kept], rtol=1e-5)
      assert np.all(np.asarray(p) != np.asarray(start))


def test_updates_of_another_dtype():
  params = {'w': jnp.array([1.5, 2.5], jnp.bfloat16)}
  updates, _ = si.masks.keep_masked({'w': MASKS['scale']}).update(
      {'w': jnp.ones(2)}, optax.EmptyState(), params)
  assert updates['w'].dtype == jnp.float32
  with jax.numpy_dtype_promotion('standard'):
    got = optax.apply_updates(params, updates)['w']
  assert got.dtype == jnp.bfloat16
  assert got.tolist() == [0., 3.5]


def test_update_needs_params():
  optimizer = si.masks.keep_masked(MASKS)
  state = optimizer.init(PARAMS)
  with pytest.raises(ValueError, match='needs params'):
    optimizer.update(PARAMS, state)


@pytest.mark.parametrize('masks, message', [
    ({'dense': MASKS['dense']}, 'leaves in one of the two only: scale'),
    ({**MASKS, 'more': True}, 'leaves in one of the two only: more'),
    ({**MASKS, 'scale': None}, 'leaves in one of the two only: scale'),
    ({**MASKS, 'dense': {'kernel': jnp.ones((3, 2), bool), 'bias': True}},
     r"'dense/kernel' has shape \(3, 2\); it must be \(2, 3\)"),
    ({**MASKS, 'scale': jnp.ones((2, 1), bool)}, "'scale' has shape"),
    ({**MASKS, 'scale': jnp.ones(1, bool)}, "'scale' has shape")])
def test_masks_that_do_not_fit(masks, message):
  with pytest.raises(ValueError, match=message):
    si.masks.apply(PARAMS, masks)
  with pytest.raises(ValueError, match=message):
    si.masks.keep_masked(masks).init(PARAMS)


def test_containers_must_agree():
  with pytest.raises(ValueError, match='the containers differ'):
    si.masks.apply({'a': [jnp.ones(2)]}, {'a': (True,)})


def test_sparsity_by_hand():
  # Kernel: 3 of 6 removed; scale: 1 of 2; the bias is not masked.
  assert si.masks.sparsity(MASKS) == {
      'dense/kernel': 0.5, 'scale': 0.5, 'total': 0.5}
  masks = {'a': jnp.zeros((3, 4), bool), 'b': jnp.ones(4, bool),
           'c': jnp.array([True, True, True, False]), 'd': True}
  assert si.masks.sparsity(masks) == {
      'a': 1., 'b': 0., 'c': 0.25, 'total': 13 / 20}


def test_sparsity_without_masks():
  assert si.masks.sparsity({'a': True, 'b': {'c': True}}) == {'total': 0.}
  assert si.masks.sparsity({}) == {'total': 0.}
  assert si.masks.sparsity({'a': jnp.ones((0, 3), bool)}) == {
      'a': 0., 'total': 0.}
