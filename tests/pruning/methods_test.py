"""Masks against NumPy's, exact counts, and both forms by rules."""

import fractions
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats

import structinit_jax as si
from structinit_jax import pruning
from structinit_jax import sao

KEY = jax.random.key(3)
STACK = si.Axes((1,), (2,))
# Shape, axes, and how NumPy reads it as (layers, taps, in * out).
VIEWS = [
    ((6, 5), None, lambda x: x.reshape(1, 1, -1)),
    ((3, 2, 6, 5), None, lambda x: x.reshape(1, 6, -1)),
    ((3, 6, 5), None, lambda x: x.reshape(1, 3, -1)),
    ((3, 6, 5), STACK, lambda x: x.reshape(3, 1, -1)),
    ((5, 6, 3, 2), si.axes.OIHW,
     lambda x: x.transpose(2, 3, 1, 0).reshape(1, 6, -1)),
    ((6, 5, 4), si.Axes((0,), (1, 2)), lambda x: x.reshape(1, 1, -1)),
]
SPARSITIES = [0, 0.07, 0.5, 0.9, 0.95]
views = pytest.mark.parametrize('shape, axes, view', VIEWS)


def normal(shape, dtype=jnp.float32, seed=0):
  return jax.random.normal(jax.random.key(seed), shape, dtype)


def numpy(x):
  return np.asarray(x.astype(jnp.float32) if x.dtype == jnp.bfloat16 else x,
                    np.float64)


def struct(shape):
  return jax.ShapeDtypeStruct(shape, jnp.float32)


def check_units(mask, view):
  """Every kernel is kept or removed as a whole; returns which are."""
  units = view(np.asarray(mask))
  assert (units == units[:, :1]).all()
  return units[:, 0]


@views
def test_local_magnitude_keeps_the_largest(shape, axes, view):
  x = normal(shape, jnp.bfloat16 if axes is None else jnp.float32)
  norms = np.abs(view(numpy(x))).sum(axis=1)
  for s in SPARSITIES:
    mask = pruning.local_magnitude(s, axes=axes)(KEY, {'w': x})['w']
    assert mask.shape == shape
    assert mask.dtype == bool
    kept = check_units(mask, view)
    size = kept.shape[1]
    assert (kept.sum(axis=1) == size - math.ceil(
        fractions.Fraction(str(s)) * size)).all()
    for row, norm in zip(kept, norms, strict=True):
      if row.any() and not row.all():
        assert norm[row].min() >= norm[~row].max() * (1 - 1e-6)


def test_counts_are_those_of_the_printed_number():
  """0.07 * 100 is 7.000000000000001 in floating point."""
  x = normal((10, 10))
  for hundredth in range(100):
    mask = pruning.local_magnitude(hundredth / 100)(KEY, x)
    assert mask.sum() == 100 - hundredth


@pytest.mark.parametrize('units', [3, 7, 30, 49])
def test_counts_of_every_fraction(units):
  x = normal((1, units))
  for removed in range(units):
    mask = pruning.local_magnitude(removed / units)(KEY, x)
    assert mask.sum() == units - removed


def test_of_equal_weights_the_first_go():
  mask = pruning.local_magnitude(0.5)(KEY, jnp.ones((2, 4)))
  assert mask.tolist() == [[False] * 4, [True] * 4]


def test_a_sparsity_of_16_bits_is_as_any():
  x = jax.random.normal(KEY, (512, 512))
  one, other = (pruning.local_magnitude(s)(KEY, x)
                for s in (0.5, np.float16(0.5)))
  np.testing.assert_array_equal(one, other)


def test_a_weight_that_is_not_finite_counts_as_large():
  x = jnp.array([[1., jnp.nan, 2., -jnp.inf]])
  mask = pruning.local_magnitude(0.5)(KEY, x)
  assert mask.tolist() == [[False, True, False, True]]


