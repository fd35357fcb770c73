"""Whole networks: what is found in them, and what becomes of their kernels."""

import functools
import warnings

from flax import nnx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import structinit_jax as si
from structinit_jax.kmeans import objectives

pytestmark = pytest.mark.optimized

KEY = jax.random.key(0)
IMAGES = jax.random.normal(KEY, (24, 8, 8, 3)) + jnp.linspace(0, 2, 8)[
    None, :, None, None]
LAYERS = ('stem', 'body', 'mix')
fast = functools.partial(si.kmeans.joint, iterations=6, patches=512)


class Net(nn.Module):
  """Strides, groups, dilation, circular padding, a shortcut, a norm."""

  norm: bool = True
  use_bias: bool = True

  @nn.compact
  def __call__(self, x, train=False):
    x = nn.Conv(8, (3, 3), 2, use_bias=self.use_bias, name='stem')(x)
    if self.norm:
      x = nn.BatchNorm(use_running_average=not train, name='norm')(x)
    x = nn.relu(x)
    y = nn.Conv(8, (3, 2), padding='CIRCULAR', kernel_dilation=(1, 2),
                feature_group_count=2, use_bias=self.use_bias, name='body')(x)
    x = nn.relu(x + y)
    y = nn.Dense(6, use_bias=self.use_bias, name='mix')(x)
    return nn.Dense(4, use_bias=self.use_bias, name='head')(y.mean((1, 2)))


class NnxNet(nnx.Module):
  """The same in NNX."""

  def __init__(self, rngs):
    self.stem = nnx.Conv(3, 8, (3, 3), 2, rngs=rngs)
    self.norm = nnx.BatchNorm(8, use_running_average=True, rngs=rngs)
    self.body = nnx.Conv(8, 8, (3, 2), padding='CIRCULAR',
                         kernel_dilation=(1, 2), feature_group_count=2,
                         rngs=rngs)
    self.mix = nnx.Linear(8, 6, rngs=rngs)
    self.head = nnx.Linear(6, 4, rngs=rngs)

  def __call__(self, x):
    x = nnx.relu(self.norm(self.stem(x)))
    x = nnx.relu(x + self.body(x))
    return self.head(self.mix(x).mean((1, 2)))


def shapes_of(model, images=IMAGES):
  return jax.eval_shape(model.init, KEY, images)['params']


@functools.cache
def made(method='whitened'):
  options = {'steps': 3, 'batch_size': 8} if method == 'joint' else {}
  init_fn = fast(Net(), IMAGES, method=method, **options)
  return init_fn.init_with_aux(KEY, shapes_of(Net()))


def outputs(params, model=None):
  """Returns the outputs of every layer, batch statistics in use."""
  model = model or Net()
  _, state = model.apply(
      {'params': params}, IMAGES, train=True, mutable=True,
      capture_intermediates=True)
  return {name: np.asarray(state['intermediates'][name]['__call__'][0])
          for name in (*LAYERS, 'norm') if name in state['intermediates']}


@pytest.mark.parametrize('method', ['whitened', 'greedy', 'joint'])
def test_layers_get_filters_of_unit_variance(method):
  params, aux = made(method)
  assert [*aux['kmeans']] == ['body/kernel', 'mix/kernel', 'stem/kernel']
  every = outputs(params)
  for name in LAYERS:
    y = every[name]
    axes = tuple(range(y.ndim - 1))
    np.testing.assert_allclose(y.std(axes), 1, rtol=1e-3, err_msg=name)
    if method != 'joint':
      np.testing.assert_allclose(y.mean(axes), 0, atol=1e-4, err_msg=name)
  assert jax.tree.all(jax.tree.map(lambda m: m is True, aux['masks']))
  assert ('losses' in aux) == (method == 'joint')
  assert not any(s.duplicates for s in aux['kmeans'].values())


def test_the_rest_is_the_models_own():
  params, _ = made()
  own = Net().init(KEY, IMAGES)['params']
  for name in ('head', 'norm'):
    jax.tree.map(np.testing.assert_array_equal, params[name], own[name])


