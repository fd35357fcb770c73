"""Layers with two factors in place of a kernel."""

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from structinit_jax import base
from structinit_jax import lowrank
from structinit_jax import windows
from structinit_jax.layers import biases
from structinit_jax.layers import dtypes
from structinit_jax.lowrank import forms
from structinit_jax.lowrank import ranks

__all__ = ['LowRankAttention', 'LowRankConv', 'LowRankDense']


class _LowRank(nn.Module, kw_only=True):
  """What layers with factors share."""

  rank: int | None = None
  rank_scale: float | None = None
  activation: Any = 'relu'
  method: str = 'exact'
  norms: str = 'best'
  use_bias: bool = True
  dtype: Any = None
  param_dtype: Any = jnp.float32
  precision: Any = None
  kernel_init: Callable[..., jax.Array] = nn.initializers.lecun_normal()
  bias_init: Callable[..., jax.Array] = nn.initializers.zeros_init()

  def _factors(
      self, kernel: tuple[int, ...], **options: Any) -> list[jax.Array]:
    """Returns the parameters `u` and `v`, drawn together."""
    rank = ranks.of(*forms.of_kernel(kernel, 1, **options).matrix,
                    rank=self.rank, rank_scale=self.rank_scale)
    form = forms.of_kernel(kernel, rank, **options)
    shapes = {'u': jax.ShapeDtypeStruct(form.u, self.param_dtype),
              'v': jax.ShapeDtypeStruct(form.v, self.param_dtype)}
    if self.is_initializing():
      made = lowrank.lfai(
          activation=self.activation, method=self.method, norms=self.norms,
          base=self.kernel_init)(self.make_rng('params'), shapes)
    else:
      made = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    return [self.param(name, lambda _, name=name: made[name])
            for name in ('u', 'v')]

  def _apply(
      self, product: Callable[..., jax.Array], x: jax.Array, u: jax.Array,
      v: jax.Array,
  ) -> jax.Array:
    """Returns `product(x, u, v)`, in the layer's dtype, plus the bias."""
    bias = self.param(
        'bias', self.bias_init, (self.features,), self.param_dtype
    ) if self.use_bias else None
    x, u, v, bias = dtypes.promote(self.dtype, x, u, v, bias)
    y = product(x, u, v, precision=self.precision)
    return biases.add(y, bias)