def test_global_magnitude_has_one_threshold():
  params = {'a': normal((6, 5)), 'b': {'c': 0.3 * normal((3, 3, 4, 7), seed=1)},
            'd': 2 * normal((8, 3), jnp.bfloat16, seed=2)}
  norms = {'a': np.abs(numpy(params['a'])),
           'c': np.abs(numpy(params['b']['c'])).sum((0, 1)),
           'd': np.abs(numpy(params['d']))}
  everything = np.sort(np.concatenate([x.ravel() for x in norms.values()]))
  for s in SPARSITIES:
    masks = pruning.global_magnitude(s)(KEY, params)
    removed = math.ceil(fractions.Fraction(str(s)) * len(everything))
    assert jax.tree.structure(masks) == jax.tree.structure(params)
    conv = check_units(masks['b']['c'], lambda x: x.reshape(1, 9, -1))
    kept = {'a': masks['a'], 'c': conv.reshape(4, 7), 'd': masks['d']}
    assert sum(int(m.sum()) for m in kept.values()) == (
        len(everything) - removed)
    for name, mask in kept.items():
      np.testing.assert_array_equal(
          mask, norms[name] >= everything[removed] * (1 - 1e-6))


def test_global_magnitude_can_take_a_whole_layer():
  masks = pruning.global_magnitude(0.5)(
      KEY, {'small': 1e-3 * jnp.ones((4, 4)), 'large': jnp.ones((4, 4))})
  assert not masks['small'].any()
  assert masks['large'].all()


def test_stacked_layers_share_a_global_threshold_only():
  stack = normal((3, 4, 5)) * jnp.array([0.1, 1., 10.])[:, None, None]
  params = {'w': stack}
  local = pruning.local_magnitude(0.5, axes=STACK)(KEY, params)['w']
  assert local.sum(axis=(1, 2)).tolist() == [10, 10, 10]
  alone = pruning.global_magnitude(0.5)(KEY, list(stack))
  together = pruning.global_magnitude(0.5, axes=STACK)(KEY, params)['w']
  np.testing.assert_array_equal(together, jnp.stack(alone))


@views
def test_local_random_counts(shape, axes, view):
  for s in SPARSITIES:
    kept = check_units(
        pruning.local_random(s, axes=axes)(KEY, normal(shape)), view)
    size = kept.shape[1]
    assert (kept.sum(axis=1) == size - math.ceil(
        fractions.Fraction(str(s)) * size)).all()


def test_local_random_is_uniform():
  """All C(6, 3) = 20 choices of six weights are equally likely."""
  draw = jax.jit(jax.vmap(
      lambda key: pruning.local_random(0.5)(key, jnp.ones((2, 3)))))
  masks = np.asarray(draw(jax.random.split(KEY, 8000))).reshape(-1, 6)
  codes = masks @ (1 << np.arange(6))
  choices = [
      sum(1 << i for i in c) for c in itertools.combinations(range(6), 3)]
  counts = [int((codes == code).sum()) for code in choices]
  assert sum(counts) == 8000
  assert scipy.stats.chisquare(counts).pvalue > 1e-3


def test_local_random_by_leaf_and_layer():
  """Names decide, not neighbours; layers of a stack differ."""
  method = pruning.local_random(0.5, axes=STACK)
  x = jnp.ones((3, 8, 8))
  one, two = method(KEY, {'b': x}), method(KEY, {'a': x, 'b': x})
  np.testing.assert_array_equal(one['b'], two['b'])
  layers = [*two['a'], *two['b']]
  for a, b in itertools.combinations(layers, 2):
    assert 0.2 < float((a == b).mean()) < 0.8
  assert (method(jax.random.key(4), {'b': x})['b'] != one['b']).any()


def test_ramanujan_is_the_mask_of_the_other_initializer():
  dense = sao.orthogonal(degree=4, kind='random')
  conv = sao.delta_orthogonal(degree=4, kind='thesis')
  shapes = {'dense': struct((16, 8)), 'conv': struct((3, 3, 8, 12))}
  init_fn = si.partition([('dense', dense), ('conv', conv)])
  want = init_fn.init_with_aux(KEY, shapes)[1]['masks']
  params = jax.tree.map(lambda s: jnp.ones(s.shape), shapes)
  got = pruning.prune(KEY, params, [
      ('dense', pruning.ramanujan(dense)), ('conv', pruning.ramanujan(conv))])
  jax.tree.map(np.testing.assert_array_equal, got, want)
  check_units(got['conv'], lambda x: x.reshape(1, 9, -1))