def test_a_batch_may_be_a_constant_of_a_jitted_function():
  x = jax.random.normal(KEY, (8, 20, 3))
  model = nn.Conv(6, (4,))
  params = model.init(KEY, x)['params']
  loss = functools.partial(si.kmeans.joint_loss, model, batch=x)
  np.testing.assert_allclose(jax.jit(loss)(params), loss(params), rtol=1e-6)
  with pytest.raises(ValueError, match='batch is not finite'):
    jax.jit(functools.partial(loss, batch=x.at[0].set(jnp.nan)))(params)


def test_causal_convolutions_see_what_came_before():
  x = jax.random.normal(KEY, (8, 20, 3))
  model = nn.Conv(6, (4,), None, 'CAUSAL', kernel_dilation=2)
  params = model.init(KEY, x)['params']
  (got,) = si.kmeans.layer_statistics(model, params, x, whiten=True).values()
  want = si.kmeans.statistics(
      params['kernel'], x, whiten=True, padding=[(6, 0)], dilation=2)
  np.testing.assert_allclose(got.score, want.score, rtol=1e-5)
  np.testing.assert_allclose(got.wins, want.wins)


def test_layers_see_what_they_will_see():
  """A layer's kernel is the clusters of its own inputs, not of others'."""
  params, aux = made()
  seen = {name: jnp.asarray(y) for name, y in outputs(params).items()}
  x = nn.relu(seen['norm'])
  window = {'padding': 'CIRCULAR', 'dilation': (1, 2), 'groups': 2}
  for name, inputs, options in (
      ('stem', IMAGES, {'strides': 2}), ('body', x, window),
      ('mix', nn.relu(x + seen['body']), {})):
    got = aux['kmeans'][f'{name}/kernel']
    want = si.kmeans.statistics(
        params[name]['kernel'], inputs, whiten=True, **options)
    np.testing.assert_allclose(got.score, want.score, rtol=1e-3)
    np.testing.assert_allclose(got.wins, want.wins, atol=3e-3)
    # They are clusters of those, so random filters score less.
    other = jax.random.normal(KEY, params[name]['kernel'].shape)
    assert got.score > 1.2 * si.kmeans.score(
        other, inputs, whiten=True, **options)
  every = si.kmeans.layer_statistics(Net(), params, IMAGES)
  assert [*every] == ['body/kernel', 'head/kernel', 'mix/kernel', 'stem/kernel']
  for name, stats in aux['kmeans'].items():
    np.testing.assert_allclose(every[name].score, stats.score, rtol=1e-4)


def test_joint_descends():
  init_fn = si.kmeans.joint(
      Net(), IMAGES, method='joint', steps=60, batch_size=24,
      learning_rate=0.01, penalty=1.)
  losses = init_fn.init_with_aux(KEY, shapes_of(Net()))[1]['losses']
  # On the whole batch: no noise.
  smooth = np.convolve(losses, np.ones(5) / 5, 'valid')
  assert (np.diff(smooth) <= 1e-3 * abs(losses[0])).all()
  assert losses[-1] < losses[0] - 0.1 * abs(losses[0])


def test_joint_starts_lower_from_k_means():
  def first(start):
    init_fn = fast(Net(), IMAGES, method='joint', steps=1, batch_size=24,
                   penalty=0., start=start)
    return float(init_fn.init_with_aux(
        KEY, shapes_of(Net()))[1]['losses'][0])

  assert first('greedy') < 1.1 * first('rest') < 0


def test_the_scale_of_inputs_is_no_matter():
  model, x = nn.Conv(6, (3, 3)), IMAGES
  near = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
  for scale in (2.0**-66, 2.0**66):
    for make in (fast, si.kmeans.lsuv):
      got, want = (make(model, images)(KEY, shapes_of(model))
                   for images in (scale * x, x))
      near(scale * got['kernel'], want['kernel'])
      near(got['bias'], want['bias'])
    got, want = (si.kmeans.clusters(images, iterations=6)(KEY, (3, 3, 3, 6))
                 for images in (scale * x, x))
    near(scale * got, want)
    for options in ({'whiten': True}, {'normalize': True}):
      jax.tree.map(near, si.kmeans.statistics(
          want / scale, scale * x, **options),
                   si.kmeans.statistics(want, x, **options))


