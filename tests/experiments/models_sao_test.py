"""The networks of the SAO thesis: their sizes, and what they compute."""

import functools

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.models import lipconvnet
from experiments.models import mixer
from experiments.models import vanilla_cnn
from experiments.models import vgg
import structinit_jax as si
from structinit_jax.layers import orthogonal_convs


def _variables(model, shape):
  return jax.eval_shape(
      model.init, jax.random.key(0), jnp.zeros((1, *shape), jnp.float32))


def _count(tree):
  return sum(leaf.size for leaf in jax.tree.leaves(tree))


def _drawn(model, shape, spread=0.3):
  """Variables that are not trivial; vectors, some variances, lie near 1."""
  leaves, tree = jax.tree.flatten(_variables(model, shape))
  rng = np.random.default_rng(0)
  return jax.tree.unflatten(tree, [
      (spread * rng.standard_normal(x.shape) + (x.ndim == 1)).astype(x.dtype)
      for x in leaves])


def _images(*shape):
  return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


def _double(tree):
  return jax.tree.map(lambda x: np.asarray(x, np.float64), tree)


def _bias(x, p):
  return x + p['bias'].reshape((1,) * (x.ndim - 1) + (-1,))


def _dense(x, p):
  return _bias(x @ p['kernel'], p)


def _conv(x, p, stride=1, circular=False):
  """3x3: zeros around the image, or the whole image around itself, dilated."""
  step = 1
  if circular:
    step = x.shape[1] // 3
    x = jnp.concatenate([x] * 3, 1)
    x = jnp.concatenate([x] * 3, 2)
  y = lax.conv_general_dilated(
      x, p['kernel'], (stride, stride), [(1, 1)] * 2 if not circular else
      'SAME', rhs_dilation=(step, step),
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
  if circular:
    y = y[:, step * 3:step * 6, step * 3:step * 6]
  return _bias(y, p) if 'bias' in p else y


def _squares(x):
  """Squares of 2x2 pixels as channels, pixel by pixel."""
  return jnp.concatenate(
      [x[:, i::2, j::2] for i in range(2) for j in range(2)], -1)


def _layers(hidden):
  """The layers of a stack, one by one."""
  for i in range(len(jax.tree.leaves(hidden)[0])):
    yield jax.tree.map(lambda x, i=i: x[i], hidden)


# ---- Vanilla CNN.


@pytest.mark.parametrize('depth, width, classes', [(8, 128, 10), (32, 64, 100)])
def test_vanilla_cnns_have_the_layers_of_the_table(depth, width, classes):
  model = vanilla_cnn.VanillaCNN(classes, depth, width)
  params = _variables(model, (32, 32, 3))['params']
  assert params['hidden']['kernel'].shape == (depth - 1, 3, 3, width, width)
  assert params['head']['kernel'].shape == (width, classes)
  assert _count(params) == (
      28 * width + depth * (9 * width + 1) * width + (width + 1) * classes)
  more = vanilla_cnn.VanillaCNN(classes, depth, width, final='convs')
  assert _count(_variables(more, (32, 32, 3))['params']) - _count(params) == (
      2 * (9 * width + 1) * width)


def _vanilla(params, x, activation, final, circular, pad):
  act = {'relu': jax.nn.relu, 'tanh': jnp.tanh, 'looks_linear': lambda x:
         jnp.concatenate([jax.nn.relu(x), jax.nn.relu(-x)], -1)}[activation]
  x = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
  x = _conv(x, params['stem'])
  if circular:
    x = act(_conv(act(_squares(x)), params['conv_1'], circular=True))
  else:
    x = act(_conv(act(x), params['conv_1'], 2))
  for p in _layers(params['hidden']):
    x = act(_conv(x, p, circular=circular))
  if final == 'convs':
    for name in ('conv_2', 'conv_3'):
      x = act(_conv(x, params[name], 2))
  return _dense(x.mean((1, 2)), params['head'])


@pytest.mark.parametrize('activation, final, circular, pad', [
    ('relu', 'pool', False, 0), ('tanh', 'convs', False, 1),
    ('looks_linear', 'convs', True, 2), ('relu', 'pool', True, 2)])
def test_the_scan_is_the_loop(activation, final, circular, pad):
  model = vanilla_cnn.VanillaCNN(5, 4, 6, activation, final, circular, pad)
  params = _drawn(model, (8, 8, 3))['params']
  x = _images(2, 8, 8, 3)

  @jax.jit
  def both(params, x):
    def loss(fn):
      return jax.value_and_grad(lambda p: jnp.sin(fn(p)).sum())(params)
    return loss(lambda p: model.apply({'params': p}, x)), loss(
        lambda p: _vanilla(p, x, activation, final, circular, pad))

  with jax.enable_x64(True):
    got, want = both(*_double((params, x)))
  jax.tree.map(functools.partial(
      np.testing.assert_allclose, rtol=1e-9, atol=1e-9), got, want)


def test_vanilla_cnns_sow_relus_but_not_those_of_the_stack():
  for activation, final, widths in (
      ('relu', 'pool', [6, 6]), ('looks_linear', 'convs', [12] * 4),
      ('tanh', 'pool', [])):
    model = vanilla_cnn.VanillaCNN(5, 4, 6, activation, final)
    _, sown = jax.eval_shape(
        lambda v, model=model: model.apply(
            v, jnp.zeros((1, 8, 8, 3)), mutable=['intermediates']),
        _variables(model, (8, 8, 3)))
    assert [x.shape[-1] for x in jax.tree.leaves(sown)] == widths


@pytest.mark.parametrize('degree', [4, 16])
def test_looks_linear_networks_start_as_isometries(degree):
  """Of the pixel that a stride of 2 leaves of 2x2; others have no influence."""
  width = 16
  model = vanilla_cnn.VanillaCNN(width, 64, width, 'looks_linear')
  shapes = _variables(model, (2, 2, 3))['params']
  delta = si.sao.delta_orthogonal(degree=degree, looks_linear='in')
  layer = jax.ShapeDtypeStruct((3, 3, 2 * width, width), jnp.float32)
  keys = jax.random.split(jax.random.key(2), 64)
  params = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
  params['stem']['kernel'] = si.sao.delta_orthogonal(density=1.0)(
      keys[0], (3, 3, 3, width))
  params['conv_1']['kernel'] = delta(keys[1], layer.shape)
  params['hidden']['kernel'] = jnp.stack(
      [delta(key, layer.shape) for key in keys[1:]])
  head = si.sao.orthogonal(degree=degree, looks_linear='in')
  params['head']['kernel'] = head(keys[0], (2 * width, width))
  x = _images(1, 2, 2, 3)

  @jax.jit
  def both(x):
    def fn(x):
      return model.apply({'params': params}, x)[0]
    return fn(x), jax.jacobian(fn)(x)

  logits, jacobian = both(x)
  np.testing.assert_allclose(
      np.linalg.norm(logits) / np.linalg.norm(x[0, 0, 0]), 1, atol=1e-5)
  jacobian = np.asarray(jacobian, np.float64).reshape(width, -1)
  np.testing.assert_allclose(
      np.linalg.svd(jacobian, compute_uv=False)[:12],
      [1] * 3 + [0] * 9, atol=1e-5)


def test_768_layers_compile_as_one():
  shape = (12, 12, 3)

  def lines(depth):
    model = vanilla_cnn.VanillaCNN(5, depth, 2, circular=True)
    return jax.jit(model.apply).lower(
        _variables(model, shape), jnp.zeros((1, *shape))).as_text().count('\n')

  assert lines(768) == lines(8)
  model = vanilla_cnn.VanillaCNN(5, 768, 2)
  variables = _drawn(model, shape)
  assert len(variables['params']['hidden']['kernel']) == 767
  y = jax.jit(model.apply)(variables, _images(1, *shape))
  assert np.isfinite(y).all()


@pytest.mark.parametrize('options, image, message', [
    ({'circular': True}, 32, '32x32 with pad=0.* works is 30x30'),
    ({'circular': True, 'pad': 1}, 32, '34x34 with pad=1.* works is 36x36'),
    ({'activation': 'silu'}, 32, "activation 'silu' is unknown"),
    ({'final': 'flatten'}, 32, "final 'flatten' is unknown"),
    ({'depth': 1}, 32, 'depth=1 must be at least 2')])
def test_what_no_vanilla_cnn_is_made_for(options, image, message):
  with pytest.raises(ValueError, match=message):
    _variables(vanilla_cnn.VanillaCNN(10, **options), (image, image, 3))


# ---- LipConvNet.


@functools.cache
def _lipschitz(depth, **options):
  """A network with any parameters, but no biases, and the identity as head."""
  model = lipconvnet.LipConvNet(1024, depth, **options)
  variables = _drawn(model, (24, 24, 3))
  for p in variables['params'].values():
    p['bias'] = np.zeros_like(p['bias'])
  variables['params']['head']['kernel'] = np.eye(1024, dtype=np.float32)
  return model, variables


def _outputs(model, variables, x):
  """What every layer returns, first to last."""
  _, state = jax.jit(lambda v, x: model.apply(
      v, x, capture_intermediates=True))(variables, x)
  found = {name: layer['__call__'][0]
           for name, layer in state['intermediates'].items()
           if name != '__call__'}
  order = sorted(found, key=lambda name: (
      name == 'head', int(name.partition('_')[2] or 0)))
  return [found[name] for name in order]


def test_lipconvnets_keep_norms_where_they_do_not_narrow():
  model, variables = _lipschitz(10)
  x = _images(2, 24, 24, 3)
  *outputs, logits = _outputs(model, variables, x)
  assert [y.shape[1:] for y in outputs] == [
      (24, 24, 32), (12, 12, 64), (12, 12, 64), (6, 6, 128), (6, 6, 128),
      (3, 3, 256), (3, 3, 256), (1, 1, 512), (1, 1, 512), (1, 1, 1024)]
  assert logits.shape == (2, 1024)
  for y in outputs:
    ratio = np.linalg.norm(y) / np.linalg.norm(x)
    if y.size >= x.size:
      np.testing.assert_allclose(ratio, 1, atol=1e-5)
    else:
      assert ratio < 1 + 1e-5
    x = y
  np.testing.assert_allclose(
      np.linalg.norm(logits) / np.linalg.norm(outputs[-1]), 1, atol=1e-6)


@pytest.mark.optimized
@pytest.mark.parametrize('options', [{}, {'degree': 8}])
def test_lipconvnets_are_1_lipschitz_whatever_their_parameters(options):
  model, variables = _lipschitz(5, **options)
  x, y = _images(2, 2, 24, 24, 3)

  @jax.jit
  def stretch(variables, x, y):
    """How much distances grow; the norm of a Jacobian, by power iteration."""
    def fn(x):
      return model.apply(variables, x)
    z, push = jax.linearize(fn, jnp.concatenate([x, y]))
    z, w = jnp.split(z, 2)
    axes = (1, 2, 3)
    ratios = jnp.linalg.norm(z - w, axis=-1) / jnp.sqrt(
        jnp.square(x - y).sum(axes))
    pull = jax.linear_transpose(push, jnp.concatenate([x, y]))

    def iterate(_, v):
      v = v / jnp.sqrt(jnp.square(v).sum(axes, keepdims=True))
      return pull(push(v))[0]

    v = jax.lax.fori_loop(0, 4, iterate, jnp.concatenate([x, y]))
    v = v / jnp.sqrt(jnp.square(v).sum(axes, keepdims=True))
    return ratios, jnp.linalg.norm(push(v), axis=-1)

  ratios, norms = stretch(variables, x, y)
  assert (ratios < 1 + 1e-5).all()
  assert (norms < 1 + 1e-5).all()
  assert (norms > 0.5).all()  # gradients do not vanish either


def test_the_free_form_starts_as_the_constrained_one():
  model, variables = _lipschitz(5)
  params = dict(variables['params'])
  for name, p in params.items():
    if name.startswith('eco'):
      (values,) = p['values']
      params[name] = {
          'bias': p['bias'],
          'kernel': si.sao.to_dense(
              [orthogonal_convs.orthogonalize(jnp.asarray(values))],
              si.sao.Topology(values.shape[-2:], 1))}
  free = lipconvnet.LipConvNet(1024, 5, constrained=False)
  assert jax.tree.structure(params) == jax.tree.structure(
      _variables(free, (24, 24, 3))['params'])
  x = _images(2, 32, 32, 3)  # both see the 24x24 in the middle
  np.testing.assert_allclose(
      jax.jit(free.apply)({'params': params}, x),
      jax.jit(model.apply)(variables, x[:, 4:28, 4:28]), atol=1e-5)


def test_density_is_that_of_the_eco_layers():
  dense, sparse = (
      _variables(lipconvnet.LipConvNet(10, 5, density=density), (24, 24, 3))
      for density in (None, 0.25))
  for name, p in dense['params'].items():
    q = sparse['params'][name]
    if name.startswith('eco'):
      assert 4 * _count(q['values']) == _count(p['values'])
    else:
      assert jax.tree.map(jnp.shape, q) == jax.tree.map(jnp.shape, p)


def test_training_takes_fewer_terms():
  model, variables = _lipschitz(5)
  x = _images(2, 24, 24, 3)
  apply = jax.jit(model.apply, static_argnames='train')
  y, z = (apply(variables, x, train=train) for train in (False, True))
  assert 0 < abs(y - z).max() < 1e-2


@pytest.mark.parametrize('options, image, message', [
    ({'depth': 12}, 24, 'depth=12 .*nearest: 10 and 15'),
    ({'depth': 3}, 24, 'depth=3 .*nearest: 5'),
    ({}, 8, 'images of 8x8 are too small; .* 24x24'),
    ({'constrained': False, 'density': 0.5}, 24, 'leave degree and density')])
def test_what_no_lipconvnet_is_made_for(options, image, message):
  with pytest.raises(ValueError, match=message):
    _variables(lipconvnet.LipConvNet(10, **options), (image, image, 3))


# ---- VGG.


def test_vgg16_has_the_published_size():
  params = _variables(vgg.VGG16(10), (32, 32, 3))['params']
  # 14,714,688 weights and biases; here the normalization's shifts are these.
  convolutions = {
      name: p['kernel'] if 'kernel' in p else p['bias']
      for name, p in params.items() if not name.startswith(('dense', 'head'))}
  assert _count(convolutions) == 14_714_688
  assert len(convolutions) == 26
  assert [params[name]['kernel'].shape for name in (
      'dense_0', 'dense_1', 'head')] == [(512, 256), (256, 128), (128, 10)]


def _norm(x, p, stats):
  shape = (1,) * (x.ndim - 1) + (-1,)
  mean, var, scale, bias = (a.reshape(shape) for a in (
      stats['mean'], stats['var'], p['scale'], p['bias']))
  return (x - mean) * lax.rsqrt(var + 1e-5) * scale + bias


@pytest.mark.parametrize('circular', [False, True])
def test_vgg16_is_the_definition(circular):
  model = vgg.VGG16(10, circular)
  variables = _drawn(model, (32, 32, 3), 0.02)
  images = _images(1, 32, 32, 3)

  def reference(variables, x):
    params, stats = variables['params'], variables['batch_stats']
    x = jnp.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)))
    names = ['', *(f'_{i}' for i in range(1, 13))]
    relus = []
    for i, name in enumerate(names):
      x = _conv(x, params[f'conv{name}' if name else 'stem'],
                circular=circular and i > 6)
      norm = f'norm{name}' if name else 'stem_norm'
      x = jax.nn.relu(_norm(x, params[norm], stats[norm]))
      relus.append(x)
      window = {1: 2, 3: 2, 9: 3, 12: 3}.get(i, 1)
      b, h, w, c = x.shape
      x = x.reshape(b, h // window, window, w // window, window, c).max((2, 4))
    x = x.reshape(1, -1)
    for name in ('dense_0', 'dense_1'):
      x = jax.nn.relu(_dense(x, params[name]))
      relus.append(x)
    return _dense(x, params['head']), relus

  @jax.jit
  def both(variables, x):
    return model.apply(variables, x, mutable=['intermediates']), reference(
        variables, x)

  with jax.enable_x64(True):
    (got, sown), (want, relus) = both(*_double((variables, images)))
  assert [x.shape[1:] for x in relus] == [
      *[(36, 36, 64)] * 2, *[(18, 18, 128)] * 2, *[(9, 9, 256)] * 3,
      *[(9, 9, 512)] * 3, *[(3, 3, 512)] * 3, (256,), (128,)]
  for x, y in zip(
      [got, *sown['intermediates']['relu']], [want, *relus], strict=True):
    np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-9)