def test_ramanujan_of_a_stack():
  like = si.with_axes(sao.orthogonal(degree=2, kind='random'), STACK)
  mask = pruning.ramanujan(like)(KEY, jnp.ones((3, 8, 8)))
  assert (mask.sum(axis=1) == 2).all()
  assert (mask[0] != mask[1]).any()


MODEL = {
    'stem': {'kernel': struct((12, 16)), 'bias': struct((16,))},
    'block_0': {'kernel': struct((16, 16)), 'bias': struct((16,))},
    'block_1': {'kernel': struct((16, 16)), 'bias': struct((16,))},
    'head': {'kernel': struct((16, 3)), 'bias': struct((3,))},
}
ORTHOGONAL = jax.nn.initializers.orthogonal()
METHODS = {
    'lmp': pruning.local_magnitude(0.75),
    'gmp': pruning.global_magnitude(0.75),
    'lrp': pruning.local_random(0.75),
    'rg': pruning.ramanujan(sao.orthogonal(degree=4)),
}
every_method = pytest.mark.parametrize('name', METHODS)


def kernels_of(masks):
  return [masks[f'block_{i}']['kernel'] for i in range(2)]


@every_method
def test_trained_weights_are_pruned_by_rules(name):
  params = jax.tree.map(
      lambda s: jax.random.normal(KEY, s.shape), MODEL)
  rules = [('(stem|head)/.*|.*/bias', pruning.dense), ('.*', METHODS[name])]
  masks = pruning.prune(KEY, params, rules)
  assert jax.tree.structure(masks) == jax.tree.structure(params)
  for leaf in ('stem', 'head'):
    assert masks[leaf] == {'kernel': True, 'bias': True}
  assert sum(int(m.sum()) for m in kernels_of(masks)) == 128
  sparsity = si.masks.sparsity(masks)
  assert sparsity['total'] == 0.75
  # A method alone does the same to the leaves of its rule.
  alone = METHODS[name](KEY, {f'block_{i}': {
      'kernel': params[f'block_{i}']['kernel']} for i in range(2)})
  for a, b in zip(kernels_of(masks), kernels_of(alone), strict=True):
    np.testing.assert_array_equal(a, b)


@every_method
def test_from_scratch_in_a_partition(name):
  init_fn = si.partition([
      ('(stem|head)/kernel', ORTHOGONAL), ('.*/bias', si.zeros),
      ('.*', pruning.from_scratch(METHODS[name], ORTHOGONAL))])
  params, aux = init_fn.init_with_aux(KEY, MODEL)
  unpruned = si.partition([
      ('.*/bias', si.zeros), ('.*', ORTHOGONAL)])(KEY, MODEL)
  masks = aux['masks']
  jax.tree.map(
      np.testing.assert_array_equal, params, si.masks.apply(unpruned, masks))
  assert masks['stem'] == {'kernel': True, 'bias': True}
  assert sum(int(m.sum()) for m in kernels_of(masks)) == 128
  # "-S" prunes what "-T" would, had the model not been trained.
  again = pruning.prune(KEY, unpruned, [
      ('(stem|head)/.*|.*/bias', pruning.dense), ('.*', METHODS[name])])
  jax.tree.map(np.testing.assert_array_equal, masks, again)
  jax.tree.map(
      np.testing.assert_array_equal, params,
      jax.jit(lambda key: init_fn(key, MODEL))(KEY))


def test_what_pruning_does_to_an_orthogonal_kernel():
  """The mean square singular value is near the density, if blind to size."""
  shapes = {'w': struct((256, 256))}
  for method, low, high in [
      (pruning.local_random(0.95), 0.045, 0.055),
      (pruning.ramanujan(sao.orthogonal(degree=13, kind='random')),
       0.045, 0.058),
      # Of a Gaussian variable beyond q = 1.96: 0.05 + 2 q phi(q) = 0.28.
      (pruning.local_magnitude(0.95), 0.25, 0.31)]:
    w = pruning.from_scratch(method, ORTHOGONAL)(KEY, shapes)['w']
    values = np.linalg.svd(numpy(w), compute_uv=False)
    assert low < np.mean(values**2) < high
    assert values.min() < 0.05