def test_kept_norms():
  init_fn = fast(Net(), IMAGES, scale='kept')
  params = init_fn(KEY, shapes_of(Net()))
  own = Net().init(KEY, IMAGES)['params']
  for name in LAYERS:
    np.testing.assert_allclose(
        *(np.sqrt((np.asarray(p[name]['kernel'])**2).sum(
            tuple(range(p[name]['kernel'].ndim - 1)))) for p in (params, own)),
        rtol=1e-4)


def test_nnx_is_the_same_network():
  """From the same start, with the same key, the same kernels."""
  model = NnxNet(nnx.Rngs(0))
  shapes = jax.eval_shape(lambda: nnx.state(model, nnx.Param))
  init_fn = fast(model, IMAGES)
  params = init_fn(KEY, shapes)
  assert jax.tree.structure(params) == jax.tree.structure(shapes)
  want, _ = made()
  for name in LAYERS:
    np.testing.assert_allclose(
        params[name]['kernel'][...], want[name]['kernel'], atol=2e-3)
  nnx.update(model, params)  # it fits the model it was made for
  assert np.isfinite(model(IMAGES)).all()
  before = nnx.Conv.__call__
  assert before is nnx.Conv.__dict__['__call__']
  assert before.__qualname__ == 'Conv.__call__'  # patched for the run only


def test_jit_seeds_and_part_of_a_tree():
  shapes = shapes_of(Net())
  init_fn = fast(Net(), IMAGES)
  want, _ = made()
  got = jax.jit(functools.partial(init_fn, shapes=shapes))(KEY)
  jax.tree.map(functools.partial(
      np.testing.assert_allclose, atol=1e-4), got, want)
  assert jax.eval_shape(init_fn, KEY, shapes) == shapes
  other = init_fn(jax.random.key(1), shapes)
  assert not np.allclose(other['stem']['kernel'], want['stem']['kernel'])
  part = si.partition([('stem/kernel', init_fn), ('.*', si.zeros)])(KEY, shapes)
  np.testing.assert_allclose(
      part['stem']['kernel'], want['stem']['kernel'], atol=1e-4)
  assert not part['mix']['kernel'].any()


def test_rest_is_where_layers_come_from():
  rest = si.partition([
      ('.*scale', jax.nn.initializers.ones), ('.*bias', si.zeros),
      ('.*', jax.nn.initializers.orthogonal())])
  shapes = shapes_of(Net())
  params = fast(Net(), IMAGES, rest=rest, select='stem/.*')(KEY, shapes)
  want = rest(KEY, shapes)
  np.testing.assert_array_equal(params['mix']['kernel'], want['mix']['kernel'])
  assert not np.allclose(params['stem']['kernel'], want['stem']['kernel'])


@pytest.mark.parametrize('kind', ['Auto', 'Explicit'])
def test_over_devices(kind):
  mesh = jax.make_mesh(
      (8,), ('data',), axis_types=(getattr(jax.sharding.AxisType, kind),))
  images = jax.device_put(IMAGES, jax.sharding.NamedSharding(
      mesh, jax.sharding.PartitionSpec('data')))
  params = fast(Net(), images)(KEY, shapes_of(Net()))
  want, _ = made()
  jax.tree.map(functools.partial(
      np.testing.assert_allclose, atol=1e-3), params, want)


def test_inside_a_mesh_of_explicit_axes():
  """What comes out can be used there: it is on all devices of that mesh."""
  mesh = jax.make_mesh(
      (8,), ('data',), axis_types=(jax.sharding.AxisType.Explicit,))
  x = jax.random.normal(KEY, (64, 9))
  model = nn.Dense(8)
  shapes = shapes_of(model, x)

  def made_of(x):
    return fast(model, x, select='kernel')(KEY, shapes)

  def everything(x):
    params = made_of(x)
    return (
        params, si.kmeans.lsuv(model, x)(KEY, shapes),
        si.kmeans.clusters(x, iterations=4)(KEY, (9, 8)),
        si.kmeans.joint_loss(model, params, x, select='kernel'),
        si.kmeans.layer_statistics(model, params, x))

  want = jax.jit(lambda: everything(x))()
  with jax.set_mesh(mesh):
    divided = jax.device_put(x, jax.sharding.NamedSharding(mesh, jax.P('data')))
    got = jax.jit(lambda: everything(divided))()
    eager = made_of(divided)
    for leaf in jax.tree.leaves((got, eager)):
      assert leaf.sharding.mesh.axis_types == mesh.axis_types
    y = model.apply({'params': eager}, divided)
  assert y.sharding.spec[0] == 'data'
  near = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4)
  jax.tree.map(near, got, want)
  jax.tree.map(near, eager, want[0])


