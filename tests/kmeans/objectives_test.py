"""Scores against explicit patches in float64; the penalty and its gradient."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import structinit_jax as si
from structinit_jax.kmeans import objectives


def pad(x, padding, size, stride, dilation):
  """Pads images (n, h, w, c) as a convolution does."""
  spans = [(k - 1) * d + 1 for k, d in zip(size, dilation, strict=True)]
  if padding == 'CIRCULAR':
    pads = [((s - 1) // 2, s // 2) for s in spans]
    return np.pad(x, [(0, 0), *pads, (0, 0)], mode='wrap')
  if padding == 'VALID':
    return x
  if padding == 'SAME':
    pads = []
    for n, s, step in zip(x.shape[1:3], spans, stride, strict=True):
      more = max(0, (math.ceil(n / step) - 1) * step + s - n)
      pads.append((more // 2, more - more // 2))
  else:
    pads = padding
  return np.pad(x, [(0, 0), *pads, (0, 0)])


def unfold(x, size, stride, padding, dilation):
  """Returns the patches (places, *size, c), one after the other."""
  x = pad(np.asarray(x, np.float64), padding, size, stride, dilation)
  spans = [(k - 1) * d + 1 for k, d in zip(size, dilation, strict=True)]
  return np.stack([
      image[i:i + spans[0]:dilation[0], j:j + spans[1]:dilation[1]]
      for image in x
      for i in range(0, x.shape[1] - spans[0] + 1, stride[0])
      for j in range(0, x.shape[2] - spans[1] + 1, stride[1])])


def cases():
  """Draws windows of every kind, kernels and images."""
  rng = np.random.default_rng(0)
  for i in range(24):
    size, stride, dilation = (
        tuple(int(n) for n in rng.integers(1, most, 2)) for most in (5, 4, 3))
    padding = ['SAME', 'VALID', 'CIRCULAR', ((1, 2), (0, 1))][i % 4]
    groups = 1 + i % 3
    channels, filters = groups * rng.integers(1, 3), groups * rng.integers(2, 4)
    x = rng.normal(size=(2, *rng.integers(8, 12, 2), channels))
    kernel = rng.normal(size=(*size, channels // groups, filters))
    yield size, stride, padding, dilation, groups, x, kernel


@pytest.mark.parametrize('case', [*cases()])
def test_scores_are_those_of_explicit_patches(case):
  size, stride, padding, dilation, groups, x, kernel = case
  patches = unfold(x, size, stride, padding, dilation)
  patches = patches.reshape(*patches.shape[:-1], groups, -1)
  kernels = kernel.reshape(*kernel.shape[:-1], groups, -1)
  want = np.einsum('nijgc,ijcgk->ngk', patches, kernels)
  norms = np.sqrt((kernels**2).sum((0, 1, 2)))
  lengths = np.sqrt((patches**2).sum((1, 2, 4)))[:, :, None]
  window = {'strides': stride, 'padding': padding, 'dilation': dilation,
            'groups': groups}
  flat = (len(want), -1)
  with jax.enable_x64(True):
    got = si.kmeans.scores(jnp.asarray(kernel), jnp.asarray(x), **window)
    cosine = si.kmeans.scores(
        jnp.asarray(kernel), jnp.asarray(x), normalize=True, **window)
    white = si.kmeans.scores(
        jnp.asarray(kernel), jnp.asarray(x), whiten=True, **window)
    value = si.kmeans.score(jnp.asarray(kernel), jnp.asarray(x), **window)
    stats = si.kmeans.statistics(jnp.asarray(kernel), jnp.asarray(x), **window)
  np.testing.assert_allclose(
      got.reshape(flat), (want / norms).reshape(flat), rtol=0, atol=1e-9)
  # Of patches of zeros (padding alone) the cosine is 0.
  np.testing.assert_allclose(
      np.asarray(cosine).reshape(flat),
      (want / norms / np.maximum(lengths, 1e-6)).reshape(flat), atol=1e-6)
  np.testing.assert_allclose(
      white.reshape(flat),
      ((want - want.mean(0)) / want.std(0)).reshape(flat), atol=1e-8)
  best = (want / norms).max(-1)
  np.testing.assert_allclose(value, best.mean(), rtol=1e-10)
  np.testing.assert_allclose(stats.score, best.mean(), rtol=1e-10)
  wins = np.stack([np.bincount(column, minlength=want.shape[-1])
                   for column in (want / norms).argmax(-1).T]) / len(want)
  np.testing.assert_allclose(stats.wins, wins.reshape(-1), atol=1e-12)
  np.testing.assert_array_equal(stats.dead, wins.reshape(-1) == 0)


def test_whitened_scores_are_those_of_whitened_patches():
  """In the metric of the covariance: an independent eigendecomposition."""
  rng = np.random.default_rng(1)
  x = rng.normal(size=(500, 6)) @ rng.normal(size=(6, 6)) + rng.normal(size=6)
  kernel = rng.normal(size=(6, 4))
  values, vectors = np.linalg.eigh(np.cov(x.T, bias=True))
  half = vectors * np.sqrt(values) @ vectors.T
  white = (x - x.mean(0)) @ np.linalg.inv(half)
  filters = half @ kernel
  want = white @ (filters / np.linalg.norm(filters, axis=0))
  with jax.enable_x64(True):
    got = si.kmeans.scores(jnp.asarray(kernel), jnp.asarray(x), whiten=True)
  np.testing.assert_allclose(got, want, atol=1e-9)


def test_one_dimension_and_dense():
  x = jax.random.normal(jax.random.key(0), (3, 9, 4))
  kernel = jax.random.normal(jax.random.key(1), (1, 4, 5))
  np.testing.assert_allclose(
      si.kmeans.scores(kernel, x), si.kmeans.scores(kernel[0], x), atol=1e-5)


@pytest.mark.parametrize('groups', [1, 2])
def test_gradient_of_the_penalty_is_equation_6(groups):
  rng = np.random.default_rng(2)
  kernel = rng.normal(size=(3, 2, 4, 6))
  flat = kernel.reshape(24, groups, -1)
  want, value = np.zeros_like(flat), 0.
  for g in range(groups):
    filters = flat[:, g].T
    for k, theta in enumerate(filters):
      size = np.linalg.norm(theta)
      for i, other in enumerate(filters):
        cosine = other @ theta / (np.linalg.norm(other) * size)
        if i == k:
          continue
        value += cosine**2 / 4  # of every ordered pair
        tangent = other - theta * (theta @ other) / size**2
        want[:, g, k] += cosine * tangent / (np.linalg.norm(other) * size)
  with jax.enable_x64(True):
    got, slope = jax.value_and_grad(
        lambda k: si.kmeans.cosine_penalty(k, groups=groups))(
            jnp.asarray(kernel))
  np.testing.assert_allclose(got, value, rtol=1e-9)
  np.testing.assert_allclose(slope, want.reshape(kernel.shape), atol=1e-9)


def test_the_exponential_penalty_leaves_wide_angles_alone():
  def at(cosine, **options):
    kernel = jnp.array([[1., cosine], [0., (1 - cosine**2)**0.5]])
    return float(si.kmeans.cosine_penalty(kernel, **options))

  assert at(1., kind='exponential') == pytest.approx(0.5, abs=1e-5)
  assert at(0.5, kind='exponential') < 1e-6
  assert at(0.5) == pytest.approx(0.125, abs=1e-5)
  assert at(0.95, kind='exponential', sharpness=40.) < at(
      0.95, kind='exponential')
  assert at(-0.9) == pytest.approx(at(0.9), rel=1e-5)


def test_statistics_of_known_filters():
  x = jnp.array([[2., 0.], [3., 0.], [0., 1.], [-1., 0.]])
  kernel = jnp.array([[1., 1., 0., -5.], [0., .01, 1., -5.]])
  stats = si.kmeans.statistics(kernel, x)
  # The second is aligned with the first, the last wins nothing but (-1, 0).
  np.testing.assert_allclose(stats.wins, [.5, 0, .25, .25])
  np.testing.assert_array_equal(stats.dead, [False, True, False, False])
  assert int(stats.duplicates) == 1
  assert float(stats.coherence) == pytest.approx(1, abs=1e-3)
  entropy = .5 * math.log(2) + .5 * math.log(4)
  assert float(stats.coverage) == pytest.approx(math.exp(entropy) / 4)
  even = si.kmeans.statistics(jnp.eye(2), jnp.array([[1., 0.], [0., 1.]]))
  assert float(even.coverage) == pytest.approx(1)
  one = si.kmeans.statistics(jnp.ones((2, 1)), x)
  assert (float(one.coherence), int(one.duplicates)) == (0, 0)


@pytest.mark.parametrize('kernel, inputs, options, message', [
    ((3, 4), (5, 3, 2), {}, r'\(\*window, in / groups, out\)'),
    ((3, 3, 2, 4), (5, 2), {}, r'\(\*batch, \*spatial, in\)'),
    ((3, 3, 2, 3), (1, 4, 4, 4), {'groups': 2}, 'groups divide out'),
    ((3, 3, 2, 3), (1, 4, 4, 2), {'strides': 0}, 'strides=0'),
    ((3, 3, 2, 3), (1, 4, 4, 2), {'padding': 'MIRROR'}, "padding='MIRROR'"),
    ((2, 4), (5, 4), {'groups': 2}, 'a dense layer has one'),
    ((5, 5, 2, 3), (1, 4, 4, 2), {'padding': 'VALID'}, 'sees no patch'),
    ((3, 3, 2, 3), (0, 4, 4, 2), {}, 'sees no patch'),
    ((2, 4), (5, 2), {'whiten': True, 'normalize': True}, 'one of the two'),
])
def test_what_does_not_fit(kernel, inputs, options, message):
  with pytest.raises(ValueError, match=message):
    si.kmeans.score(jnp.ones(kernel), jnp.ones(inputs), **options)


@pytest.mark.parametrize('options, message', [
    ({'kind': 'cubic'}, 'squared, exponential'),
    ({'kind': 'exponential', 'sharpness': 0}, 'sharpness=0'),
    ({'groups': 3}, 'groups=3 of one size')])
def test_penalties_that_are_refused(options, message):
  with pytest.raises(ValueError, match=message):
    si.kmeans.cosine_penalty(jnp.eye(2), **options)


def test_filters_of_zeros_have_finite_slopes():
  kernel = jnp.eye(3).at[:, 0].set(0)
  x = jax.random.normal(jax.random.key(0), (8, 3))
  for fn in (si.kmeans.cosine_penalty, lambda k: si.kmeans.score(k, x),
             lambda k: si.kmeans.score(k, x, whiten=True),
             lambda k: objectives.total(si.kmeans.scores(k, x))):
    assert np.isfinite(jax.grad(fn)(kernel)).all()