def test_vgg16_normalizes_by_batches_in_training():
  model = vgg.VGG16(10)
  variables = _variables(model, (32, 32, 3))
  _, changed = jax.eval_shape(
      lambda v: model.apply(
          v, jnp.zeros((2, 32, 32, 3)), train=True, mutable=['batch_stats']),
      variables)
  assert jax.tree.structure(changed['batch_stats']) == jax.tree.structure(
      variables['batch_stats'])


def test_images_too_large_for_vgg16_are_refused():
  with pytest.raises(ValueError, match=r'40x40 are too large; .* 36x36'):
    _variables(vgg.VGG16(10), (40, 40, 3))


# ---- Mixers.


@pytest.mark.parametrize('model, parameters', [
    (mixer.MixerNano(1000, 8, 512, 256, 2048, 16), 18_528_264),  # Mixer-S/16
    (mixer.ResMLP(1000, 12, 384, 16), 15_350_872)])  # ResMLP-S12
def test_mixers_of_published_sizes_have_the_published_parameters(
    model, parameters):
  assert _count(_variables(model, (224, 224, 3))['params']) == parameters


@pytest.mark.parametrize('model, kernels', [
    (mixer.MixerNano(10), [
        (8, 64, 64), (8, 64, 64), (8, 128, 512), (8, 512, 128)]),
    (mixer.ResMLP(10), [(12, 64, 64), (12, 48, 192), (12, 192, 48)])])