def test_without_biases_and_normalization():
  model = Net(norm=False, use_bias=False)
  params = fast(model, IMAGES)(KEY, shapes_of(model))
  for name, y in outputs(params, model).items():
    np.testing.assert_allclose(
        y.std(tuple(range(y.ndim - 1))), 1, rtol=1e-3, err_msg=name)


def test_lsuv():
  model = Net(norm=False)
  params = si.kmeans.lsuv(model, IMAGES)(KEY, shapes_of(model))
  for name, y in outputs(params, model).items():
    assert y.std() == pytest.approx(1, rel=1e-3)
    kernel = np.asarray(params[name]['kernel'])
    matrix = kernel.reshape(-1, kernel.shape[-1])
    gram = matrix.T @ matrix
    np.testing.assert_allclose(
        gram, gram[0, 0] * np.eye(len(gram)), atol=1e-4 * gram[0, 0])
  head = np.asarray(params['head']['kernel'])
  assert np.ptp(np.linalg.norm(head, axis=0)) < 1e-4 * np.linalg.norm(head)


def test_lsuv_needs_no_clusters():
  """One filter a group, and more filters than patches."""
  model = nn.Sequential([
      nn.Conv(6, (3, 3), feature_group_count=3), nn.Conv(1, (3, 3)),
      lambda x: x.mean((1, 2)), nn.Dense(40)])
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    init_fn = si.kmeans.lsuv(model, IMAGES)
  shapes = shapes_of(model)
  params = init_fn(KEY, shapes)
  y, state = model.apply(
      {'params': params}, IMAGES, capture_intermediates=True, mutable=True)
  assert y.std() == pytest.approx(1, rel=1e-3)
  for name in ('layers_0', 'layers_1'):
    y = state['intermediates'][name]['__call__'][0]
    assert y.std() == pytest.approx(1, rel=1e-3)
  wide = nn.Conv(60, (3, 3), feature_group_count=3)  # 9 rows, 20 a group
  kernel = si.kmeans.lsuv(wide, IMAGES)(KEY, shapes_of(wide))['kernel']
  rows = np.moveaxis(np.asarray(kernel).reshape(9, 3, 20), 1, 0)
  gram = rows @ rows.swapaxes(1, 2)
  np.testing.assert_allclose(
      gram, np.broadcast_to(gram[0, 0, 0] * np.eye(9), gram.shape),
      atol=1e-4 * gram[0, 0, 0])


def test_a_layer_without_variation_keeps_its_kernel():
  """Dead inputs: their mean is all there is."""
  class Dead(nn.Module):
    """The second layer sees zeros."""

    @nn.compact
    def __call__(self, x):
      x = nn.Conv(4, (3, 3), name='stem')(x)
      return nn.Conv(4, (1, 1), name='blind')(nn.relu(x) * 0)

  params = fast(Dead(), IMAGES)(KEY, shapes_of(Dead()))
  own = Dead().init(KEY, IMAGES)['params']
  for name in ('stem', 'blind'):
    assert np.isfinite(params[name]['kernel']).all()
  np.testing.assert_array_equal(
      params['blind']['kernel'], own['blind']['kernel'])


class Odd(nn.Module):
  """Layers that cannot be served, beside one that can."""

  @nn.compact
  def __call__(self, x):
    x = nn.Conv(6, (3, 3), name='stem')(x)
    x = nn.Conv(6, (3, 3), feature_group_count=6, name='depthwise')(x)
    x = nn.ConvTranspose(6, (2, 2), name='up')(x)
    x = nn.DenseGeneral((2, 3), name='general')(x)
    x = x.reshape(*x.shape[:3], 6)
    x = nn.remat(nn.Dense)(6, name='remat')(x)
    layers = nn.vmap(nn.Dense, in_axes=None, variable_axes={'params': 0},
                     split_rngs={'params': True}, axis_size=2)
    x = layers(6, name='stacked')(x).sum(0)
    return nn.Dense(4, name='head')(x)


