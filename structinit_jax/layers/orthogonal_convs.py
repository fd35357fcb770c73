"""Convolutions that stay orthogonal while they train."""

from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
from jax import lax
import jax.numpy as jnp

from structinit_jax import base
from structinit_jax import linalg
from structinit_jax import sao
from structinit_jax import windows
from structinit_jax.layers import biases
from structinit_jax.layers import dtypes
from structinit_jax.layers import sao as sparse
from structinit_jax.sao import compute

__all__ = ['ECOConv', 'SOCConv']

_SQUARINGS = 6  # bound at most C^(1/128) too large: 4 % of 128 channels
_NORM = 0.7


def _unitary(blocks: jax.Array) -> jax.Array:
  """Returns Q of the QR of blocks (..., d, c), of their transpose if wide."""
  wide = blocks.shape[-2] < blocks.shape[-1]
  q, r = jnp.linalg.qr(blocks.mT if wide else blocks)
  q = q * jnp.sign(jnp.diagonal(r, axis1=-2, axis2=-1))[..., None, :]
  return q.mT if wide else q


def orthogonalize(blocks: jax.Array) -> jax.Array:
  """Returns the kernels whose every frequency is Q of that of the given ones.

  Conjugate frequencies stay conjugate, so kernels stay real; orthogonal ones
  are returned as they are.

  Args:
    blocks: array (*spatial, count, d, c).

  Returns:
    Array of the same shape and dtype.
  """
  axes = range(blocks.ndim - 3)
  compute_in = base.compute_dtype(blocks.dtype)
  frequencies = jnp.fft.fftn(blocks.astype(compute_in), axes=axes)
  return jnp.fft.ifftn(_unitary(frequencies), axes=axes).real.astype(
      blocks.dtype)


