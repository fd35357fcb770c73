"""Values that are orthogonal to the rounding, and Haar; maps to and fro."""

import collections
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.stats

from structinit_jax.sao import topologies
from structinit_jax.sao import weights

KEY = jax.random.key(5)
Topology = topologies.Topology
# Of singular values: of dense layers, and of a convolution's frequencies.
EXACT = {jnp.float32: 5e-7, jnp.float64: 1e-12}
SPECTRAL = {jnp.float32: 2e-6, jnp.float64: 1e-12}
# Blocks of every proportion; equal splits, and each kind of unequal one.
CASES = [((8, 8), 4), ((12, 8), 4), ((8, 12), 4), ((11, 7), 3), ((7, 11), 3),
         ((10, 10), 4), ((9, 9), 9), ((13, 5), 1), ((3, 40), 3)]


def dense(values, topology):
  return np.asarray(weights.to_dense(values, topology), np.float64)


def error_of(matrices, gain=1.0):
  """The largest |sigma / gain - 1|."""
  values = np.linalg.svd(matrices, compute_uv=False)
  return np.abs(values / gain - 1).max()


def test_two_thousand_random_sizes():
  """float32, m and n up to 512: every block is orthogonal to 5e-7.

  The blocks of a kernel share no row and no column (`topologies_test`), so the
  singular values of the kernel are those of its blocks. Sizes of blocks are
  drawn from a list, as each one compiles; how many there are, and how unequal
  the splits, is anything.
  """
  rng = np.random.default_rng(0)
  sizes = [(512, 512, 1), (511, 511, 2), (512, 255, 2), (255, 511, 1)]
  while len(sizes) < 2000:
    d, c = rng.choice([1, 2, 7, 16], size=2)  # and one more, where unequal
    b = int(rng.integers(1, 512 // (max(d, c) + 1) + 1))
    sizes.append((*(int(b * x + rng.integers(0, b)) for x in (d, c)), b))
  need = collections.Counter()
  for n, m, b in sizes:
    assert max(n, m) <= 512
    for count, d, c in Topology((n, m), b).groups:
      shape = (max(d, c), min(d, c))  # a wide block is a transposed one
      need[shape] = max(need[shape], count)

  @jax.jit
  def sample(key):
    return {shape: weights._haar(
        jax.random.fold_in(key, i), (count, *shape), jnp.float32, False)
            for i, (shape, count) in enumerate(need.items())}

  assert len(need) > 30
  for shape, blocks in sample(KEY).items():
    assert error_of(np.asarray(blocks, np.float64)) <= EXACT[jnp.float32], shape


@pytest.mark.parametrize('shape, blocks, dtype', [
    *((*case, jnp.float32) for case in CASES),
    ((300, 512), 7, jnp.float32), ((512, 512), 128, jnp.float32),
    ((512, 77), 11, jnp.float64), ((11, 7), 3, jnp.float64)])
def test_kernels_are_orthogonal(shape, blocks, dtype, make):
  with jax.enable_x64(dtype == jnp.float64):
    for kind in ('debruijn', 'random', 'thesis'):
      topology = make(shape, blocks, kind)
      values = weights.orthogonal_values(KEY, topology, dtype=dtype)
      assert tuple(x.shape for x in values) == topology.groups
      assert {x.dtype for x in values} == {jnp.dtype(dtype)}
      kernel = dense(values, topology)
      assert error_of(kernel) <= EXACT[dtype]
      np.testing.assert_array_equal(kernel != 0, topology.mask)


@pytest.mark.parametrize('shape, order, dtype', [
    ((7, 7), 7, jnp.float32), ((13, 26), 13, jnp.float64),
    ((28, 14), 7, jnp.float32), ((182, 91), 91, jnp.float32)])
def test_weighing_kernels_are_orthogonal(shape, order, dtype, make):
  topology = make(shape, order, 'weighing')
  with jax.enable_x64(dtype == jnp.float64):
    for tied in (False, True):
      values = weights.orthogonal_values(
          KEY, topology, dtype=dtype, tied=tied)
      kernel = dense(values, topology)
      assert error_of(kernel) <= EXACT[dtype]
      np.testing.assert_array_equal(kernel != 0, topology.mask)


@pytest.mark.parametrize('gain', [0.5, math.sqrt(2), 3])
def test_gain(gain, make):
  topology = make((11, 7), 3)
  one = weights.orthogonal_values(KEY, topology)
  kernel = dense(weights.orthogonal_values(KEY, topology, gain=gain), topology)
  assert error_of(kernel, gain) <= 5e-7
  np.testing.assert_allclose(kernel, gain * dense(one, topology), rtol=1e-6)


def test_blocks_are_haar():
  """Moments of an entry and the law of all of them; independent blocks.

  An entry of a Haar orthogonal matrix of order d is distributed as one of a
  uniform vector: its square is Beta(1/2, (d - 1) / 2).
  """
  for kind, count in (('debruijn', 4000), ('weighing', 637)):
    order = 49 if kind == 'weighing' else count
    d = 4 if kind == 'debruijn' else 3
    topology = Topology((d * order, d * order), order, kind)
    (blocks,) = weights.orthogonal_values(KEY, topology)
    blocks = np.asarray(blocks, np.float64)
    if kind == 'weighing':
      blocks = 4 * blocks[::16]  # one of each column
    for entry in np.ndindex(d, d):
      x = blocks[:, *entry]
      law = scipy.stats.beta(0.5, (d - 1) / 2)
      assert scipy.stats.kstest(x**2, law.cdf).pvalue > 1e-4
      assert abs(x.mean()) < 4 / math.sqrt(d * len(x))
  # Determinants of both signs, equally often.
  share = np.mean(np.linalg.det(blocks) > 0)
  assert 0.2 < share < 0.8


def test_erratum_the_blocks_of_the_reference_code_are_not_haar():
  """orth(rand): the first column is nearly constant, of one sign."""
  rng = np.random.default_rng(0)
  d = 16
  theirs = np.stack([scipy.linalg.orth(rng.random((d, d))) for _ in range(200)])
  assert abs(theirs[:, :, 0].mean() + 1 / math.sqrt(d)) < 0.01
  (ours,) = weights.orthogonal_values(KEY, Topology((200 * d, 200 * d), 200))
  assert abs(float(ours[:, :, 0].mean())) < 4 / math.sqrt(200 * d * d)


def test_unitary_blocks():
  shape = (3, 50, 5, 4)
  for dtype in (jnp.float32, jnp.float64):
    with jax.enable_x64(dtype == jnp.float64):
      x = np.asarray(weights._haar(KEY, shape, dtype, True))
      wide = np.asarray(weights._haar(KEY, (3, 50, 4, 5), dtype, True))
    assert error_of(x.astype(np.complex128)) <= EXACT[dtype]
    assert error_of(wide.astype(np.complex128)) <= EXACT[dtype]
  # Phases are uniform: neither x nor x^2 has a mean.
  assert abs(x.mean()) < 4 / math.sqrt(5 * x.size)
  assert abs((x**2).mean()) < 4 / math.sqrt(25 * x.size / 2)
  assert (np.abs(x)**2).mean() == pytest.approx(1 / 5)


def test_tied_blocks_hold_the_same_values(make):
  """SAO 2: all sets of rows share their values."""
  topology = make((11, 7), 3)
  tied = weights.orthogonal_values(KEY, topology, tied=True)
  for x in tied:
    np.testing.assert_array_equal(x, np.broadcast_to(x[:1], x.shape))
  free = weights.orthogonal_values(KEY, make((8, 8), 4))[0]
  assert len({np.asarray(x).tobytes() for x in free}) == 4
  assert error_of(dense(tied, topology)) <= 5e-7


def test_values_do_not_depend_on_the_permutation(make):
  one, other = (weights.orthogonal_values(KEY, make((12, 8), 4, 'random', s))
                for s in (0, 1))
  np.testing.assert_array_equal(one[0], other[0])


@pytest.mark.parametrize('spatial', [(), (2, 3)])
@pytest.mark.parametrize('kind', ['debruijn', 'random', 'thesis', 'weighing'])
def test_dense_and_back(kind, spatial, make):
  cases = [((12, 8), 4), ((7, 11), 3)] if kind != 'weighing' else [((7, 21), 7)]
  for shape, blocks in cases:
    topology = make(shape, blocks, kind)
    kernel = np.random.default_rng(0).normal(size=(*spatial, *shape))
    kernel = jnp.asarray(kernel, jnp.float32)
    values = weights.from_dense(kernel, topology)
    assert [x.shape for x in values] == [
        (*spatial, *group) for group in topology.groups]
    assert sum(x.size for x in values) == topology.nnz * math.prod(spatial)
    masked = np.where(topology.mask, kernel, 0)
    np.testing.assert_array_equal(weights.to_dense(values, topology), masked)
    again = weights.from_dense(jnp.asarray(masked), topology)
    for x, y in zip(values, again, strict=True):
      np.testing.assert_array_equal(x, y)


def test_the_index_convention(make):
  """kernel[s_p + r, q b + p] = V_p[r, q]; and a product needs no index."""
  n, m, b = 12, 8, 4
  topology = make((n, m), b)
  (values,) = weights.orthogonal_values(KEY, topology)
  kernel = dense((values,), topology)
  for p, r, q in np.ndindex(b, n // b, m // b):
    assert kernel[p * (n // b) + r, q * b + p] == values[p, r, q]
  x = np.random.default_rng(0).normal(size=(5, n))
  y = np.einsum('ipr,prq->iqp', x.reshape(5, b, n // b), values).reshape(5, m)
  np.testing.assert_allclose(y, x @ kernel, rtol=1e-12)


def test_values_of_other_shapes_are_refused(make):
  topology = make((8, 8), 4)
  with pytest.raises(ValueError, match=r'have to be \(\(4, 2, 2\),\)'):
    weights.to_dense([jnp.zeros((4, 2, 1))], topology)
  with pytest.raises(ValueError, match=r'\(\*spatial, 8, 8\)'):
    weights.from_dense(jnp.zeros((8, 6)), topology)
  with pytest.raises(ValueError, match='not a real floating-point dtype'):
    weights.orthogonal_values(KEY, topology, dtype=jnp.int32)


SAMPLERS = [
    weights.orthogonal_values,
    lambda *args, **options: weights.delta_values(*args, (3,), **options),
    lambda *args, **options: weights.eco_values(*args, (3,), **options)]


@pytest.mark.parametrize('sampler', SAMPLERS)
@pytest.mark.parametrize('key, topology, gain, message', [
    (None, (8, 2), 1., 'key=None is no JAX PRNG key'),
    (0, (8, 2), 1., 'key=0 is no'), ('x', (8, 2), 1., "key='x' is no"),
    (KEY, 'x', 1., "topology='x' is no Topology"),
    *[(KEY, (8, 2), gain, f'gain={gain} must be a positive, finite float')
      for gain in (math.nan, math.inf, 0, -1, None, 10**400)]])
def test_values_that_are_not_drawn(sampler, key, topology, gain, message, make):
  if isinstance(topology, tuple):
    topology = make((8, 8), 2)
  with pytest.raises(ValueError, match=message):
    sampler(key, topology, gain=gain)


@pytest.mark.parametrize('spatial, near', [
    (3, '(3, 3)'), (None, '(3, 3)'), ('33', '(3, 3)'), ((1.5, 3), '(3, 3)'),
    ((), '(3, 3)'), ((-1, 3), '(1, 3)'), ((0, 3), '(1, 3)')])
def test_kernel_sizes_that_are_refused(spatial, near, make):
  for sampler in (weights.delta_values, weights.eco_values):
    with pytest.raises(ValueError, match='spatial=') as error:
      sampler(KEY, make((8, 8), 2), spatial)
    assert str(error.value).endswith(f'such as {near}')


def test_low_precision_is_the_rounded_float32(make):
  topology = make((11, 7), 3)
  single = weights.orthogonal_values(KEY, topology)
  half = weights.orthogonal_values(KEY, topology, dtype=jnp.bfloat16)
  for x, y in zip(single, half, strict=True):
    np.testing.assert_array_equal(x.astype(jnp.bfloat16), y)


def frequencies_of(kernel):
  """Singular values of a kernel's DFT matrices: those of the convolution."""
  axes = tuple(range(kernel.ndim - 2))
  return np.linalg.svd(
      np.fft.fftn(np.asarray(kernel, np.float64), axes=axes),
      compute_uv=False)


def convolution_of(kernel, size, dilation=1, circular=True):
  """The matrix of a 2-D 'SAME' convolution, from images to images."""
  *taps, c_in, c_out = kernel.shape
  matrix = np.zeros((size, size, c_in, size, size, c_out))
  for i, j, u, v in np.ndindex(size, size, *taps):
    y, x = (o + (t - (k - 1) // 2) * dilation
            for o, t, k in zip((i, j), (u, v), taps, strict=True))
    if circular or (0 <= y < size and 0 <= x < size):
      matrix[y % size, x % size, :, i, j] += kernel[u, v]
  return matrix.reshape(size * size * c_in, size * size * c_out)


@pytest.mark.parametrize('kind, k, dtype', [
    *((kind, k, jnp.float32) for kind in ('real', 'complex')
      for k in range(1, 6)),
    ('real', 3, jnp.float64), ('complex', 4, jnp.float64)])
def test_eco_is_orthogonal_at_every_frequency(kind, k, dtype, make):
  # Unequal splits compile three times as much.
  shapes = [((12, 6), 3), ((6, 12), 3)] + [((11, 7), 3)] * (k == 3)
  for shape, blocks in shapes:
    topology = make(shape, blocks, 'random')
    with jax.enable_x64(dtype == jnp.float64):
      values = weights.eco_values(
          KEY, topology, (k, k), frequencies=kind, dtype=dtype)
      assert [x.shape[:2] for x in values] == [(k, k)] * len(values)
      kernel = dense(values, topology)
    assert np.abs(frequencies_of(kernel) - 1).max() <= SPECTRAL[dtype]
    # The mask is shared: every frequency and every tap has it.
    off = ~np.asarray(topology.mask)
    assert not kernel[..., off].any()
    even = np.roll(np.flip(kernel, (0, 1)), (1, 1), (0, 1))
    assert np.allclose(kernel, even, atol=1e-6) == (kind == 'real' or k < 3)


@pytest.mark.parametrize('kind', ['real', 'complex'])
@pytest.mark.parametrize('spatial', [(3,), (4, 3), (2, 3, 2)])
def test_eco_of_other_grids(kind, spatial, make):
  topology = make((14, 7), 7, 'weighing')
  values = weights.eco_values(
      KEY, topology, spatial, frequencies=kind, gain=0.5)
  assert np.abs(2 * frequencies_of(dense(values, topology)) - 1).max() < 2e-6


def test_matrices_of_eco():
  """The DFT of the kernel: P[-p] = P[p], or its conjugate; both unitary."""
  topology = Topology((6, 6), 1)
  for kind in weights._FREQUENCIES:
    (values,) = weights.eco_values(KEY, topology, (4, 3), frequencies=kind)
    matrices = np.fft.fft2(np.asarray(values, np.float64)[:, :, 0], axes=(0, 1))
    mirrored = np.roll(np.flip(matrices, (0, 1)), (1, 1), (0, 1))
    np.testing.assert_allclose(mirrored, matrices.conj(), atol=1e-6)
    assert (np.abs(matrices.imag).max() < 1e-6) == (kind == 'real')


def test_erratum_numbers_of_unique_matrices():
  """(k^2 + 1) / 2 for odd k, (k^2 + 4) / 2 for even, as the thesis says.

  Its reference code draws another number for even k: the frequencies with
  p = -p are four then, not one.
  """
  for k in range(1, 9):
    free = (k * k + (4 if k % 2 == 0 else 1)) // 2
    assert weights._frequencies((k, k), 'real')[0].shape == (k * k, free)
    own, pairs, _ = weights._frequencies((k, k), 'complex')
    assert own.shape[1] == (4 if k % 2 == 0 else 1)
    assert own.shape[1] + pairs.shape[1] == free
    # As real numbers, they fill the space of kernels.
    assert own.shape[1] + 2 * pairs.shape[1] == k * k


@pytest.mark.parametrize('k, n', [(2, 6), (3, 6), (3, 9)])
def test_eco_as_a_convolution(k, n, make):
  for shape in [(4, 2), (2, 4)]:
    topology = make(shape, 2)
    values = weights.eco_values(KEY, topology, (k, k), frequencies='complex')
    matrix = convolution_of(dense(values, topology), n, dilation=n // k)
    assert error_of(matrix) <= 2e-6


def test_erratum_eco_needs_its_dilation_and_padding(make):
  """A wrong dilation, k that does not divide n, zero padding: all break it."""
  topology = make((4, 4), 2)
  kernel = dense(weights.eco_values(KEY, topology, (3, 3)), topology)
  assert error_of(convolution_of(kernel, 6, dilation=2)) < 2e-6
  assert error_of(convolution_of(kernel, 6, dilation=1)) > 0.1
  assert error_of(convolution_of(kernel, 7, dilation=2)) > 0.1
  assert error_of(convolution_of(kernel, 6, 2, circular=False)) > 0.1


def test_erratum_a_mask_for_every_frequency_keeps_most_kernels(make):
  """25 % survive with one mask, three in four with one for each of 5."""
  shape, blocks = (64, 64), 4
  masks = [make(shape, blocks, 'random', seed).mask for seed in range(5)]
  assert np.mean(masks[0]) == 0.25
  union = np.any(masks, axis=0).mean()
  assert union == pytest.approx(1 - 0.75**5, abs=0.04)
  topology = make(shape, blocks, 'random')
  kernel = dense(weights.eco_values(KEY, topology, (3, 3)), topology)
  assert kernel.any(axis=(0, 1)).mean() == 0.25


def test_erratum_slicing_a_square_mask_loses_channels(make):
  """c_in < c_out: what is left of a (c_out, c_out) mask misses outputs."""
  square = make((16, 16), 4)
  assert not np.asarray(square.mask)[:4].any(axis=0).all()
  rectangular = make((4, 16), 4)
  assert np.asarray(rectangular.mask).any(axis=0).all()
  values = weights.eco_values(KEY, rectangular, (3, 3))
  assert np.abs(frequencies_of(dense(values, rectangular)) - 1).max() < 2e-6


@pytest.mark.parametrize('k', [1, 2, 3, 4, 5])
def test_delta_is_an_isometry_with_any_padding(k, make):
  for shape in [(6, 4), (4, 6)]:
    topology = make(shape, 2)
    values = weights.delta_values(KEY, topology, (k, k), gain=2.)
    kernel = dense(values, topology)
    for circular in (True, False):
      matrix = convolution_of(kernel, 4, circular=circular)
      assert error_of(matrix, 2.) <= 2e-6
    assert np.abs(frequencies_of(kernel) / 2 - 1).max() <= 2e-6
    assert (kernel != 0).sum() == topology.nnz
    centre = dense(weights.orthogonal_values(KEY, topology, gain=2.), topology)
    np.testing.assert_array_equal(kernel[(k - 1) // 2, (k - 1) // 2], centre)


def test_erratum_floor_of_half_k_is_no_centre_of_an_even_kernel(make):
  """It shifts the image, and zero padding cuts what leaves it."""
  topology = make((4, 4), 2)
  kernel = dense(weights.delta_values(KEY, topology, (2, 2)), topology)
  shifted = np.flip(kernel, (0, 1))  # the tap at floor(k / 2) = 1
  assert error_of(convolution_of(shifted, 4, circular=False)) > 0.9
  assert error_of(convolution_of(shifted, 4)) <= 1e-6
  # By the convolution of JAX itself.
  image = jnp.eye(64).reshape(64, 4, 4, 4)
  for k, exact in ((kernel, True), (shifted, False)):
    out = jax.lax.conv_general_dilated(
        image, jnp.asarray(k, jnp.float32), (1, 1), 'SAME',
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
    assert (error_of(np.asarray(out).reshape(64, 64)) <= 1e-6) == exact


def test_delta_of_other_grids(make):
  topology = make((6, 4), 2)
  for spatial in [(3,), (3, 1, 2)]:
    (values,) = weights.delta_values(KEY, topology, spatial)
    assert values.shape == (*spatial, 2, 3, 2)
    assert np.abs(frequencies_of(dense((values,), topology)) - 1).max() < 5e-7