def test_what_cannot_be_served_is_named():
  shapes = shapes_of(Odd())
  with pytest.warns(UserWarning, match='leaves as they are') as caught:
    init_fn = fast(Odd(), IMAGES)
  message = str(caught[0].message)
  for reason in ('depthwise/kernel (it has one filter a group',
                 'up/kernel (a ConvTranspose is no Conv or Dense)',
                 'general/kernel (a DenseGeneral is no Conv or Dense)',
                 'stacked/kernel (its kernel is stacked by a scan or a vmap'):
    assert reason in message
  params, aux = init_fn.init_with_aux(KEY, shapes)
  assert 'stem/kernel' in aux['kmeans']
  own = Odd().init(KEY, IMAGES)['params']
  np.testing.assert_array_equal(params['up']['kernel'], own['up']['kernel'])
  with pytest.raises(ValueError, match="asks for leaf 'up/kernel' of shape"):
    fast(Odd(), IMAGES, select='up/.*')
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    fast(Odd(), IMAGES, select='stem/kernel')


class Recurrent(nn.Module):
  """Layers that share their parameters over time, or over a batch of maps."""

  kind: str

  @nn.compact
  def __call__(self, x):
    x = nn.Dense(8, name='stem')(x)
    if self.kind == 'rnn':
      x = nn.RNN(nn.SimpleCell(8), name='shared')(x)
    elif self.kind == 'scan':
      x, _ = nn.scan(
          lambda layer, x, _: (layer(x), None), variable_broadcast='params',
          split_rngs={'params': False}, length=3)(
              nn.Dense(8, name='shared'), x, None)
    else:
      x = nn.vmap(nn.Dense, variable_axes={'params': None},
                  split_rngs={'params': False})(8, name='shared')(x)
    return nn.Dense(4, name='head')(nn.relu(x))


@pytest.mark.parametrize('kind', ['rnn', 'scan', 'vmap'])
@pytest.mark.parametrize('make', [fast, si.kmeans.lsuv])
def test_layers_that_share_parameters_are_named(kind, make):
  model, x = Recurrent(kind), IMAGES[:, 0]
  shapes = shapes_of(model, x)
  with pytest.warns(UserWarning, match='/kernel .a transf.* shares its param'):
    init_fn = make(model, x)
  params, aux = init_fn.init_with_aux(KEY, shapes)
  assert 'stem/kernel' in aux['kmeans']
  y = nn.Dense(8).apply({'params': params['stem']}, x)
  assert y.std() == pytest.approx(1, rel=0.01)
  shared, = {*params} - {'stem', 'head'}
  own = model.init(KEY, x)['params'][shared]
  jax.tree.map(np.testing.assert_array_equal, params[shared], own)
  with pytest.raises(ValueError, match='shares its parameters'):
    make(model, x, select=f'{shared}/.*kernel')


def test_weights_of_other_names_are_named():
  class Other(nn.Module):
    """A weight of its own, and a layer that stores blocks."""

    @nn.compact
    def __call__(self, x):
      x = nn.relu(nn.Dense(6, name='stem')(x))
      x = x @ self.param('w', nn.initializers.lecun_normal(), (6, 8))
      x = si.layers.SAODense(8, degree=2, name='sparse')(x)
      return nn.Dense(3, name='head')(x)

  x = IMAGES[:, 0]
  with pytest.warns(UserWarning, match='leaves as they are') as caught:
    fast(Other(), x)
  names = {*si.leaf_names(shapes_of(Other(), x))} - {
      f'{layer}/{leaf}' for layer in ('stem', 'sparse', 'head')
      for leaf in ('kernel', 'bias')}
  assert 'w' in names
  for name in names:
    assert f'{name} (it is no kernel of a conv' in str(caught[0].message)
  with pytest.raises(ValueError, match=r"leaf 'w' of shape \(6, 8\)"):
    fast(Other(), x, select='w')