class ECOConv(nn.Module):
  r"""Explicitly orthogonal convolution (ECO), sparse or dense.

  $W = DFT^{-1} Q(DFT(V))$: of the free values V, (k, k) frequencies of blocks,
  every frequency is replaced by Q of its QR factorisation. With circular
  padding and dilation n / k all singular values are 1, at initialization and
  after any update. V starts orthogonal, by `sao.eco_values`. Strides move
  squares of pixels into channels.

  Attributes:
    features: number of output channels.
    kernel_size: (k_h, k_w); they have to divide the image's sizes, after the
      stride.
    stride: of both axes; has to divide the image.
    degree: input channels of an output channel, those of all pixels of a square
      counted; or `density` or `topology`; none of them is a dense layer.
    density: as of `SAODense`.
    topology: as of `SAODense`, (channels * stride^2, features); not of kind
      'weighing'.
    use_bias: whether there is a bias.
    dtype: as of `SAODense`.
    param_dtype: dtype of the parameters.
    precision: as of `jax.lax.dot`.
    bias_init: an Initializer.

  Its parameters are `values`, as those of `SAOConv`, and `bias`.

  Example:
    >>> import jax
    >>> from structinit_jax import layers
    >>> x = jax.random.normal(jax.random.key(0), (2, 6, 6, 8))
    >>> layer = layers.ECOConv(32, (3, 3), stride=2, degree=4)
    >>> y, variables = layer.init_with_output(jax.random.key(1), x)
    >>> y.shape, [v.shape for v in variables['params']['values']]
    ((2, 3, 3, 32), [(3, 3, 8, 4, 4)])
    >>> ratio = jax.numpy.linalg.norm(y) / jax.numpy.linalg.norm(x)
    >>> bool(abs(ratio - 1) < 1e-5)
    True

  Source: Yu et al., Constructing orthogonal convolutions in an explicit manner,
    ICLR 2022; Esguerra (2023), section 3.4.4.2, which trains W.
  """

  features: int
  kernel_size: Sequence[int]
  stride: int = 1
  degree: int | None = None
  density: float | None = None
  topology: sao.Topology | None = None
  use_bias: bool = True
  dtype: Any = None
  param_dtype: Any = jnp.float32
  precision: Any = None
  bias_init: Callable[..., jax.Array] = nn.initializers.zeros_init()

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps (..., h, w, in) to (..., h / stride, w / stride, features)."""
    kernel = windows.kernel_sizes('kernel_size', self.kernel_size, 2)
    base.integer('features', self.features, 1)
    x = compute.space_to_depth(x, base.integer('stride', self.stride, 1))
    sizes = x.shape[-3:-1]
    if any(size % k for size, k in zip(sizes, kernel, strict=True)):
      near = tuple(max(1, round(size / k)) * k
                   for size, k in zip(sizes, kernel, strict=True))
      raise ValueError(
          f'image of {sizes[0]}x{sizes[1]} after a stride of {self.stride}: '
          f'the kernel {kernel} has to divide it; the nearest that works is '
          f'{near[0]}x{near[1]}')
    dense = (self.degree, self.density, self.topology) == (None, None, None)
    topology = sao.Topology(
        (x.shape[-1], self.features), 1) if dense else sparse.plan(
            self, x.shape[-1], False)
    if topology.kind == 'weighing':
      raise ValueError(
          "kind='weighing' has no disjoint blocks to orthogonalize; use "
          "'debruijn', 'random' or 'thesis'")
    values = self.param('values', lambda key: sao.eco_values(
        key, topology, kernel, frequencies='complex', dtype=self.param_dtype))
    bias = self.param(
        'bias', self.bias_init, (self.features,), self.param_dtype
    ) if self.use_bias else None
    x, bias, *values = dtypes.promote(
        self.dtype, x, bias, *map(orthogonalize, values))
    return compute.conv(
        x, values, topology, bias=bias, padding='CIRCULAR',
        precision=self.precision,
        dilation=[size // k for size, k in zip(sizes, kernel, strict=True)])


def _norm_bound(kernel: jax.Array) -> jax.Array:
  r"""Returns an upper bound of a convolution's norm, differentiable.

  A convolution is the product of the unfolded kernel M (taps * in, out) with
  patches, in which a pixel appears at most `taps` times, so its norm is at most
  $\sqrt{taps} \, ||M||_2$; and $||G||_2 \le ||G^{2^t}||_F^{1/2^t}$ for the Gram
  matrix G of M.

  Source: Delattre et al., Efficient bound of Lipschitz constant for
    convolutional layers by Gram iteration, ICML 2023.
  """
  m = kernel.reshape(-1, kernel.shape[-1])
  gram, log_norm = linalg.matmul(m.T, m), jnp.zeros((), m.dtype)
  for i in range(_SQUARINGS):
    size = jnp.sqrt(jnp.sum(gram**2))
    gram = gram / size
    log_norm = log_norm + jnp.log(size) / 2**i
    gram = linalg.matmul(gram, gram)
  log_norm = log_norm + jnp.log(jnp.sum(gram**2)) / 2**(_SQUARINGS + 1)
  return jnp.sqrt(len(m) / len(gram)) * jnp.exp(log_norm / 2)


def skew(kernel: jax.Array) -> jax.Array:
  r"""Returns the kernel of a skew-symmetric convolution, of norm at most 0.7.

  $A[s, i, o] = K[s, i, o] - K[-s, o, i]$, divided by a bound of its norm: the
  transpose of the convolution is its negative, with zero padding too.

  Args:
    kernel: array (k_h, k_w, c, c), k odd.

  Returns:
    Array of the same shape.
  """
  a = kernel - jnp.flip(kernel, (0, 1)).mT
  zero = jnp.all(a == 0)  # one channel and one tap: nothing is skew but 0
  safe = jnp.where(zero, jnp.ones_like(a), a)
  return a * (_NORM / _norm_bound(safe))


class SOCConv(nn.Module):
  r"""Skew-orthogonal convolution (SOC): the exponential of a skew one.

  $y = \sum_{i \le terms} A^i x / i!$ with the convolution A of `skew`. As its
  eigenvalues are imaginary, of modulus at most 0.7, all singular values of the
  layer are 1 up to 1.4e-4 with 5 terms, 1e-12 with 12. Channels are padded with
  zeros to the larger of in and out; strides move squares of pixels into
  channels.

  Attributes:
    features: number of output channels.
    kernel_size: (k_h, k_w), odd.
    stride: of both axes; has to divide the image.
    terms: of the series, in training.
    eval_terms: of the series, else.
    use_bias: whether there is a bias.
    dtype: as of `SAODense`.
    param_dtype: dtype of the parameters.
    precision: as of `jax.lax.conv_general_dilated`.
    kernel_init: an Initializer of (k_h, k_w, c, c); its scale has no effect.
    bias_init: an Initializer.

  Example:
    >>> import jax
    >>> from structinit_jax import layers
    >>> x = jax.random.normal(jax.random.key(0), (2, 8, 8, 4))
    >>> layer = layers.SOCConv(16, (3, 3), stride=2)
    >>> y, _ = layer.init_with_output(jax.random.key(1), x)
    >>> ratio = jax.numpy.linalg.norm(y) / jax.numpy.linalg.norm(x)
    >>> y.shape, bool(abs(ratio - 1) < 1e-5)
    ((2, 4, 4, 16), True)

  Source: Singla and Feizi, Skew orthogonal convolutions, ICML 2021.
  """

  features: int
  kernel_size: Sequence[int]
  stride: int = 1
  terms: int = 5
  eval_terms: int = 12
  use_bias: bool = True
  dtype: Any = None
  param_dtype: Any = jnp.float32
  precision: Any = None
  kernel_init: Callable[..., jax.Array] = nn.initializers.normal()
  bias_init: Callable[..., jax.Array] = nn.initializers.zeros_init()

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    """Maps (..., h, w, in) to (..., h / stride, w / stride, features)."""
    sizes = windows.kernel_sizes('kernel_size', self.kernel_size, 2)
    base.integer('features', self.features, 1)
    if any(size % 2 == 0 for size in sizes):
      raise ValueError(
          f'kernel {sizes}: a skew convolution needs odd sizes; the nearest '
          f'that works is {tuple(size | 1 for size in sizes)}')
    x = compute.space_to_depth(x, base.integer('stride', self.stride, 1))
    width = max(x.shape[-1], self.features)
    kernel = self.param(
        'kernel', self.kernel_init, (*sizes, width, width), self.param_dtype)
    bias = self.param(
        'bias', self.bias_init, (self.features,), self.param_dtype
    ) if self.use_bias else None
    kernel = skew(kernel.astype(base.compute_dtype(kernel.dtype))
                  ).astype(kernel.dtype)
    x, bias, kernel = dtypes.promote(self.dtype, x, bias, kernel)
    term = y = jnp.pad(
        x.reshape(-1, *x.shape[-3:]),
        [(0, 0)] * 3 + [(0, width - x.shape[-1])])
    for i in range(1, 1 + (self.terms if train else self.eval_terms)):
      term = lax.conv_general_dilated(
          term, kernel, (1, 1), 'SAME', precision=self.precision,
          dimension_numbers=('NHWC', 'HWIO', 'NHWC')) / i
      y = y + term
    y = y[..., :self.features].reshape(*x.shape[:-1], self.features)
    return biases.add(y, bias)
