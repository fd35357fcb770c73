"""Products and convolutions with values are those with the masked kernel."""

import itertools
import math
import re

import jax
from jax import lax
import jax.numpy as jnp
from jax.sharding import AxisType
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec
import numpy as np
import pytest

from structinit_jax import sao
from structinit_jax.sao import compute

KEY = jax.random.key(8)
BLOCKS = ['debruijn', 'random', 'thesis']
SIZES = [  # equal splits, unequal ones of either or both sides, extremes
    (12, 8, 4), (14, 9, 3), (11, 13, 4), (7, 13, 7), (5, 5, 1), (1, 6, 1),
    (6, 1, 1), (6, 6, 6)]
CASES = [(kind, *size) for kind, size in itertools.product(BLOCKS, SIZES)] + [
    ('weighing', 7, 14, 7), ('weighing', 26, 13, 13), ('weighing', 98, 49, 49)]


def draw(topology, spatial=(), seed=0, dtype=np.float64):
  rng = np.random.default_rng(seed)
  return tuple(rng.standard_normal((*spatial, *group)).astype(dtype)
               for group in topology.groups)


def kernel_of(values, topology):
  """The dense kernel, entry by entry."""
  kernel = np.zeros((*values[0].shape[:-3], *topology.shape), values[0].dtype)
  for x, (rows, columns) in zip(values, topology.coordinates(), strict=True):
    for p, r, q in np.ndindex(x.shape[-3:]):
      kernel[..., rows[p, r], columns[p, q]] = x[..., p, r, q]
  return kernel


def pulled(fn, topology):
  """Returns `(x, values, t) -> (y, x_bar, kernel_bar)`, compiled."""
  def call(x, values, t):
    y, pull = jax.vjp(fn, x, values)
    x_bar, values_bar = pull(t)
    return y, x_bar, sao.to_dense(values_bar, topology)
  return jax.jit(call)


@pytest.mark.parametrize('kind, n, m, b', CASES)
def test_matmul_and_its_gradients_are_those_of_the_masked_kernel(
    make, kind, n, m, b):
  topology = make((n, m), b, kind)
  values = draw(topology)
  rng = np.random.default_rng(1)
  x, t = rng.standard_normal((5, n)), rng.standard_normal((5, m))
  kernel = kernel_of(values, topology)
  with jax.enable_x64(True):
    y, x_bar, kernel_bar = pulled(
        lambda x, v: compute.matmul(x, v, topology), topology)(x, values, t)
  np.testing.assert_allclose(y, x @ kernel, rtol=1e-12, atol=1e-12)
  np.testing.assert_allclose(x_bar, t @ kernel.T, rtol=1e-12, atol=1e-12)
  np.testing.assert_allclose(
      kernel_bar, np.where(topology.mask, x.T @ t, 0), rtol=1e-12, atol=1e-12)