def test_windows_of_one_number_are_refused():
  model = nn.Sequential([nn.Conv(8, (1, 1)), nn.relu, nn.Conv(8, (3, 3))])
  gray = IMAGES[..., :1]
  with pytest.warns(UserWarning, match='layers_0/kernel .its window sees one'):
    init_fn = fast(model, gray)
  assert [*init_fn.init_with_aux(KEY, shapes_of(model, gray))[1]['kmeans']] == [
      'layers_2/kernel']
  with pytest.raises(ValueError, match='sees one number at a time'):
    si.kmeans.clusters(gray)(KEY, (1, 1, 1, 8))


def test_clusters_of_a_group_that_does_not_vary_are_drawn():
  x = IMAGES[..., :2].at[..., 1].set(3.)
  kernel = si.kmeans.clusters(x, groups=2)(KEY, (3, 3, 1, 8))
  assert np.isfinite(kernel).all()
  lengths = np.linalg.norm(np.asarray(kernel).reshape(9, 8), axis=0)
  assert (lengths > 0.1).all()
  z = jnp.zeros((64, 8)).at[:10, 0].set(1).at[:5, 1].set(2)
  raw = si.kmeans.clusters(z, whiten=False)(KEY, (8, 16))
  assert (np.linalg.norm(raw, axis=0) > 0.1).all()


@pytest.mark.parametrize('norm', [
    lambda layer: nn.SpectralNorm(layer), lambda layer: nn.WeightNorm(layer)])
def test_layers_whose_kernel_is_made_of_theirs_are_named(norm):
  class Normed(nn.Module):
    """What the layer applies is not its leaf."""

    @nn.compact
    def __call__(self, x):
      x = nn.Conv(4, (3, 3), name='stem')(x)
      normed, layer = norm(nn.Dense(8, name='inner')), {}
      if isinstance(normed, nn.SpectralNorm):
        layer['update_stats'] = False
      return nn.Dense(4, name='head')(normed(x, **layer))

  with pytest.warns(UserWarning, match='Norm is around it'):
    init_fn = fast(Normed(), IMAGES)
  aux = init_fn.init_with_aux(KEY, shapes_of(Normed()))[1]
  assert [*aux['kmeans']] == ['stem/kernel']


def test_nnx_normalizes_by_the_batch_whatever_the_mode():
  class Mode(nnx.Module):
    """Tells its norm which statistics to use."""

    def __init__(self, rngs, average):
      self.first = nnx.Conv(3, 4, (3, 3), rngs=rngs)
      self.norm = nnx.BatchNorm(4, use_running_average=average, rngs=rngs)
      self.last = nnx.Conv(4, 4, (3, 3), rngs=rngs)

    def __call__(self, x, second=None, **named):
      x = self.norm(self.first(x), *([] if second is None else [second]),
                    **named)
      return self.last(nnx.relu(x))

  losses = []
  for average in (True, False):
    model = Mode(nnx.Rngs(0), average)
    params = nnx.state(model, nnx.Param)
    losses += [
        float(si.kmeans.joint_loss(model, params, IMAGES, arguments=arguments))
        for arguments in ({}, {'use_running_average': True},
                          {'use_running_average': False}, {'second': True})]
    assert model.norm.use_running_average == average
  x = nnx.relu(model.norm(model.first(IMAGES), use_running_average=False))
  layers = {'first': IMAGES, 'last': x}
  want = sum(
      100 * si.kmeans.cosine_penalty(params[name]['kernel'][...])
      - objectives.total(si.kmeans.scores(params[name]['kernel'][...], inputs))
      for name, inputs in layers.items())
  np.testing.assert_allclose(losses, float(want), rtol=1e-5)