class LowRankDense(_LowRank):
  r"""A dense layer of two factors: `x U V + b`.

  They start as the factors of a kernel that `kernel_init` draws, the closest
  past `activation`; `lowrank.lfai` makes those of a whole network at once.

  Attributes:
    features: number of outputs; the others are keywords.
    rank: of the factors; or `rank_scale`.
    rank_scale: relative to the smaller of in and out.
    activation: that follows the layer, as of `lowrank.factorize`.
    method: as of `lowrank.factorize`.
    norms: as of `lowrank.factorize`.
    use_bias: whether there is a bias.
    dtype: dtype to compute in; None is that of the inputs and parameters.
    param_dtype: dtype of the parameters.
    precision: as of `jax.lax.dot`.
    kernel_init: Initializer of the full kernel.
    bias_init: an Initializer.

  Its parameters are `u` (in, rank), `v` (rank, features) and `bias`;
  `lowrank.merge(u, v)` is the kernel of a `flax.linen.Dense` that computes the
  same.

  Example:
    >>> import flax.linen as nn, jax, structinit_jax as si
    >>> x = jax.random.normal(jax.random.key(0), (5, 64))
    >>> layer = si.layers.LowRankDense(32, rank_scale=0.25)
    >>> y, variables = layer.init_with_output(jax.random.key(1), x)
    >>> p = variables['params']
    >>> p['u'].shape, p['v'].shape
    ((64, 8), (8, 32))
    >>> full = {'kernel': si.lowrank.merge(p['u'], p['v']), 'bias': p['bias']}
    >>> z = nn.Dense(32).apply({'params': full}, x)
    >>> bool(abs(y - z).max() < 1e-5)
    True

  Source: Vodrahalli et al. (2022), section 2.
  """

  features: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps (..., in) to (..., features)."""
    u, v = self._factors((x.shape[-1], self.features))

    def product(
        x: jax.Array, u: jax.Array, v: jax.Array, precision: Any) -> jax.Array:
      return jnp.matmul(
          jnp.matmul(x, u, precision=precision), v, precision=precision)

    return self._apply(product, x, u, v)


class LowRankConv(_LowRank):
  r"""A convolution of two factors, one after the other; by `lowrank.conv`.

  Attributes:
    features: number of output channels.
    kernel_size: sizes, one for every spatial axis of the images.
    rank: of the factors; or `rank_scale`.
    rank_scale: relative to the smaller side of the matrix.
    kind: 'separable', a (1, kw) and a (kh, 1) convolution, or 'pointwise', a
      (kh, kw) and a (1, 1) one.
    strides: one, or one for every spatial axis.
    padding: pairs, an int or a name, as of `flax.linen.Conv`; not 'REFLECT'.
    kernel_dilation: one, or one for every spatial axis.
    feature_group_count: groups of channels; every one has its factors.
    activation: that follows the layer, as of `lowrank.factorize`.
    method: as of `lowrank.factorize`.
    norms: as of `lowrank.factorize`.
    use_bias: whether there is a bias.
    dtype: dtype to compute in; None is that of the inputs and parameters.
    param_dtype: dtype of the parameters.
    precision: as of `jax.lax.dot`.
    kernel_init: Initializer of the full kernel.
    bias_init: an Initializer.

  Its parameters are `u`, `v` and `bias`; `lowrank.merge(u, v)` is the kernel of
  a `flax.linen.Conv` that computes the same.

  Example:
    >>> import jax, structinit_jax as si
    >>> x = jax.random.normal(jax.random.key(0), (2, 8, 8, 16))
    >>> layer = si.layers.LowRankConv(32, (3, 3), rank_scale=0.1)
    >>> y, variables = layer.init_with_output(jax.random.key(1), x)
    >>> y.shape, variables['params']['u'].shape, variables['params']['v'].shape
    ((2, 8, 8, 32), (1, 3, 16, 5), (3, 1, 5, 32))

  Source: Khodak et al. (2021), section 3; Vodrahalli et al. (2022), section 4.
  """

  features: int
  kernel_size: Sequence[int]
  kind: str = 'separable'
  strides: int | Sequence[int] | None = 1
  padding: int | str | Sequence[tuple[int, int]] = 'SAME'
  kernel_dilation: int | Sequence[int] | None = 1
  feature_group_count: int = 1

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps (*batch, *spatial, in) to (*batch, *spatial, features)."""
    groups = base.integer('feature_group_count', self.feature_group_count, 1)
    if x.shape[-1] % groups:
      raise ValueError(
          f'x of shape {x.shape}: feature_group_count={groups} has to divide '
          f'the channels, {x.shape[-1]}')
    kernel_size = windows.kernel_sizes('kernel_size', self.kernel_size)
    u, v = self._factors(
        (*kernel_size, x.shape[-1] // groups, self.features),
        kind=self.kind, feature_groups=groups)
    product = functools.partial(
        lowrank.conv, strides=self.strides, padding=self.padding,
        dilation=self.kernel_dilation)
    return self._apply(product, x, u, v)


class LowRankAttention(nn.MultiHeadDotProductAttention):
  r"""Attention with smaller heads, which start as those of wide attention.

  The products of query and key and of value and output of a head are what
  `kernel_init` draws for heads of full size, truncated to the rank as matrices;
  `lowrank.narrow_attention` does the same to trained parameters.

  Attributes:
    num_heads: number of heads.
    qkv_features: of the full attention, over all heads; those of the inputs by
      default. All other fields of `flax.linen.MultiHeadDotProductAttention`
      are as there, but that queries and keys cannot be normalized.
    rank: size of a head; or `rank_scale`. Keywords, both.
    rank_scale: relative to the size of a head of the full attention.

  Its parameters are those of a `flax.linen.MultiHeadDotProductAttention` with
  `qkv_features = num_heads * rank`, which computes the same.

  Example:
    >>> import jax, structinit_jax as si
    >>> x = jax.random.normal(jax.random.key(0), (2, 10, 32))
    >>> layer = si.layers.LowRankAttention(4, rank_scale=0.5)
    >>> y, variables = layer.init_with_output(jax.random.key(1), x)
    >>> y.shape, variables['params']['query']['kernel'].shape
    ((2, 10, 32), (32, 4, 4))

  Source: Khodak et al. (2021), section 5; Vodrahalli et al. (2022), section 2.
  """

  rank: int | None = dataclasses.field(default=None, kw_only=True)
  rank_scale: float | None = dataclasses.field(default=None, kw_only=True)

  @nn.compact
  def __call__(
      self, inputs_q: jax.Array, *inputs: jax.Array | None, **options: Any
  ) -> jax.Array:
    """Maps (*batch, length, in) to (*batch, length, out)."""
    if self.normalize_qk:
      raise ValueError(
          'normalize_qk=True stands between queries and keys, so that they are '
          'no product; leave it False')
    fields = {
        field.name: getattr(self, field.name)
        for field in dataclasses.fields(nn.MultiHeadDotProductAttention)
        if field.init and field.name not in ('parent', 'name')}
    heads = base.integer('num_heads', self.num_heads, 1)
    features = self.qkv_features or inputs_q.shape[-1]
    if not inputs_q.shape[-1]:
      raise ValueError(f'inputs of shape {inputs_q.shape} have no features')
    if features < 1 or features % heads:
      nearest = max(features - features % heads, heads)
      raise ValueError(
          f'qkv_features={features} are none of {heads} heads; the '
          f'nearest that work are {nearest}')
    size = features // heads
    rank = ranks.of(size, size, rank=self.rank, rank_scale=self.rank_scale)
    if self.is_initializing():
      # The parameters do not depend on how they attend, or to which size.
      full = nn.MultiHeadDotProductAttention(
          **fields | {'attention_fn': nn.dot_product_attention}, parent=None)
      params = full.init(
          self.make_rng('params'), inputs_q, *inputs, **options)['params']
      made = lowrank.narrow_attention(nn.unbox(params), rank=rank)
      for name, layer in nn.meta.replace_boxed(params, made).items():
        self.put_variable('params', name, layer)
    narrow: Any = nn.MultiHeadDotProductAttention(
        **fields | {'qkv_features': heads * rank})
    nn.share_scope(self, narrow)
    return narrow(inputs_q, *inputs, **options)