def test_random_sizes(make, random_sizes):
  for i, (n, m, b) in enumerate(random_sizes(18, 40)):
    topology = make((n, m), b, BLOCKS[i % 3], i)
    values = draw(topology, seed=i)
    x = np.random.default_rng(i).standard_normal((n, 3))
    with jax.enable_x64(True):
      y = jax.jit(lambda x, v, topology=topology: compute.matmul(
          x, v, topology, axis=0))(x, values)
    np.testing.assert_allclose(
        y, kernel_of(values, topology).T @ x, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize('kind, n, m, b', [
    ('debruijn', 64, 48, 16), ('random', 50, 64, 7), ('weighing', 14, 28, 7)])
def test_rounding_and_dtype(make, kind, n, m, b, dtype):
  """Forward and backward within the error of a sum of so many products."""
  topology = make((n, m), b, kind)
  exact = draw(topology)
  values = tuple(jnp.asarray(v, dtype) for v in exact)
  rng = np.random.default_rng(2)
  x, t = (jnp.asarray(rng.standard_normal((9, k)), dtype) for k in (n, m))
  y, pull = jax.vjp(jax.jit(lambda x, v: compute.matmul(
      x, v, topology, precision='highest')), x, values)
  x_bar, values_bar = pull(t)
  assert {a.dtype for a in (y, x_bar, *values_bar)} == {jnp.dtype(dtype)}
  x, t = np.asarray(x, np.float64), np.asarray(t, np.float64)
  kernel = kernel_of([np.asarray(v, np.float64) for v in values], topology)
  kernel_bar = np.asarray(sao.to_dense(values_bar, topology), np.float64)
  eps = float(jnp.finfo(dtype).eps)
  for got, a, b, mask in (
      (y, x, kernel, True), (x_bar, t, kernel.T, True),
      (kernel_bar, x.T, t, np.asarray(topology.mask))):
    terms = max(np.count_nonzero(b, axis=0).max(), 1)
    error = np.abs(np.asarray(got, np.float64) - np.where(mask, a @ b, 0))
    assert (error <= eps * (terms + 1) * (np.abs(a) @ np.abs(b))).all()


def test_batches_and_axes(make):
  topology = make((10, 6), 3, 'random')
  values = draw(topology, dtype=np.float32)
  kernel = kernel_of(values, topology)
  x = np.random.default_rng(0).standard_normal((2, 3, 10)).astype(np.float32)
  want = x @ kernel
  for axis in (-1, 0, 1, 2):
    y = compute.matmul(np.moveaxis(x, -1, axis), values, topology, axis=axis)
    np.testing.assert_allclose(np.moveaxis(y, axis, -1), want, rtol=1e-5,
                               atol=1e-5)
  np.testing.assert_allclose(
      compute.matmul(x[0, 0], values, topology), want[0, 0], rtol=1e-5,
      atol=1e-5)
  assert compute.matmul(x[:0], values, topology).shape == (0, 3, 6)
  assert compute.matmul(x[:0], values, make((10, 6), 3)).shape == (0, 3, 6)
  topology = make((7, 7), 7, 'weighing')
  assert compute.matmul(
      np.zeros((0, 7), np.float32), draw(topology, dtype=np.float32), topology
  ).shape == (0, 7)


@pytest.mark.parametrize('kind', [*BLOCKS, 'weighing'])
def test_transformations(make, kind):
  """Vmap over either argument, scan, forward mode, and second derivatives."""
  topology = make((14, 14), 7 if kind == 'weighing' else 4, kind)
  values = [draw(topology, seed=i) for i in range(3)]
  stacked = tuple(np.stack(v) for v in zip(*values, strict=True))
  kernels = np.stack([kernel_of(v, topology) for v in values])
  x = np.random.default_rng(0).standard_normal((3, 2, 14))
  close = {'rtol': 1e-12, 'atol': 1e-12}
  layer = jax.jit(lambda x, v: compute.matmul(x, v, topology))

  with jax.enable_x64(True):
    np.testing.assert_allclose(
        jax.vmap(layer)(x, stacked), x @ kernels, **close)
    np.testing.assert_allclose(
        jax.vmap(layer, in_axes=(None, 0))(x[0], stacked), x[0] @ kernels,
        **close)
    np.testing.assert_allclose(
        jax.vmap(jax.grad(lambda x, v: layer(x, v).sum(), argnums=1))(
            x, stacked)[0],
        np.stack([sao.from_dense(x[i].sum(0)[:, None] * np.ones(14), topology
                                 )[0] for i in range(3)]), **close)
    scanned = jax.jit(lambda x, v: lax.scan(
        lambda h, v: (layer(h, v), None), x, v)[0])
    np.testing.assert_allclose(
        scanned(x[0], stacked), x[0] @ kernels[0] @ kernels[1] @ kernels[2],
        **close)
    np.testing.assert_allclose(
        jax.jacfwd(layer)(x[0, 0], values[0]), kernels[0].T, **close)
    _, tangent = jax.jvp(layer, (x[0], values[0]), (x[1], values[1]))
    np.testing.assert_allclose(
        tangent, x[1] @ kernels[0] + x[0] @ kernels[1], **close)
    hessian = jax.hessian(
        lambda x: jnp.sum(layer(x, values[0])**2))(x[0, 0])
    np.testing.assert_allclose(
        hessian, 2 * kernels[0] @ kernels[0].T, **close)


@pytest.mark.parametrize('shape, blocks', [
    ((2**20, 2**20), 2**18), ((10**6, 10**6 + 1), 3 * 10**5)])
def test_a_million_units_need_no_index(shape, blocks):
  """Neither forward nor backward: no constants, no gather, no scatter."""
  topology = sao.Topology(shape, blocks)
  values = tuple(jax.ShapeDtypeStruct(g, jnp.float32) for g in topology.groups)
  x = jax.ShapeDtypeStruct((2, shape[0]), jnp.float32)
  jaxpr = jax.make_jaxpr(jax.value_and_grad(
      lambda x, v: compute.matmul(x, v, topology).sum(), argnums=(0, 1)))(
          x, values)
  assert sum(np.size(c) for c in jaxpr.consts) == 0
  assert not {'gather', 'scatter'} & set(re.findall('[a-z]+', str(jaxpr)))


def test_products_that_are_refused(make):
  topology = make((10, 6), 3)
  values = draw(topology)
  with pytest.raises(ValueError, match=r'\(4, 9\): axis -1 has 9 features.*10'):
    compute.matmul(np.zeros((4, 9)), values, topology)
  with pytest.raises(ValueError, match='axis 0 has 4 features'):
    compute.matmul(np.zeros((4, 10)), values, topology, axis=0)
  with pytest.raises(ValueError, match=r'\(4, 10\) has no axis 2'):
    compute.matmul(np.zeros((4, 10)), values, topology, axis=2)
  for wrong in (values, (), draw(topology, (0, 3))):
    with pytest.raises(ValueError, match=r'have no taps: .* use matmul'):
      compute.conv(np.zeros((2, 4, 4, 10)), wrong, topology)
  for wrong in (values[:1], draw(topology, (3,)), draw(make((10, 6), 2))):
    with pytest.raises(ValueError, match=r'0 spatial axes, and then \(\(1, 4'):
      compute.matmul(np.zeros((4, 10)), wrong, topology)


def dense_conv(x, kernel, strides, padding, dilation):
  ndim = kernel.ndim - 2
  if padding == 'CIRCULAR':
    windows = [(k - 1) * d + 1
               for k, d in zip(kernel.shape, dilation, strict=False)]
    x = jnp.pad(x, [(0, 0), *(((w - 1) // 2, w // 2) for w in windows),
                    (0, 0)], mode='wrap')
    padding = 'VALID'
  axes = 'DHW'[-ndim:]
  return lax.conv_general_dilated(
      x, kernel, strides, padding, rhs_dilation=dilation,
      dimension_numbers=(f'N{axes}C', f'{axes}IO', f'N{axes}C'))


CONVS = [  # image, kernel, strides, padding, dilation
    ((7,), (3,), (1,), 'SAME', (1,)),
    ((9,), (4,), (2,), 'CIRCULAR', (2,)),
    ((6, 5), (3, 3), (1, 1), 'SAME', (1, 1)),
    ((6, 5), (1, 1), (1, 1), 'SAME', (1, 1)),
    ((6, 5), (1, 1), (2, 3), 'VALID', (1, 1)),
    ((8, 7), (3, 2), (2, 1), 'SAME', (1, 2)),
    ((8, 7), (2, 4), (1, 3), 'VALID', (2, 1)),
    ((6, 9), (3, 3), (1, 1), 'CIRCULAR', (2, 3)),
    ((6, 5), (3, 3), (2, 2), [(2, 0), (1, 3)], (1, 1)),
    ((4, 3, 5), (2, 3, 1), (1, 2, 1), 'SAME', (1, 1, 1))]


@pytest.mark.parametrize('image, kernel, strides, padding, dilation', CONVS)
def test_conv_and_its_gradients_are_those_of_the_masked_kernel(
    make, image, kernel, strides, padding, dilation):
  rng = np.random.default_rng(0)
  x = rng.standard_normal((4, *image, 7))
  for kind, m, b in [('debruijn', 5, 3), ('thesis', 9, 4), ('weighing', 14, 7)]:
    topology = make((7, m), b, kind)
    values = draw(topology, kernel)
    with jax.enable_x64(True):
      dense = jnp.asarray(kernel_of(values, topology))
      want, pull = jax.vjp(jax.jit(lambda x, k: dense_conv(
          x, k, strides, padding, dilation)), x, dense)
      t = jnp.asarray(rng.standard_normal(want.shape))
      x_bar, kernel_bar = pull(t)
      found = pulled(lambda x, v, topology=topology: compute.conv(
          x, v, topology, strides=strides, padding=padding, dilation=dilation),
          topology)(x, values, t)
    for got, expected in zip(found, (
        want, x_bar, np.where(topology.mask, kernel_bar, 0)), strict=True):
      np.testing.assert_allclose(got, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize('size, limit', [(6, 1), (6, 3000), (7, 3000), (1, 1)])
def test_some_images_or_blocks_at_a_time(make, monkeypatch, size, limit):
  topology = make((6, 8), 3, 'random')
  values = draw(topology, (3, 3), dtype=np.float32)
  x = np.random.default_rng(0).standard_normal((size, 4, 4, 6))
  x = x.astype(np.float32)
  fn = jax.value_and_grad(
      lambda x, v: jnp.sum(compute.conv(x, v, topology)**2), argnums=(0, 1))
  want = fn(x, values)
  monkeypatch.setitem(compute._COPY_BYTES, jax.default_backend(), limit)
  assert size % compute._chunk(size, 100) == 0
  assert 'scan' in str(jax.make_jaxpr(fn)(x, values))
  jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5),
      fn(x, values), want)


@pytest.mark.parametrize('limit', [1, 3000, 2**22])
@pytest.mark.parametrize('kind', ['debruijn', 'random', 'weighing'])
def test_a_bias_is_that_of_broadcasting(make, monkeypatch, kind, limit):
  monkeypatch.setitem(compute._COPY_BYTES, jax.default_backend(), limit)
  topology = make((7, 14), 7, kind)
  values = draw(topology, (3, 3))
  rng = np.random.default_rng(0)
  x, bias = rng.standard_normal((6, 4, 4, 7)), rng.standard_normal(14)
  t = rng.standard_normal((6, 4, 4, 14))

  def one(x, values, bias):
    return compute.conv(x, values, topology, bias=bias)

  def two(x, values, bias):
    return compute.conv(x, values, topology) + bias[None, None, None]

  with jax.enable_x64(True):
    got, want = (
        (y, pull(jnp.asarray(t))) for y, pull in (
            jax.vjp(fn, x, values, bias) for fn in (one, two)))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(
      a, b, rtol=1e-12, atol=1e-12), got, want)


def test_gradients_of_few_bits_lose_none_over_many_images(make, monkeypatch):
  monkeypatch.setitem(compute._COPY_BYTES, jax.default_backend(), 1)
  topology = make((6, 8), 3)
  rng = np.random.default_rng(0)
  exact = {'x': rng.uniform(size=(512, 3, 3, 6)),
           'values': draw(topology, (3, 3)), 'bias': rng.uniform(size=8)}
  t = rng.uniform(size=(512, 3, 3, 8))
  half, t = jax.tree.map(
      lambda a: jnp.asarray(a, jnp.bfloat16), (exact, t))

  def gradients(dtype):
    primals, cotangent = jax.tree.map(lambda a: a.astype(dtype), (half, t))
    return jax.vjp(lambda p: compute.conv(
        p['x'], p['values'], topology, bias=p['bias']), primals)[1](cotangent)

  got, want = gradients(jnp.bfloat16), gradients(jnp.float32)
  assert {a.dtype.name for a in jax.tree.leaves(got)} == {'bfloat16'}
  for name in ('values', 'bias'):  # sums over images; positive, so none cancel
    jax.tree.map(lambda a, b: np.testing.assert_allclose(
        a.astype(jnp.float32), b, rtol=0.01), got[0][name], want[0][name])


@pytest.mark.parametrize('strides', [1, 2])
@pytest.mark.parametrize('limit', [2**22, 2**13])
def test_every_device_convolves_its_own_images(
    make, monkeypatch, strides, limit):
  """Images, kernel gradients but for one sum, also a few images at a time."""
  monkeypatch.setitem(compute._COPY_BYTES, jax.default_backend(), limit)
  topology = make((6, 8), 3, 'random')
  values = draw(topology, (3, 3), dtype=np.float32)
  mesh = jax.make_mesh((8,), ('data',), axis_types=(AxisType.Auto,))
  x = jax.random.normal(KEY, (64, 4, 4, 6))
  fn = jax.jit(jax.value_and_grad(
      lambda v, x: jnp.sum(compute.conv(x, v, topology, strides=strides)**2),
      argnums=(0, 1)))
  want = fn(values, x)
  assert ('scan' in str(jax.make_jaxpr(fn)(values, x))) == (limit < 2**22)
  sharded = jax.device_put(x, NamedSharding(mesh, PartitionSpec('data')))
  program = fn.lower(values, sharded).compile()
  assert 'all-gather' not in program.as_text()
  assert 'all-to-all' not in program.as_text()
  _, (_, x_bar) = got = program(values, sharded)
  assert x_bar.sharding.spec[0] == 'data'
  jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-4),
      got, want)