def test_gated_layers_are_served():
  class Gated(nn.Module):
    """The kernel of a gated layer is that of a convolution inside."""

    @nn.compact
    def __call__(self, x):
      x = si.layers.GatedConv(4, (3, 3), name='stem')(x)
      return si.layers.GatedDense(4, name='head')(x)

  with warnings.catch_warnings():
    warnings.simplefilter('error')
    init_fn = fast(Gated(), IMAGES, select='(stem|head)/kernel')
  params, aux = init_fn.init_with_aux(KEY, shapes_of(Gated()))
  assert [*aux['kmeans']] == ['head/kernel', 'stem/kernel']
  assert aux['kmeans']['stem/kernel'].wins.shape == (12,)
  y = nn.Conv(12, (3, 3)).apply({'params': params['stem']}, IMAGES)
  np.testing.assert_allclose(y.std((0, 1, 2)), 1, rtol=1e-3)


def test_layers_of_nnx_that_are_not_met_are_named():
  class Inside(nnx.Module):
    """A layer inside a transformation is another object there."""

    def __init__(self, rngs):
      self.first = nnx.Conv(3, 4, (3, 3), rngs=rngs)
      self.last = nnx.Conv(4, 4, (3, 3), rngs=rngs)

    def __call__(self, x):
      return self.last(nnx.remat(lambda layer, x: layer(x))(self.first, x))

  with pytest.warns(UserWarning, match='first/kernel .no call of it is met'):
    fast(Inside(nnx.Rngs(0)), IMAGES)


def test_names_with_slashes_and_other_streams():
  class Normed(nn.Module):
    """Flax calls the scale of a weight norm 'layer_instance/kernel/scale'."""

    @nn.compact
    def __call__(self, x):
      x = x + 0 * jax.random.normal(self.make_rng('noise'), x.shape)
      x = nn.WeightNorm(nn.Conv(4, (3, 3), name='inner'))(x)
      return nn.Conv(4, (3, 3), name='outer')(x)

  init_fn = fast(Normed(), IMAGES, select='outer/.*', patches=1)
  aux = init_fn.init_with_aux(KEY, shapes_of(Normed()))[1]
  assert [*aux['kmeans']] == ['outer/kernel']


@pytest.mark.parametrize('batch, message', [
    (IMAGES.at[3, 1, 2, 0].set(jnp.nan), r'example 3 has a NaN or inf at '
     r'\(1, 2, 0\)'),
    (jnp.ones((4, 8, 8, 3)), 'is constant'),
    (jnp.ones((4, 8, 8, 3), jnp.uint8), 'floating-point inputs'),
    (jnp.ones(8), 'floating-point inputs'),
    (IMAGES[:0], 'floating-point inputs'), ('images', 'no array')])
def test_batches_that_are_refused(batch, message):
  for call in (lambda: si.kmeans.joint(Net(), batch),
               lambda: si.kmeans.lsuv(Net(), batch),
               lambda: si.kmeans.clusters(batch),
               lambda: si.kmeans.layer_statistics(Net(), {}, batch)):
    with pytest.raises(ValueError, match=message):
      call()


def test_fewer_patches_than_filters():
  model = nn.Sequential([nn.Dense(32), nn.relu, nn.Dense(4), nn.relu,
                         nn.Dense(4)])
  x = IMAGES[:, 0, 0]
  with pytest.warns(UserWarning, match=(
      'layers_0/kernel .24 patches of 24 examples are fewer than its 32 '
      'filters; at least 32 examples would do')):
    fast(model, x)
  with pytest.raises(ValueError, match='at least 32 examples would do'):
    fast(model, x, select='layers_0/kernel')
  with pytest.raises(ValueError, match='at most 24 would do'):
    si.kmeans.clusters(x)(KEY, (3, 32))
  with pytest.raises(ValueError, match='has 1 filters a group'):
    si.kmeans.clusters(IMAGES, groups=3)(KEY, (3, 3, 1, 3))
  assert si.kmeans.clusters(x, whiten=False)(KEY, (3, 1)).std() > 0


