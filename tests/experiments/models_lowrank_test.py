"""The networks of the low-rank paper: their sizes, and what they compute."""

import itertools
import math
import re

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import initializers
from experiments import models
from experiments import registry
from experiments.models import efficientnet
import structinit_jax as si

SMALL = (efficientnet.Stage(3, 1, 1, 16, 1), efficientnet.Stage(5, 2, 6, 24, 2))
RANK_SCALES = (0.05, 0.1, 0.15, 0.2)


def _variables(model, size):
  return jax.eval_shape(
      model.init, jax.random.key(0), jnp.zeros((1, size, size, 3)))


def _params(model, size=64):
  return _variables(model, size)['params']


def _count(tree):
  return sum(leaf.size for leaf in jax.tree.leaves(tree))


def _outputs(model, size):
  """Returns the shape of what every layer returns, by its name."""
  _, state = jax.eval_shape(
      lambda v: model.apply(
          v, jnp.zeros((1, size, size, 3)), capture_intermediates=True),
      _variables(model, size))
  return {name.removesuffix('/__call__/0'): leaf.shape[1:] for name, leaf in
          zip(si.leaf_names(state['intermediates']),
              jax.tree.leaves(state['intermediates']), strict=True)}


# ---- ResNet-50.


def test_resnet50_has_the_published_number_of_parameters():
  model = registry.MODELS.build('resnet50', num_classes=1000)
  params = _params(model, 224)
  assert _count(params) == 25_557_032
  kernels = [name for name in si.leaf_names(params) if name.endswith('kernel')]
  assert len([n for n in kernels if 'shortcut' not in n]) == 50
  assert len([n for n in kernels if 'shortcut' in n]) == 4


def test_the_3x3_convolution_of_a_bottleneck_has_the_stride():
  found = _outputs(models.resnet50(1000), 224)
  size, width, before = 56, 64, 56
  for blocks in ((0, 1, 2), (3, 4, 5, 6), range(7, 13), (13, 14, 15)):
    for i in blocks:
      first = before if i == blocks[0] else size
      assert [found[f'blocks_{i}/conv_{j}'] for j in range(3)] == [
          (first, first, width), (size, size, width), (size, size, 4 * width)]
      assert (f'blocks_{i}/shortcut' in found) == (i == blocks[0])
    before, size, width = size, size // 2, 2 * width
  assert found['stem'] == (112, 112, 64)


def test_a_bottleneck_is_the_definition():
  model = models.ResNet(5, (1, 1), 4, bottleneck=True)
  variables = _drawn(model, 24)
  x = _images(3, 24)

  def reference(variables, x):
    params, stats = variables['params'], variables['batch_stats']
    x = jax.nn.relu(_norm(_conv(x, params['stem'], 2, 3), 'stem_norm',
                          params, stats, 1e-5))
    x = lax.reduce_window(x, -np.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1),
                          ((0, 0), (1, 1), (1, 1), (0, 0)))
    for name, stride in (('blocks_0', 1), ('blocks_1', 2)):
      own = params[name], stats[name], 1e-5
      y = jax.nn.relu(_norm(_conv(x, own[0]['conv_0']), 'norm_0', *own))
      y = _conv(y, own[0]['conv_1'], stride, 1)
      y = jax.nn.relu(_norm(y, 'norm_1', *own))
      y = _norm(_conv(y, own[0]['conv_2']), 'norm_2', *own)
      x = _conv(x, own[0]['shortcut'], stride)
      x = jax.nn.relu(_norm(x, 'shortcut_norm', *own) + y)
    return _dense(x.mean((1, 2)), params['head'])

  _check(model, reference, variables, x)


# ---- EfficientNet: sizes.


@pytest.mark.parametrize('variant, parameters', [
    ('b0', 5_288_548), ('b1', 7_794_184), ('b3', 12_233_232),
    ('b7', 66_347_960)])
def test_efficientnets_have_the_published_number_of_parameters(
    variant, parameters):
  model = registry.MODELS.build(
      f'efficientnet(variant={variant!r})', num_classes=1000)
  assert _count(_params(model)) == parameters