def test_one_device_merges_what_others_keep_apart(make, monkeypatch):
  topology = make((6, 8), 3, 'random')
  values = draw(topology, (3, 3), dtype=np.float32)
  x = jax.random.normal(KEY, (3, 4, 5, 6))
  want = compute.conv(x, values, topology)
  monkeypatch.setattr(jax, 'device_count', lambda: 1)
  np.testing.assert_allclose(
      compute.conv(x, values, topology), want, rtol=1e-6, atol=1e-6)


def test_whole_numbers_are_promoted_and_have_no_gradient(make):
  topology = make((6, 4), 2)
  with jax.numpy_dtype_promotion('standard'):
    for fn, x, spatial in ((compute.matmul, jnp.arange(30).reshape(5, 6), ()),
                           (compute.conv, jnp.arange(96).reshape(4, 4, 6),
                            (3, 3))):
      values = draw(topology, spatial, dtype=np.float32)

      def loss(values, x, fn=fn):
        return jnp.sum(fn(x, values, topology)**2)

      jax.tree.map(
          np.testing.assert_array_equal, jax.grad(loss)(values, x),
          jax.grad(loss)(values, x.astype(jnp.float32)))


@pytest.mark.parametrize('strides', [1, 2])
def test_negative_padding_cuts(make, strides):
  """Not against XLA's convolution: on CPU it is wrong for such pads."""
  topology = make((6, 4), 2)
  values = draw(topology, (3, 3), dtype=np.float32)
  x = np.random.default_rng(0).standard_normal((2, 7, 8, 6), np.float32)
  want = compute.conv(
      x[:, 1:, :-2], values, topology, strides=strides,
      padding=((0, 1), (2, 0)))
  got = compute.conv(
      x, values, topology, strides=strides, padding=((-1, 1), (2, -2)))
  np.testing.assert_array_equal(got, want)
  # Of an image without columns there are the padded zeros.
  y = compute.conv(x[:, :, :0], values, topology, padding=((1, 1), (2, 2)))
  np.testing.assert_array_equal(y, np.zeros((2, 7, 2, 4)))


