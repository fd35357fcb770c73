"""Trees of factors: forms, convolutions, LFAI, decay and compression."""

import functools
import math
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import structinit_jax as si
from structinit_jax import lowrank
from structinit_jax.lowrank import forms

KEY = jax.random.key(0)
lecun_normal = jax.nn.initializers.lecun_normal()


def shaped(**shapes):
  return {name: jax.ShapeDtypeStruct(shape, jnp.float32)
          for name, shape in shapes.items()}


def drawn(form, key=KEY):
  one, other = jax.random.split(key)
  return jax.random.normal(one, form.u), jax.random.normal(other, form.v)


def dense_conv(x, kernel, strides, padding, dilation, groups):
  """XLA's, of the merged kernel, in float64."""
  ndim = kernel.ndim - 2
  if padding == 'CIRCULAR':
    spans = [(k - 1) * step + 1
             for k, step in zip(kernel.shape, dilation, strict=False)]
    x = jnp.pad(x, [(0, 0), *[((s - 1) // 2, s // 2) for s in spans], (0, 0)],
                mode='wrap')
    padding = 'VALID'
  axes = 'xyz'[:ndim]
  return jax.lax.conv_general_dilated(
      x, kernel, strides, padding, rhs_dilation=dilation,
      dimension_numbers=(f'N{axes}C', f'{axes}IO', f'N{axes}C'),
      feature_group_count=groups)


@pytest.mark.parametrize('kind', forms.FORMS)
@pytest.mark.parametrize('kernel, strides, padding, dilation, groups', [
    ((3, 3), (1, 1), 'SAME', (1, 1), 1),
    ((3, 2), (2, 3), 'SAME', (1, 1), 2),
    ((1, 5), (1, 2), 'VALID', (1, 1), 1),
    ((5, 1), (2, 1), 'SAME', (1, 1), 1),
    ((3, 3), (2, 1), ((1, 2), (0, 3)), (2, 1), 4),
    ((2, 3), (1, 1), 'CIRCULAR', (1, 2), 2),
    ((1, 1), (2, 2), 'SAME', (1, 1), 1),
    ((4,), (3,), 'SAME', (2,), 2),
    ((2, 3, 2), (1, 2, 1), 'SAME', (1, 1, 1), 1),
])
def test_two_convolutions_are_that_of_the_merged_kernel(
    kind, kernel, strides, padding, dilation, groups):
  form = forms.of_kernel((*kernel, 8 // groups, 12), 2, kind=kind,
                             feature_groups=groups)
  assert form.kernel == (*kernel, 8 // groups, 12)
  with jax.enable_x64(True):
    u, v = (x.astype(jnp.float64) for x in drawn(form))
    x = jax.random.normal(
        KEY, (2, *(9, 8, 7)[:len(kernel)], 8), jnp.float64)
    want = dense_conv(
        x, lowrank.merge(u, v), strides, padding, dilation, groups)
    got = lowrank.conv(
        x, u, v, strides=strides, padding=padding, dilation=dilation)
  np.testing.assert_allclose(got, want, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize('kind', forms.FORMS)
@pytest.mark.parametrize('kernel, padding', [
    ((2,), ((-3, 1),)), ((3, 3), ((-2, 1), (0, -1)))])
def test_negative_pads_cut(kind, kernel, padding):
  form = forms.of_kernel((*kernel, 4, 8), 2, kind=kind)
  u, v = drawn(form)
  x = jax.random.normal(KEY, (32, *(17, 9)[:len(kernel)], 4))
  cut = jax.lax.pad(x, 0., [(0, 0, 0), *((*p, 0) for p in padding), (0, 0, 0)])
  ones = (1,) * len(kernel)
  want = dense_conv(cut, lowrank.merge(u, v), ones, 'VALID', ones, 1)
  np.testing.assert_allclose(
      lowrank.conv(x, u, v, padding=padding), want, atol=1e-4)


def test_merged_kernels_by_hand():
  u, v = drawn(forms.of_kernel((3, 2, 4, 5), 2))
  want = np.einsum('jir,kro->kjio', u[0], v[:, 0])
  np.testing.assert_allclose(lowrank.merge(u, v), want, atol=1e-6)
  u, v = drawn(forms.of_kernel((3, 2, 4, 5), 2, kind='pointwise'))
  want = np.einsum('kjir,ro->kjio', u, v[0, 0])
  np.testing.assert_allclose(lowrank.merge(u, v), want, atol=1e-6)
  for inputs, equation in [(1, 'ir,rhs->ihs'), (2, 'hir,rs->his')]:
    u, v = drawn(forms.of_kernel((6, 2, 3), 2, inputs=inputs))
    np.testing.assert_allclose(
        lowrank.merge(u, v), np.einsum(equation, u, v), atol=1e-6)


@pytest.mark.parametrize('kind', forms.FORMS)
@pytest.mark.parametrize('shape', [
    (3, 3, 4, 4), (3, 2, 5, 4), (2, 3, 4, 5), (5, 2, 3), (6, 7), (1, 1, 4, 3)])
def test_a_pretrained_kernel_comes_back_at_full_rank(kind, shape):
  kernel = jax.random.normal(KEY, shape)
  rank = min(forms.of_kernel(shape, 1, kind=kind).matrix)
  form = forms.of_kernel(shape, rank, kind=kind)
  w = form.to_matrices(kernel)
  np.testing.assert_array_equal(form.from_matrices(w), kernel)
  init = lowrank.lfai(base=lambda *_: kernel, restarts=0, steps=5)
  params = init(KEY, shaped(u=form.u, v=form.v))
  found = lowrank.merge(params['u'], params['v'])
  assert jnp.linalg.norm(found - kernel) < 1e-6 * jnp.linalg.norm(kernel)


def test_forms_that_are_none():
  for u, v in [((3, 2), (3, 4)), ((3, 3, 4, 2), (3, 1, 2, 5)),
               ((1, 3, 4, 3), (3, 1, 2, 5)), ((4,), (4, 2)), ((4, 0), (0, 3)),
               ((1, 3, 4, 4), (3, 1, 2, 5)), ((4, 6), (3, 8))]:
    with pytest.raises(ValueError, match='no factors of a kernel'):
      forms.form(u, v)
  with pytest.raises(ValueError, match='nearest that works is 12'):
    forms.of_kernel((3, 3, 4, 4), 13)
  with pytest.raises(ValueError, match='unknown; use separable, pointwise'):
    forms.of_kernel((3, 3, 4, 4), 2, kind='tucker')
  with pytest.raises(ValueError, match='divide the outputs, 5'):
    forms.of_kernel((3, 3, 4, 5), 2, feature_groups=2)
  u, v = drawn(forms.of_kernel((3, 3, 4, 4), 2))
  with pytest.raises(ValueError, match='of 2 spatial axes'):
    lowrank.conv(jnp.ones((2, 8, 8, 5)), u, v)
  with pytest.raises(ValueError, match='strides=0 must be a positive int'):
    lowrank.conv(jnp.ones((2, 8, 8, 4)), u, v, strides=0)
  with pytest.raises(ValueError, match="padding='FULL' is neither"):
    lowrank.conv(jnp.ones((2, 8, 8, 4)), u, v, padding='FULL')


SHAPES = {
    'a': shaped(u=(20, 3), v=(3, 10), bias=(10,)),
    'b': shaped(u=(20, 3), v=(3, 10)),
    'conv': shaped(u=(1, 3, 4, 2), v=(3, 1, 2, 8)),
    'groups': shaped(u=(3, 3, 2, 4), v=(1, 1, 2, 6)),
    'heads': shaped(u=(12, 2), v=(2, 3, 4)),
}


def test_every_pair_starts_as_the_kernel_of_the_full_layer():
  init = lowrank.lfai(rest=si.zeros)
  params, aux = init.init_with_aux(KEY, SHAPES)
  assert aux['ranks'] == {'a': 3, 'b': 3, 'conv': 2, 'groups': 2, 'heads': 2}
  assert jax.tree.structure(aux['masks']) == jax.tree.structure(SHAPES)
  assert not params['a']['bias'].any()
  full = si.partition([('.*', lecun_normal)])(KEY, {
      name: shaped(kernel=form.kernel)
      for name, form in lowrank.pairs(SHAPES).items()})
  for name in ('a', 'b'):
    kernel = full[name]['kernel']
    u, v = lowrank.factorize(KEY, kernel, 3)
    loss, best = (
        lowrank.objective(kernel, *pair)
        for pair in ((params[name]['u'], params[name]['v']), (u, v)))
    np.testing.assert_allclose(loss, best, rtol=1e-4)
  # Attention's kernel is drawn as the matrix that it is.
  kernel = full['heads']['kernel'].reshape(12, 12) * 3**0.5
  pair = params['heads']['u'], params['heads']['v'].reshape(2, 12)
  np.testing.assert_allclose(
      lowrank.objective(kernel, *pair),
      lowrank.objective(kernel, *lowrank.factorize(KEY, kernel, 2)), rtol=1e-4)
  for name in ('conv', 'groups'):
    kernel = full[name]['kernel']
    found = lowrank.merge(params[name]['u'], params[name]['v'])
    cosine = (found * kernel).sum() / jnp.linalg.norm(
        found) / jnp.linalg.norm(kernel)
    assert cosine > 0.5


@pytest.mark.optimized
def test_layers_do_not_depend_on_company_and_jit_changes_little():
  init = lowrank.lfai(rest=si.zeros)
  params = init(KEY, SHAPES)
  alone = init(KEY, {'b': SHAPES['b']})
  jitted = jax.jit(functools.partial(init, shapes=SHAPES))(KEY)
  for got, want in [(alone['b'], params['b']), (jitted['b'], params['b'])]:
    np.testing.assert_allclose(
        lowrank.merge(got['u'], got['v']),
        lowrank.merge(want['u'], want['v']), atol=1e-4)


MANY = """
import jax, jax.numpy as jnp
from structinit_jax import lowrank
shapes = {
    f'{m}x{n}, {i}': {'u': jax.ShapeDtypeStruct((m, m // 10), jnp.float32),
                      'v': jax.ShapeDtypeStruct((m // 10, n), jnp.float32)}
    for m, n, count in [(48, 48, 6), (48, 96, 1), (96, 96, 5), (96, 192, 1),
                        (192, 192, 5)] for i in range(count)}
init = lowrank.lfai(restarts=0)
made = jax.jit(lambda key: init(key, shapes))
for seed in range(5):
  params = jax.block_until_ready(made(jax.random.key(seed)))
  assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(params))
"""


def test_many_shapes_are_one_program():
  """Their loops are run in order: at once, they have locked up."""
  env = {name: value for name, value in os.environ.items()
         if name != 'XLA_FLAGS'}  # with fewer optimisations they do not
  subprocess.run([sys.executable, '-c', MANY], env=env, check=True, timeout=240)


def test_outputs_of_a_separable_convolution_are_groups_of_columns():
  """The solver's objective, sampled: the columns of one output together."""
  form = forms.of_kernel((3, 3, 4, 8), 2)
  kernel = lecun_normal(KEY, form.kernel)
  x = jax.random.normal(KEY, (400, 12, 12, 4))

  def loss(method):
    init = lowrank.lfai(method=method, base=lambda *_: kernel)
    params = init(KEY, shaped(u=form.u, v=form.v))
    outputs = [jax.nn.relu(y) for y in (
        dense_conv(x, kernel, (1, 1), 'VALID', (1, 1), 1),
        lowrank.conv(x, params['u'], params['v'], padding='VALID'))]
    return float(((outputs[0] - outputs[1])**2).mean())

  assert loss('exact') < loss('rescaled') < loss('spectral')


def test_frobenius_decay_is_the_gradient():
  params = lowrank.lfai(rest=si.zeros)(KEY, SHAPES)
  decay = lowrank.frobenius_decay(0.3)
  zeros = optax.tree.zeros_like(params)
  updates, _ = jax.jit(decay.update)(zeros, decay.init(params), params)

  def norm(params):
    return 0.15 * sum((lowrank.merge(p['u'], p['v'])**2).sum()
                      for p in params.values())

  jax.tree.map(
      functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6),
      updates, jax.grad(norm)(params))
  with jax.enable_x64(True):
    wide = jax.tree.map(lambda x: x.astype(jnp.float64), params)
    updates, _ = decay.update(
        optax.tree.zeros_like(wide), decay.init(wide), wide)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-14),
        updates, jax.grad(norm)(wide))
  for coefficient in (-1, math.nan, math.inf):
    with pytest.raises(ValueError, match='finite float of at least 0'):
      lowrank.frobenius_decay(coefficient)
  with pytest.raises(ValueError, match='no pair of leaves u, v among kernel'):
    decay.init({'kernel': jnp.ones((2, 2))})
  with pytest.raises(ValueError, match='needs params'):
    decay.update(zeros, decay.init(params))


def test_trees_that_are_refused():
  with pytest.raises(ValueError, match=r'leaves a/bias .*\[uv\]'):
    lowrank.lfai()(KEY, SHAPES)
  with pytest.raises(ValueError, match="leaves 'u' and 'v': u of shape"):
    lowrank.lfai()(KEY, shaped(u=(4, 2), v=(3, 5)))
  with pytest.raises(ValueError, match=r"leaf 'a/u': .* works is 3"):
    lowrank.lfai()(KEY, {'a': shaped(u=(3, 4), v=(4, 5))})
  with pytest.raises(ValueError, match='unknown; use baseline'):
    lowrank.lfai(method='svd')
  with pytest.raises(ValueError, match=r"leaf 'u': dtype int32 is not a real"):
    lowrank.lfai()(KEY, jax.tree.map(
        lambda s: jax.ShapeDtypeStruct(s.shape, jnp.int32),
        shaped(u=(4, 2), v=(2, 5))))
  with pytest.raises(ValueError, match=r"leaf 'u': base made .* \(4, 4\)"):
    lowrank.lfai(base=lambda *_: jnp.ones((4, 4)))(
        KEY, shaped(u=(4, 2), v=(2, 5)))
  with pytest.raises(ValueError, match="'kernel' is not finite"):
    lowrank.lfai(base=jax.nn.initializers.constant(jnp.nan))(
        KEY, shaped(u=(4, 2), v=(2, 5)))


def test_objectives_of_layers():
  """Dense ones are `objective`; of separable ones windows are one output."""
  shapes = {name: SHAPES[name] for name in SHAPES if 'u' in SHAPES[name]}
  params, aux = lowrank.lfai(method='spectral', rest=si.zeros).init_with_aux(
      KEY, shapes)
  found = lowrank.layer_objectives(aux['kernels'], params)
  assert found.keys() == lowrank.pairs(shapes).keys()
  for name, pair in lowrank.pairs(shapes).items():
    u, v, kernel = params[name]['u'], params[name]['v'], aux['kernels'][name]
    if len(pair.kernel) == 2:
      np.testing.assert_allclose(
          found[name], lowrank.objective(kernel, u, v), rtol=1e-5)
      continue
    # An output's column is its whole kernel, whatever the form.
    shape = pair.matrix if u.ndim != v.ndim else (-1, kernel.shape[-1])
    flat = [x.reshape(shape) for x in (kernel, lowrank.merge(u, v))]
    eye = jnp.eye(len(flat[0]))
    np.testing.assert_allclose(
        found[name], lowrank.objective(flat[0], eye, flat[1]), rtol=1e-5)
  with pytest.raises(ValueError, match='kernels of x are of no pair'):
    lowrank.layer_objectives({'x': jnp.ones((2, 2))}, params)
  name, kernel = next(iter(aux['kernels'].items()))
  with pytest.raises(ValueError, match=f"kernel of '{name}' of shape"):
    lowrank.layer_objectives({name: kernel[..., 1:]}, params)


def test_kernels_that_a_program_holds_are_compressed():
  kernel = jax.random.normal(KEY, (12, 10))
  made = jax.jit(
      lambda: lowrank.compress({'kernel': kernel}, rank_scale=0.3))()
  assert made['u'].shape == (12, 3)
  broken = kernel.at[0, 0].set(jnp.nan)
  with pytest.raises(ValueError, match=r"leaf 'kernel' .* NaN"):
    jax.jit(lambda: lowrank.compress({'kernel': broken}, rank=1))()


def test_compression():
  keys = jax.random.split(KEY, 4)
  params = {
      'dense': {'kernel': jax.random.normal(keys[0], (40, 30)),
                'bias': jnp.ones(30)},
      'conv': {'kernel': jax.random.normal(keys[1], (3, 3, 16, 16))},
      'query': {'kernel': jax.random.normal(keys[2], (32, 4, 8))},
      'tiny': {'kernel': jax.random.normal(keys[3], (2, 2))},
  }
  small = lowrank.compress(params, rank_scale=0.1)
  assert jax.tree.map(jnp.shape, small) == {
      'dense': {'u': (40, 3), 'v': (3, 30), 'bias': (30,)},
      'conv': {'u': (1, 3, 16, 5), 'v': (3, 1, 5, 16)},
      'query': {'u': (32, 3), 'v': (3, 4, 8)},
      'tiny': {'kernel': (2, 2)}}
  chosen = lowrank.compress(params, rank=2, select='dense/.*')
  assert chosen['dense']['u'].shape == (40, 2)
  assert chosen['conv'].keys() == {'kernel'}
  values = np.linalg.svd(params['dense']['kernel'], compute_uv=False)**2
  kept = int((np.cumsum(values) / values.sum() < 0.5).sum()) + 1
  energy = lowrank.compress(params, energy=0.5, select='dense/.*')
  assert energy['dense']['u'].shape == (40, kept)
  stable = lowrank.compress(params, stable=0.5, select='dense/.*')
  assert stable['dense']['u'].shape[1] == math.ceil(
      values.sum() / values[0] / 2)
  assert lowrank.stable_rank(jnp.zeros((3, 4))) == 0


def test_compression_on_the_inputs_that_occur():
  kernel = lecun_normal(KEY, (30, 20))
  scales = jnp.exp(jax.random.normal(KEY, (30,)))
  covariance = jnp.diag(scales**2)
  params = {'hidden': {'kernel': kernel}}
  losses = []
  for given in ({}, {'hidden': covariance}):
    small = lowrank.compress(params, rank=3, covariances=given)['hidden']
    losses.append(lowrank.objective(
        kernel, small['u'], small['v'], covariance=covariance))
  assert losses[1] < 0.9 * losses[0]
  for options, message in [
      ({'rank': 3, 'covariances': {'other': covariance}}, 'of other are of no'),
      ({'rank': 3, 'covariances': {'hidden': jnp.eye(3)}}, "'hidden/kernel'"),
      ({'rank': 3, 'rank_scale': 0.1}, 'give one of'), ({}, 'give one of'),
      ({'rank_scale': 1.5}, r'in \(0, 1\]'), ({'energy': 0.}, r'in \(0, 1\]'),
      ({'rank': 3, 'method': 'adam'}, 'draws at random'),
      ({'rank': 3, 'method': None}, 'None is unknown'),
      ({'rank': 3, 'select': '('}, 'no regular expression'),
      ({'rank_scale': 'x'}, r"rank_scale 'x' must be in \(0, 1\]"),
      ({'energy': '1'}, r"energy '1' must be in \(0, 1\]"),
      ({'stable': 0}, 'stable=0 must be a positive'),
      ({'rank': 3, 'covariances': {'hidden': jnp.full((30, 30), jnp.nan)}},
       "leaf 'hidden/kernel': covariance .* must be finite")]:
    with pytest.raises(ValueError, match=message):
      lowrank.compress(params, **options)
  with pytest.raises(ValueError, match="'hidden/kernel' is traced"):
    jax.jit(lambda p: lowrank.compress(p, energy=0.9))(params)
  with pytest.raises(ValueError, match=r"factors beside 'hidden/u'"):
    lowrank.compress({'hidden': {'kernel': kernel, 'u': kernel}}, rank=3)
  with pytest.raises(ValueError, match="leaf 'hidden/kernel': dtype int32"):
    lowrank.compress({'hidden': {'kernel': jnp.ones((30, 20), int)}}, rank=3)
  bad = {'hidden': {'kernel': kernel.at[0, 0].set(jnp.nan)}}
  with pytest.raises(ValueError, match=r"leaf 'hidden/kernel' .* NaN"):
    lowrank.compress(bad, rank=2)