def test_b9_goes_on_where_b7_ends():
  scales = list(efficientnet.VARIANTS.values())
  assert list(efficientnet.VARIANTS) == [*(f'b{i}' for i in range(8)), 'b9']
  assert all(all(np.less_equal(one, other))
             for one, other in itertools.pairwise(scales))
  params = _params(efficientnet.efficientnet(10, 'b9'))
  assert params['top']['kernel'].shape == (1, 1, 768, 3072)


def test_other_variants_are_refused():
  with pytest.raises(ValueError, match="variant='b10' must be one of b0, b1"):
    efficientnet.efficientnet(10, 'b10')


@pytest.mark.parametrize('variant, widths, counts', [
    ('b0', [16, 24, 40, 80, 112, 192, 320], [1, 2, 2, 3, 3, 4, 1]),
    ('b3', [24, 32, 48, 96, 136, 232, 384], [2, 3, 3, 5, 5, 6, 2])])
def test_efficientnets_have_the_stages_of_the_table(variant, widths, counts):
  model = efficientnet.efficientnet(1000, variant)
  size = efficientnet.VARIANTS[variant][2]
  found = _outputs(model, size)
  params = _params(model, size)
  stages = list(zip(widths, counts, (2, 4, 8, 16, 16, 32, 32),
                    (3, 3, 5, 3, 5, 5, 3), strict=True))
  index, before = 0, found['stem'][-1]
  for width, count, reduction, window in stages:
    side = math.ceil(size / reduction)
    for i in range(count):
      name = f'blocks_{index}'
      block = params[name]
      wide = before * (1 if not index or (
          i and width == widths[0]) else 6)
      assert found[name] == (side, side, width)
      assert ('expand' in block) == (wide > before)
      assert block['depthwise']['kernel'].shape == (window, window, 1, wide)
      # The squeeze is of the block's input, not of what is inside it.
      assert block['squeeze']['kernel'].shape == (wide, before // 4)
      assert block['excite']['kernel'].shape == (before // 4, wide)
      assert block['project']['kernel'].shape == (1, 1, wide, width)
      index, before = index + 1, width
  assert f'blocks_{index}' not in params
  assert params['top']['kernel'].shape[2:] == (before, 4 * before)


@pytest.mark.parametrize('channels, want', [
    (32 * 1.0, 32), (32 * 1.2, 40), (80 * 1.1, 88), (24 * 1.1, 24),
    (16 * 1.4, 24), (1.0, 8), (12.0, 16), (11.9, 16), (18.1, 24)])
def test_channels_are_rounded_as_published(channels, want):
  """To the nearest multiple of 8, up at .5, but not down by over a tenth."""
  assert efficientnet._round(channels) == want


# ---- EfficientNet: what is computed.


def _drawn(model, size):
  """Variables that are not trivial; vectors, some variances, lie near 1."""
  leaves, tree = jax.tree.flatten(_variables(model, size))
  rng = np.random.default_rng(0)
  return jax.tree.unflatten(tree, [
      (0.2 * rng.standard_normal(x.shape) + (x.ndim == 1)).astype(x.dtype)
      for x in leaves])


def _images(count, size):
  return np.random.default_rng(1).standard_normal(
      (count, size, size, 3)).astype(np.float32)


def _conv(x, p, stride=1, pad=0, groups=1):
  pads = pad if isinstance(pad, str) else [(pad, pad)] * 2
  return lax.conv_general_dilated(
      x, p['kernel'], (stride, stride), pads, feature_group_count=groups,
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'))


def _norm(x, name, params, stats, epsilon):
  p, s = params[name], stats[name]
  mean, var, scale, bias = (
      a.reshape(1, 1, 1, -1)
      for a in (s['mean'], s['var'], p['scale'], p['bias']))
  return (x - mean) / jnp.sqrt(var + epsilon) * scale + bias


def _dense(x, p):
  return x @ p['kernel'] + p['bias'].reshape(1, -1)


def _swish(x):
  return x / (1 + jnp.exp(-x))


def _check(model, reference, variables, x):
  """Compares outputs, in float64, and sees that every parameter has a part."""

  def loss(params):
    y = model.apply({**variables, 'params': params}, x)
    return jnp.sin(y).sum(), y

  with jax.enable_x64(True), jax.numpy_dtype_promotion('standard'):
    variables, x = jax.tree.map(
        lambda a: np.asarray(a, np.float64), (variables, x))
    slopes, got = jax.jit(jax.grad(loss, has_aux=True))(variables['params'])
    want = jax.jit(reference)(variables, x)
  np.testing.assert_allclose(got, want, rtol=1e-8, atol=1e-8)
  assert all(np.isfinite(x).all() and np.any(x)
             for x in jax.tree.leaves(slopes))


def test_efficientnet_is_the_definition():
  model = efficientnet.EfficientNet(5, stages=SMALL)

  def reference(variables, x):
    params, stats = variables['params'], variables['batch_stats']
    x = _conv(x, params['stem'], 2, 'SAME')
    x = _swish(_norm(x, 'stem_norm', params, stats, 1e-3))
    for name, stride, skip in (
        ('blocks_0', 1, False), ('blocks_1', 2, False), ('blocks_2', 1, True)):
      p, s = params[name], stats[name]
      y = x
      if name != 'blocks_0':
        y = _swish(_norm(_conv(y, p['expand']), 'expand_norm', p, s, 1e-3))
      y = _conv(y, p['depthwise'], stride, 'SAME', y.shape[-1])
      y = _swish(_norm(y, 'depthwise_norm', p, s, 1e-3))
      gate = _dense(_swish(_dense(y.mean((1, 2)), p['squeeze'])), p['excite'])
      y = y / (1 + jnp.exp(-gate))[:, None, None]
      y = _norm(_conv(y, p['project']), 'project_norm', p, s, 1e-3)
      x = x + y if skip else y
    x = _swish(_norm(_conv(x, params['top']), 'top_norm', params, stats, 1e-3))
    return _dense(x.mean((1, 2)), params['head'])

  _check(model, reference, _drawn(model, 32), _images(2, 32))


def test_stochastic_depth_drops_blocks_that_have_a_shortcut():
  """A dropped block is the identity; what is kept weighs more."""
  drop = 0.75
  stage = efficientnet.Stage(3, 1, 1, 32, 3)
  model = efficientnet.EfficientNet(5, stages=(stage,), drop=drop)
  variables = _drawn(model, 8)
  _, state = jax.jit(lambda v, x, key: model.apply(
      v, x, train=True, rngs={'dropout': key}, mutable=['intermediates',
                                                        'batch_stats'],
      capture_intermediates=True))(
          variables, _images(64, 8), jax.random.key(3))
  found = state['intermediates']
  before = found['blocks_1']['__call__'][0]
  after = found['blocks_2']['__call__'][0]
  inner = found['blocks_2']['project_norm']['__call__'][0]
  keep = 1 - drop * 2 / 3
  dropped = np.array([np.array_equal(a, b) for a, b in zip(
      before, after, strict=True)])
  assert 0.25 < dropped.mean() < 0.75  # 4 standard deviations of 64 coins
  np.testing.assert_allclose(
      (after - before)[~dropped], inner[~dropped] / keep, rtol=1e-3, atol=1e-4)


def test_running_statistics_keep_0_99_of_themselves():
  model = efficientnet.EfficientNet(5, stages=SMALL[:1])
  variables, x = _drawn(model, 16), _images(4, 16)
  _, changed = jax.jit(lambda v: model.apply(
      v, x, train=True, mutable=['batch_stats']))(variables)
  stem = np.asarray(_conv(x, variables['params']['stem'], 2, 'SAME'))
  for name, own in (('mean', stem.mean((0, 1, 2))),
                    ('var', stem.var((0, 1, 2)))):
    np.testing.assert_allclose(
        changed['batch_stats']['stem_norm'][name],
        0.99 * variables['batch_stats']['stem_norm'][name] + 0.01 * own,
        rtol=1e-4, atol=1e-5)
  _, same = jax.eval_shape(
      lambda v: model.apply(v, x, mutable=['batch_stats']), variables)
  assert jax.tree.structure(same['batch_stats']) == jax.tree.structure(
      changed['batch_stats'])


# ---- Both.

MODELS = [models.resnet50(1000), efficientnet.efficientnet(1000)]


@pytest.mark.parametrize('model', MODELS)
def test_bfloat16_computes_and_float32_keeps(model):
  model = model.clone(dtype=jnp.bfloat16)
  with jax.numpy_dtype_promotion('standard'):  # Flax's normalization mixes
    variables = _variables(model, 64)
    y, changed = jax.eval_shape(
        lambda v: model.apply(v, jnp.zeros((2, 64, 64, 3)), train=True,
                              mutable=['batch_stats', 'intermediates'],
                              capture_intermediates=True), variables)
  assert (y.shape, y.dtype) == ((2, 1000), jnp.bfloat16)
  assert {x.dtype for x in jax.tree.leaves(changed['intermediates'])} == {
      jnp.dtype(jnp.bfloat16)}
  assert {x.dtype for x in jax.tree.leaves(
      (variables, changed['batch_stats']))} == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize('rank_scale', RANK_SCALES)
@pytest.mark.parametrize('model', MODELS)
def test_factors_take_the_place_of_kernels(model, rank_scale):
  variables = _variables(model, 64)
  full = variables['params']
  low = si.lowrank.factor_shapes(
      full, rank_scale=rank_scale, select=r'(?!(stem|head)/).*')
  y = jax.eval_shape(
      lambda v: si.layers.factored(model.apply)(
          v, jnp.zeros((2, 64, 64, 3))), {**variables, 'params': low})
  assert y.shape == (2, 1000)
  kernels = {n for n in si.leaf_names(low) if n.endswith('kernel')}
  whole = {n for n in si.leaf_names(full) if n.endswith('kernel') and (
      '/depthwise/' in n or n in ('stem/kernel', 'head/kernel'))}
  assert kernels == whole
  for name, form in si.lowrank.pairs(low).items():
    kernel = full
    for part in name.split('/'):
      kernel = kernel[part]
    shape = kernel['kernel'].shape
    assert form.kernel == shape
    side = shape if len(shape) == 2 else (
        shape[1] * shape[2], shape[0] * shape[3])
    assert form.rank == max(round(rank_scale * min(side)), 1)


@pytest.mark.parametrize('model', MODELS)
def test_the_recipe_draws_the_factors(model):
  full = _params(model)
  for dense in ('stem|head', 'stem|head|.*squeeze|.*excite'):
    _, recipe = initializers.make(
        f"lfai(method='spectral', activation='swish', dense={dense!r})")
    shapes = recipe.shapes(full)
    init_fn, _ = recipe.build(shapes)
    made = jax.eval_shape(
        lambda key, f=init_fn, s=shapes: f(key, s), jax.random.key(0))
    assert jax.tree.map(lambda x: x.shape, made) == jax.tree.map(
        lambda x: x.shape, shapes)
    assert {n for n in si.lowrank.pairs(shapes)
            if n.endswith(('squeeze', 'excite'))} == (
                set() if 'squeeze' in dense else
                {n.removesuffix('/kernel') for n in si.leaf_names(full)
                 if n.endswith(('squeeze/kernel', 'excite/kernel'))})


def test_names_tell_depthwise_and_squeeze_excite_layers():
  params = _params(efficientnet.efficientnet(10))
  names = [n for n in si.leaf_names(params) if n.endswith('kernel')]
  kinds = {kind: sum(bool(re.fullmatch(rf'.*/{kind}/kernel', name))
                     for name in names)
           for kind in ('expand', 'depthwise', 'squeeze', 'excite', 'project')}
  assert kinds == {'expand': 15, 'depthwise': 16, 'squeeze': 16, 'excite': 16,
                   'project': 16}
  assert len(names) == sum(kinds.values()) + len(('stem', 'top', 'head'))


def test_swish_networks_have_no_units_that_can_be_dead():
  model = efficientnet.EfficientNet(5, stages=SMALL)
  _, sown = jax.eval_shape(
      lambda v: model.apply(
          v, jnp.zeros((1, 32, 32, 3)), mutable=['intermediates']),
      _variables(model, 32))
  assert not jax.tree.leaves(sown)