def test_batches_and_transformations_of_conv(make):
  topology = make((6, 4), 2)
  values = draw(topology, (3, 3))
  x = np.random.default_rng(0).standard_normal((2, 3, 5, 5, 6))
  layer = jax.jit(lambda x, v: compute.conv(x, v, topology))

  with jax.enable_x64(True):
    want = np.stack([dense_conv(part, jnp.asarray(kernel_of(values, topology)),
                                (1, 1), 'SAME', (1, 1)) for part in x])
    close = {'rtol': 1e-12, 'atol': 1e-12}
    np.testing.assert_allclose(layer(x, values), want, **close)
    np.testing.assert_allclose(layer(x[0, 0], values), want[0, 0], **close)
    np.testing.assert_allclose(
        jax.vmap(layer, in_axes=(0, None))(x, values), want, **close)
    np.testing.assert_allclose(
        jax.jvp(layer, (x, values), (x, values))[1], 2 * want, **close)
    assert layer(x[:0], values).shape == (0, 3, 5, 5, 4)
  half = tuple(jnp.asarray(v, jnp.bfloat16) for v in values)
  assert layer(jnp.asarray(x, jnp.bfloat16), half).dtype == jnp.bfloat16


def test_convolutions_that_are_refused(make):
  topology = make((6, 4), 2)
  values = draw(topology, (3, 3))
  x = np.zeros((2, 5, 5, 6))
  with pytest.raises(ValueError, match='axis -1 has 5 features'):
    compute.conv(x[..., :5], values, topology)
  with pytest.raises(ValueError, match='2 spatial axes'):
    compute.conv(x[0, 0], values, topology)
  for name in ('strides', 'dilation'):
    for wrong in (0, (1,), (1, 2, 3), 2., (None, 1), 'ab'):
      with pytest.raises(ValueError, match=f'{name}=.* positive int, or 2'):
        compute.conv(x, values, topology, **{name: wrong})
  for wrong in ('FULL', [(1, 1)], [1], 1.5, None, [(1,), (1,)],
                [(1.5, 1), (1, 1)]):
    with pytest.raises(ValueError, match="neither 'SAME', 'SAME_LOWER', 'VA"):
      compute.conv(x, values, topology, padding=wrong)
  with pytest.raises(ValueError, match=r'image that works is \(7, 7\)'):
    compute.conv(x, values, topology, padding='VALID', dilation=3)
  for shape in ((6,), (1,), (4, 1), ()):
    with pytest.raises(ValueError, match=r'a bias has shape \(4,\)'):
      compute.conv(x, values, topology, bias=np.zeros(shape))