def test_removed_weights_stay_removed():
  init_fn = pruning.from_scratch(pruning.local_magnitude(0.75), ORTHOGONAL)
  params, aux = init_fn.init_with_aux(KEY, {'w': struct((16, 16))})
  optimizer = optax.chain(
      optax.add_decayed_weights(0.1), optax.sgd(0.1, momentum=0.9),
      si.masks.keep_masked(aux['masks']))
  state = optimizer.init(params)
  for seed in range(3):
    gradient = {'w': normal((16, 16), seed=seed)}
    updates, state = optimizer.update(gradient, state, params)
    params = optax.apply_updates(params, updates)
  np.testing.assert_array_equal(params['w'] != 0, aux['masks']['w'])


def test_empty_kernels_and_trees():
  for name, method in METHODS.items():
    assert method(KEY, {}) == {}
    if name != 'rg':
      params = {'w': jnp.ones((0, 4)), 'v': normal((8, 8))}
      assert method(KEY, params)['w'].shape == (0, 4)
  mask = METHODS['rg'](KEY, jnp.ones((0, 4)))
  assert mask.shape == (0, 4)


def test_float64():
  with jax.enable_x64(True):
    x = normal((6, 5), jnp.float64)
    # Equal in float32, and not in float64.
    x = x.at[0, 0].set(3.).at[0, 1].set(3 - 1e-12)
    for method in (pruning.local_magnitude, pruning.global_magnitude):
      mask = method(29 / 30)(KEY, {'w': x})['w']
      assert mask.sum() == 1
      assert mask.ravel()[int(jnp.abs(x).argmax())]
    np.testing.assert_array_equal(
        pruning.local_random(0.5)(KEY, x.astype(jnp.float32)),
        pruning.local_random(0.5)(KEY, x))


@pytest.mark.parametrize('sparsity', [-0.1, 1, 1.5, math.nan, '0.5', None])
@pytest.mark.parametrize('method', [
    pruning.local_magnitude, pruning.global_magnitude, pruning.local_random])
def test_sparsity_out_of_range(method, sparsity):
  with pytest.raises(ValueError, match='at least 0 and below 1'):
    method(sparsity)


@pytest.mark.parametrize('method', [
    pruning.local_magnitude, pruning.local_random, pruning.global_magnitude])
def test_removing_everything_is_refused(method):
  """ceil(0.9 * 4) is 4; three of four can go."""
  x = normal((2, 2))
  with pytest.raises(ValueError, match=r'of 4 .* nearest that works is 0\.75'):
    method(0.9)(KEY, {'w': x})
  assert method(0.75)(KEY, {'w': x})['w'].sum() == 1


@pytest.mark.parametrize('name', ['lmp', 'gmp', 'lrp'])
@pytest.mark.parametrize('leaf, message', [
    (jnp.ones(3), r"'a/b' of shape \(3,\) is no kernel .*si\.pruning\.dense"),
    (jnp.ones((3, 3), int), "leaf 'a/b' .* not a real floating-point")])
def test_what_is_no_kernel_is_named(name, leaf, message):
  with pytest.raises(ValueError, match=message):
    METHODS[name](KEY, {'a': {'b': leaf}})


def test_what_has_no_mask_is_named():
  with pytest.raises(ValueError, match=r'no `aux`.*si\.sao\.orthogonal'):
    pruning.ramanujan(ORTHOGONAL)
  with pytest.raises(ValueError, match=r"leaf 'w' .*zeros has no mask"):
    pruning.ramanujan(si.zeros)(KEY, {'w': jnp.ones((4, 4))})
  with pytest.raises(ValueError, match=r"leaf 'b' of shape .*2 axes"):
    METHODS['rg'](KEY, {'b': jnp.ones(4)})
  with pytest.raises(ValueError, match=r"leaf 'b' of shape \(4,\)"):
    pruning.from_scratch(METHODS['lmp'], ORTHOGONAL)(
        KEY, {'b': struct((4,))})


def test_rules_have_to_fit():
  params = {'w': jnp.ones((4, 4)), 'b': jnp.ones(4)}
  with pytest.raises(ValueError, match='no rule covers 1 of 2 leaves: b'):
    pruning.prune(KEY, params, [('w', METHODS['lmp'])])
  with pytest.raises(ValueError, match='match no leaf'):
    pruning.prune(KEY, params, [
        ('kernel', METHODS['lmp']), ('.*', pruning.dense)])