@pytest.mark.parametrize('options, message', [
    ({'method': 'lloyd'}, 'whitened, greedy, joint'),
    ({'scale': 2}, 'variance, kept'),
    ({'start': 'zeros'}, "'rest' or 'greedy'"),
    ({'kind': 'cubic'}, 'squared, exponential'),
    ({'patches': 0}, 'patches=0'),
    ({'iterations': 0}, 'iterations=0'),
    ({'ridge': 0}, 'ridge=0'),
    ({'temperature': -1}, 'temperature=-1'),
    ({'steps': 5}, "steps=5 is an option of method='joint'; 'whitened' has"),
    ({'method': 'greedy', 'start': 'greedy'}, "'greedy' has no use for it"),
    ({'method': 'joint', 'batch_size': 25}, 'batch_size=25'),
    ({'method': 'joint', 'steps': -1}, 'steps=-1'),
    ({'method': 'joint', 'penalty': -1}, 'penalty=-1'),
    ({'method': 'joint', 'learning_rate': 0}, 'learning_rate=0'),
    ({'select': '('}, 'not a regular expression'),
    ({'select': 3}, 'not a regular expression'),
    ({'select': 'tail/.*'}, 'no layer to serve')])
def test_options_that_are_refused(options, message):
  with pytest.raises(ValueError, match=message):
    si.kmeans.joint(Net(), IMAGES, **options)


def test_models_and_leaves_that_are_refused():
  with pytest.raises(ValueError, match='must be a flax'):
    si.kmeans.joint(lambda x: x, IMAGES)
  init_fn = fast(Net(), IMAGES)
  with pytest.raises(ValueError, match="'tail' are none of the model"):
    init_fn(KEY, {'tail': jax.ShapeDtypeStruct((2,), jnp.float32)})
  with pytest.raises(ValueError, match='expected float32'):
    init_fn(KEY, {'stem': {'kernel': jax.ShapeDtypeStruct((3,), jnp.float32)}})
  with pytest.raises(ValueError, match='is asked for in int32'):
    init_fn(KEY, {'stem': {'kernel': jax.ShapeDtypeStruct(
        (3, 3, 3, 8), jnp.int32)}})
  params = Net().init(KEY, IMAGES)['params']
  params['stem']['kernel'] = params['stem']['kernel'][..., :4]
  with pytest.raises(ValueError, match=r"'stem/kernel' has shape \(3, 3, 3, 4"):
    si.kmeans.joint_loss(Net(), params, IMAGES)
  with pytest.raises(ValueError, match='has to be asked for by select'):
    si.kmeans.joint(nn.Dense(4), IMAGES)
  single = fast(Net(), IMAGES, rest=jax.nn.initializers.he_normal())
  with pytest.raises(ValueError, match='for one Initializer of all leaves'):
    single(KEY, shapes_of(Net()))
  with pytest.raises(ValueError, match='not of both'):
    si.kmeans.layer_statistics(Net(), {'tail': jnp.ones(2)}, IMAGES)
  for rest in (3, si.grassmann.packing()):
    with pytest.raises(ValueError, match='must be an InitFn'):
      si.kmeans.joint(Net(), IMAGES, rest=rest)
  other = si.kmeans.joint(
      Net(), IMAGES, rest=lambda key, shapes: {'tail': jnp.ones(2)})
  with pytest.raises(ValueError, match='rest made the leaves tail, and those'):
    other(KEY, {'stem': {'kernel': jax.ShapeDtypeStruct((3,), jnp.float32)}})


class Choosy(nn.Module):
  """Its call has to be told whether it trains."""

  @nn.compact
  def __call__(self, x, train):
    return nn.Conv(4, (3, 3))(x) if train else x


class ChoosyNNX(nnx.Module):
  """The same."""

  def __init__(self):
    self.conv = nnx.Conv(3, 4, (3, 3), rngs=nnx.Rngs(0))

  def __call__(self, x, train):
    return self.conv(x) if train else x


@pytest.mark.parametrize('model', [Choosy(), ChoosyNNX()])
@pytest.mark.parametrize('arguments, batch, message', [
    (None, IMAGES, 'arguments={}: .*train'),
    ({'training': True}, IMAGES, "'training'"),
    (['train'], IMAGES, r"arguments=\['train'\] must be the keyword"),
    ({'train': True}, IMAGES[:, 0, 0], r'batch of shape \(24, 3\)')])
def test_calls_that_fail_are_told_of(model, arguments, batch, message):
  si.kmeans.joint(model, IMAGES, arguments={'train': True}, select='.*')
  with pytest.raises(ValueError, match=message):
    si.kmeans.joint(model, batch, arguments=arguments)