def test_space_to_depth_is_a_stride_that_loses_nothing():
  x = np.random.default_rng(0).standard_normal((2, 3, 6, 4, 5))
  y = sao.compute.space_to_depth(jnp.asarray(x), 2)
  assert y.shape == (2, 3, 3, 2, 20)
  np.testing.assert_array_equal(np.sort(y, axis=None), np.sort(
      x.astype(np.float32), axis=None))
  # A kernel of the size of the stride is a product with the squares.
  kernel = np.random.default_rng(1).standard_normal((2, 2, 5, 3))
  with jax.enable_x64(True):
    z = dense_conv(
        jnp.asarray(x[0]), jnp.asarray(kernel), (2, 2), 'VALID', (1, 1))
    y = compute.space_to_depth(jnp.asarray(x[0]), 2)
  np.testing.assert_allclose(
      z, np.asarray(y) @ kernel.reshape(math.prod(kernel.shape[:3]), 3),
      atol=1e-12)
  with pytest.raises(ValueError, match='nearest that works is 6x3'):
    compute.space_to_depth(jnp.zeros((1, 6, 4, 5)), 3)


def test_squares_of_no_pixels():
  for shape, want in [((0, 4, 4, 3), (0, 2, 2, 12)), ((0, 4, 3), (0, 2, 12))]:
    assert compute.space_to_depth(jnp.zeros(shape), np.int64(2)).shape == want


@pytest.mark.parametrize('shape, size, message', [
    ((4, 4, 1), 0, 'size=0 must be at least 1'),
    ((4, 4, 1), -1, 'size=-1 must be at least 1'),
    ((4, 4, 1), (2, 2), r'size=\(2, 2\) must be an integer'),
    ((4, 4, 1), 1.5, 'size=1.5 must be an integer'),
    ((4, 4), 2, r'x of shape \(4, 4\) .*at least 3 axes'),
    ((), 2, r'x of shape \(\) .*at least 3 axes')])
def test_squares_that_are_refused(shape, size, message):
  with pytest.raises(ValueError, match=message):
    compute.space_to_depth(jnp.zeros(shape), size)