def test_mixers_have_the_layers_of_the_tables(model, kernels):
  params = _variables(model, (32, 32, 3))['params']
  found = [p['kernel'].shape for p in params['hidden'].values()
           if 'kernel' in p]
  assert sorted(found) == sorted(kernels)
  assert params['stem']['kernel'].shape == (4, 4, 3, model.width)
  assert params['head']['kernel'].shape == (model.width, 10)


def _gelu(x):
  return x * jax.scipy.stats.norm.cdf(x)


def _mlp(x, block, name):
  return _dense(_gelu(_dense(x, block[f'{name}_in'])), block[f'{name}_out'])


def _layer_norm(x, p):
  x = x - x.mean(-1, keepdims=True)
  x = x * lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + 1e-6)
  return _affine(x, p)


def _affine(x, p):
  return _bias(x * p['scale'].reshape(1, 1, -1), p)


def _mixer(params, x):
  for p in _layers(params['hidden']):
    y = _layer_norm(x, p['token_norm']).mT
    x = x + _mlp(y, p, 'token').mT
    x = x + _mlp(_layer_norm(x, p['channel_norm']), p, 'channel')
  return _layer_norm(x, params['norm'])


def _resmlp(params, x):
  for p in _layers(params['hidden']):
    y = _dense(_affine(x, p['token_affine']).mT, p['token']).mT
    x = x + 0.1 * y * p['token_scale']['scale'].reshape(1, 1, -1)
    y = _mlp(_affine(x, p['channel_affine']), p, 'channel')
    x = x + 0.1 * y * p['channel_scale']['scale'].reshape(1, 1, -1)
  return _affine(x, params['affine'])


