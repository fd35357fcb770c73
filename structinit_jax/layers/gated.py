"""Layers whose inputs choose between two kernels."""

from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from structinit_jax import base
from structinit_jax import windows

__all__ = ['GatedConv', 'GatedDense', 'gated_features']

_PADDINGS = *windows.PADDINGS, 'REFLECT'  # of flax.linen.Conv


def gated_features(features: int) -> int:
  r"""Returns the width of gated layers with the weights of ordinary ones.

  A gated layer has three kernels, so a stack of c features has as many weights
  as an ordinary one of $\sqrt{3} c$.

  Args:
    features: of every ordinary layer.

  Returns:
    $c / \sqrt{3}$, rounded, at least 1.

  Raises:
    ValueError: if `features` is no positive integer.

  Example:
    >>> from structinit_jax import layers
    >>> layers.gated_features(128)
    74

  Source: this library; Zhou, section 4.2, multiplies by 3, which makes the
    ordinary network three times as large.
  """
  return max(1, round(base.integer('features', features, 1) / 3**0.5))


def _gate(y: jax.Array, groups: int = 1) -> jax.Array:
  """Returns psi * first + (1 - psi) * second of outputs (..., 3 * features)."""
  parts = y.reshape(*y.shape[:-1], groups, 3, -1)
  psi = nn.sigmoid(parts[..., 0, :])
  mixed = psi * parts[..., 1, :] + (1 - psi) * parts[..., 2, :]
  return mixed.reshape(*y.shape[:-1], -1)


class GatedConv(nn.Module):
  r"""Convolution that mixes the outputs of two kernels by a gate of a third.

  $\psi = \sigma(x * w_1)$, $y = \psi \odot (x * w_2) + (1 - \psi) \odot (x *
  w_3)$. The three are one leaf, `kernel` (*window, in / groups, 3 * features),
  in this order within every group, and one convolution.

  Attributes:
    features: number of output channels.
    kernel_size: sizes of the window, one for every spatial axis.
    strides: as of `flax.linen.Conv`, as are all below.
    padding: as of `flax.linen.Conv`.
    kernel_dilation: of the kernel.
    feature_group_count: groups of features.
    use_bias: whether there are biases, (3 * features,).
    dtype: dtype to compute in.
    param_dtype: dtype of the parameters.
    precision: as of `jax.lax.dot`.
    kernel_init: an Initializer.
    bias_init: an Initializer.
    conv_general_dilated: what computes it, called as that of `jax.lax` is.

  Example:
    >>> import jax
    >>> from structinit_jax import layers
    >>> layer = layers.GatedConv(8, (3, 3))
    >>> x = jax.random.normal(jax.random.key(0), (2, 6, 6, 4))
    >>> y, variables = layer.init_with_output(jax.random.key(1), x)
    >>> y.shape, variables['params']['kernel'].shape
    ((2, 6, 6, 8), (3, 3, 4, 24))

  Source: Zhou, equation 2.
  """

  features: int
  kernel_size: Sequence[int]
  strides: int | Sequence[int] | None = 1
  padding: Any = 'SAME'
  kernel_dilation: int | Sequence[int] | None = 1
  feature_group_count: int = 1
  use_bias: bool = True
  dtype: Any = None
  param_dtype: Any = jnp.float32
  precision: Any = None
  kernel_init: Callable[..., jax.Array] = nn.initializers.lecun_normal()
  bias_init: Callable[..., jax.Array] = nn.initializers.zeros_init()
  conv_general_dilated: Any = None

  def setup(self) -> None:
    features = base.integer('features', self.features, 1)
    groups = base.integer('feature_group_count', self.feature_group_count, 1)
    if features % groups:
      near = max(1, round(features / groups)) * groups
      raise ValueError(
          f'features={features} must be a multiple of feature_group_count='
          f'{groups}; the nearest is {near}')
    sizes = windows.kernel_sizes('kernel_size', self.kernel_size)
    for name in ('strides', 'kernel_dilation'):
      windows.per_axis(name, getattr(self, name), len(sizes))
    if isinstance(self.padding, str) and self.padding not in _PADDINGS:
      raise ValueError(
          f'padding={self.padding!r} must be one of {", ".join(_PADDINGS)}, or '
          'pairs of ints')
    self.filters = nn.Conv(
        3 * features, sizes, self.strides, self.padding,
        kernel_dilation=self.kernel_dilation, feature_group_count=groups,
        use_bias=self.use_bias, dtype=self.dtype, param_dtype=self.param_dtype,
        precision=self.precision, kernel_init=self.kernel_init,
        bias_init=self.bias_init,
        conv_general_dilated=self.conv_general_dilated)
    nn.share_scope(self, self.filters)

  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps (*batch, *spatial, in) to (*batch, *spatial, features)."""
    if x.ndim <= len(self.kernel_size):
      raise ValueError(
          f'inputs of shape {x.shape} must be (*batch, *spatial, in), with '
          f'{len(self.kernel_size)} spatial axes for '
          f'kernel_size={self.kernel_size}')
    if x.shape[-1] % self.feature_group_count:
      raise ValueError(
          f'inputs of shape {x.shape} have {x.shape[-1]} channels, no multiple '
          f'of feature_group_count={self.feature_group_count}')
    return _gate(self.filters(x), self.feature_group_count)


class GatedDense(nn.Module):
  """Dense layer that mixes the outputs of two kernels by a gate of a third.

  `GatedConv` without a window; its `kernel` is (in, 3 * features).

  Attributes:
    features: number of outputs.
    use_bias: whether there are biases, (3 * features,).
    dtype: dtype to compute in.
    param_dtype: dtype of the parameters.
    precision: as of `jax.lax.dot`.
    kernel_init: an Initializer.
    bias_init: an Initializer.

  Example:
    >>> import jax
    >>> from structinit_jax import layers
    >>> x = jax.random.normal(jax.random.key(0), (2, 4))
    >>> y, variables = layers.GatedDense(8).init_with_output(
    ...     jax.random.key(1), x)
    >>> y.shape, variables['params']['kernel'].shape
    ((2, 8), (4, 24))

  Source: Zhou, equation 2.
  """

  features: int
  use_bias: bool = True
  dtype: Any = None
  param_dtype: Any = jnp.float32
  precision: Any = None
  kernel_init: Callable[..., jax.Array] = nn.initializers.lecun_normal()
  bias_init: Callable[..., jax.Array] = nn.initializers.zeros_init()

  def setup(self) -> None:
    self.filters = nn.Dense(
        3 * base.integer('features', self.features, 1), self.use_bias,
        self.dtype, self.param_dtype, self.precision, self.kernel_init,
        self.bias_init)
    nn.share_scope(self, self.filters)

  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps (..., in) to (..., features)."""
    return _gate(self.filters(x))