@pytest.mark.parametrize('model, body', [
    (mixer.MixerNano(5, 3, 6, 7, 8), _mixer), (mixer.ResMLP(5, 3, 6), _resmlp)])
def test_mixers_are_the_definition(model, body):
  params = _drawn(model, (8, 12, 3))['params']
  x = _images(2, 8, 12, 3)

  def reference(params, x):
    patches = jnp.stack([
        x[:, 4 * i:4 * i + 4, 4 * j:4 * j + 4].reshape(2, -1)
        for i in range(2) for j in range(3)], axis=1)
    stem = params['stem']
    x = _bias(patches @ stem['kernel'].reshape(-1, 6), stem)
    return _dense(body(params, x).mean(1), params['head'])

  # Flax's normalization mixes types.
  with jax.enable_x64(True), jax.numpy_dtype_promotion('standard'):
    params, x = _double((params, x))
    got = jax.jit(model.apply)({'params': params}, x)
    want = jax.jit(reference)(params, x)
  np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize('model', [mixer.MixerNano(10), mixer.ResMLP(10)])
def test_patches_have_to_divide_the_image(model):
  with pytest.raises(ValueError, match=r'30x33: patch=4 .* works is 32x32'):
    _variables(model, (30, 33, 3))


# ---- All of them.


@pytest.mark.parametrize('model', [
    vanilla_cnn.VanillaCNN(10, 4, 8), vgg.VGG16(10), mixer.MixerNano(10),
    vanilla_cnn.VanillaCNN(10, 4, 8, 'looks_linear', 'convs', True, 2),
    lipconvnet.LipConvNet(10, constrained=False), mixer.ResMLP(10),
    lipconvnet.LipConvNet(10, density=0.5)])
def test_bfloat16_computes_and_float32_keeps(model):
  model = model.clone(dtype=jnp.bfloat16)
  with jax.numpy_dtype_promotion('standard'):  # Flax's normalization mixes
    variables = _variables(model, (32, 32, 3))
    y = jax.eval_shape(model.apply, variables, jnp.zeros((2, 32, 32, 3)))
  assert (y.shape, y.dtype) == ((2, 10), jnp.bfloat16)
  assert {x.dtype for x in jax.tree.leaves(variables)} == {
      jnp.dtype(jnp.float32)}
