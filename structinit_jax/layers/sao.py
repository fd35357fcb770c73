"""Sparse orthogonal layers that store and compute with their nonzeros."""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import functools
import inspect
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from structinit_jax import base
from structinit_jax import sao
from structinit_jax import windows
from structinit_jax.layers import biases
from structinit_jax.layers import dtypes
from structinit_jax.sao import compute
from structinit_jax.sao import topologies

__all__ = ['SAOConv', 'SAODense', 'SAOStack', 'plan']

_Values = tuple[jax.Array, ...]


def plan(layer: Any, features_in: int, looks_linear: bool) -> sao.Topology:
  """Returns the topology of a layer; reads its degree, density or topology."""
  base.integer('features', layer.features, 1)
  sides = 2 if looks_linear else 1
  if features_in % sides:
    raise ValueError(
        f'looks_linear=True takes an even number of features, relu(h) and '
        f'relu(-h), got {features_in}; the nearest that works is '
        f'{features_in + 1}')
  shape = (features_in // sides, layer.features)
  if layer.topology is None:
    return topologies.plan(shape, layer.degree, layer.density, 'debruijn')
  if (layer.degree, layer.density) != (None, None):
    raise ValueError(
        'topology stands instead of degree and density; give it alone')
  topologies.check_topology(layer.topology)
  if layer.topology.shape != shape:
    raise ValueError(
        f'the layer maps {shape[0]} features to {shape[1]}; its topology has '
        f'shape {layer.topology.shape}, and has to have {shape}')
  return layer.topology


def _features_of(x: jax.Array) -> int:
  if not x.ndim:
    raise ValueError(
        f'x of shape {x.shape} must be an array (..., features), at least 1 '
        'axis')
  return x.shape[-1]


def _leaf(params: Any, name: str) -> Any:
  if not isinstance(params, Mapping) or name not in params:
    given = (sorted(map(str, params)) if isinstance(params, Mapping) else
             f'of type {type(params).__name__}')
    raise ValueError(
        f'params {given} have no {name!r}; give those of this layer alone, '
        "such as variables['params']")
  return params[name]


def _mirrored(values: _Values, looks_linear: bool) -> _Values:
  return tuple(
      jnp.stack([x, -x]) for x in values) if looks_linear else values


def _apply(
    fn: Callable[..., jax.Array], x: jax.Array, values: Sequence[jax.Array],
    looks_linear: bool, axis: int = -1, **once: Any,
) -> jax.Array:
  """Applies `fn(x, values)`, or adds what it makes of both halves.

  The first half alone gets `once`.
  """
  if not looks_linear:
    return fn(x, values, **once)
  one, other = jnp.split(x, 2, axis)
  return fn(one, [v[0] for v in values], **once) + fn(
      other, [v[1] for v in values])


def _has_axis(fn: Callable[..., Any]) -> bool:
  try:
    return 'axis' in inspect.signature(fn).parameters
  except ValueError:  # of a ufunc
    return False


class _Sparse(nn.Module, kw_only=True):
  """What layers with values in place of a kernel share."""

  density: float | None = None
  topology: sao.Topology | None = None
  looks_linear: bool = False
  use_bias: bool = True
  dtype: Any = None
  param_dtype: Any = jnp.float32
  precision: Any = None
  bias_init: Callable[..., jax.Array] = nn.initializers.zeros_init()

  def _bias(self, *shape: int) -> jax.Array | None:
    return self.param(
        'bias', self.bias_init, shape, self.param_dtype
    ) if self.use_bias else None

  @property
  def _taps(self) -> tuple[int, ...]:
    return ()

  @nn.nowrap
  def _check_leaf(
      self, name: str, arrays: Any, sizes: tuple[int, ...], last: str) -> None:
    """Checks the axes of leaves (*batch, *sizes, *last), last as written."""
    start = len(sizes) + last.count(',') + 1
    shapes = [getattr(x, 'shape', None) for x in arrays] if isinstance(
        arrays, Sequence) else []
    if not shapes or any(
        shape is None or len(shape) < start
        or shape[len(shape) - start:][:len(sizes)] != sizes
        for shape in shapes):
      shown = ''.join(f'{size}, ' for size in sizes)
      raise ValueError(
          f'{name} of shapes {shapes} must be arrays (*batch, {shown}{last}), '
          f'those of a {type(self).__name__} with looks_linear='
          f'{self.looks_linear}')

  @nn.nowrap
  def to_dense(self, params: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the parameters of the dense layer that computes the same.

    Args:
      params: of this layer: `values`, and `bias` if there is one. Those of
        many, as of `flax.linen.vmap`, are stacked along leading axes.

    Returns:
      The same, with the masked `kernel` in place of `values`: parameters of a
      `flax.linen.Dense`, `Conv`, or a scan of the first.

    Raises:
      ValueError: for parameters that are not those of this layer.
    """
    values = _leaf(params, 'values')
    taps = self._taps
    self._check_leaf(
        'values', values, (2, *taps) if self.looks_linear else taps,
        'count, d, c')
    if self.topology is None:
      sides = 2 if self.looks_linear else 1
      topology = plan(
          self, sides * sum(x.shape[-3] * x.shape[-2] for x in values),
          self.looks_linear)
    else:
      topologies.check_topology(self.topology)
      topology = self.topology
    kernel = sao.to_dense(values, topology)
    if self.looks_linear:
      kernel = jnp.moveaxis(kernel, -3 - len(taps), -3)
      kernel = kernel.reshape(
          *kernel.shape[:-3], 2 * topology.shape[0], topology.shape[1])
    rest = {name: x for name, x in params.items() if name != 'values'}
    return {'kernel': kernel, **rest}

  @nn.nowrap
  def from_dense(self, params: Mapping[str, Any]) -> dict[str, Any]:
    """Returns this layer's parameters from those of a dense one.

    Args:
      params: `kernel`, and `bias` if there is one; what the mask removes of the
        kernel is dropped. Those of many layers are stacked along leading axes.

    Returns:
      The same, with `values` in place of `kernel`.

    Raises:
      ValueError: for parameters that are not those of such a layer.
    """
    kernel = _leaf(params, 'kernel')
    self._check_leaf('kernel', [kernel], self._taps, 'in, out')
    topology = plan(self, kernel.shape[-2], self.looks_linear)
    if self.looks_linear:
      kernel = kernel.reshape(*kernel.shape[:-2], 2, *topology.shape)
      kernel = jnp.moveaxis(kernel, -3, -3 - len(self._taps))
    rest = {name: x for name, x in params.items() if name != 'kernel'}
    return {'values': sao.from_dense(kernel, topology), **rest}


class SAODense(_Sparse):
  r"""A sparse orthogonal dense layer: `x @ K + b` with `nnz` weights.

  It stores the nonzeros of K, as `sao.orthogonal_values` samples them, and
  multiplies by `sao.matmul`: time and memory are those of the nonzeros. With
  'debruijn', what `degree` and `density` stand for, there are no indices.

  Attributes:
    features: number of outputs.
    degree: inputs of an output; give it, `density` or `topology`. What follows
      is given by keyword.
    density: one over a whole number; see `sao.topology`.
    topology: a Topology (in, out) of any kind.
    looks_linear: whether the inputs are relu(h) and relu(-h), as of `crelu`:
      the kernel [Q; -Q] has two values for every entry of the topology, which
      is that of Q, and the layer starts as h -> h Q.
    use_bias: whether there is a bias.
    dtype: dtype to compute in; None is that of the inputs and parameters.
    param_dtype: dtype of the parameters.
    precision: as of `jax.lax.dot`.
    values_init: `(key, topology, dtype=...) -> values`.
    bias_init: an Initializer.

  Its parameters are `values`, a tuple of arrays (count, d, c), and `bias`.
  `to_dense` and `from_dense` convert them to and from those of `nn.Dense`.

  Example:
    >>> import flax.linen as nn, jax
    >>> from structinit_jax import layers
    >>> x = jax.random.normal(jax.random.key(0), (5, 1024))
    >>> layer = layers.SAODense(512, degree=8)
    >>> params = layer.init(jax.random.key(1), x)['params']
    >>> [v.shape for v in params['values']], params['bias'].shape
    ([(128, 8, 4)], (512,))
    >>> dense = {'params': layer.to_dense(params)}
    >>> y, z = layer.apply({'params': params}, x), nn.Dense(512).apply(dense, x)
    >>> bool(abs(y - z).max() < 1e-5)
    True

  Source: Esguerra (2023), sections 3.4.2 and 3.4.3.
  """

  features: int
  degree: int | None = None
  values_init: Callable[..., _Values] = sao.orthogonal_values

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps (..., in) to (..., features)."""
    topology = plan(self, _features_of(x), self.looks_linear)
    values = self.param('values', lambda key: _mirrored(
        self.values_init(key, topology, dtype=self.param_dtype),
        self.looks_linear))
    bias = self._bias(self.features)
    x, bias, *values = dtypes.promote(self.dtype, x, bias, *values)
    y = _apply(lambda x, values: compute.matmul(
        x, values, topology, precision=self.precision), x, values,
        self.looks_linear)
    return biases.add(y, bias)


class SAOConv(_Sparse):
  r"""A sparse orthogonal convolution that stores the kernels it keeps.

  SAO-Delta by default; `values_init=sao.eco_values`, `padding='CIRCULAR'` and
  `kernel_dilation=n // k` make it SAO-ECO. It computes by `sao.conv`.

  Attributes:
    features: number of output channels.
    kernel_size: sizes, one for every spatial axis of the images.
    strides: one, or one for every spatial axis. A stride above 1 is no
      isometry; `sao.space_to_depth` before the layer is.
    padding: pairs, an int or a name, as of `flax.linen.Conv`; not 'REFLECT'.
    kernel_dilation: one, or one for every spatial axis.
    degree: input channels of an output channel; or `density` or `topology`.
    density: as of `SAODense`.
    topology: as of `SAODense`, of the channels.
    looks_linear: as of `SAODense`, of the channels.
    use_bias: whether there is a bias.
    dtype: as of `SAODense`.
    param_dtype: dtype of the parameters.
    precision: as of `jax.lax.dot`.
    values_init: `(key, topology, kernel_size, dtype=...) -> values`.
    bias_init: an Initializer.

  Its parameters are `values`, a tuple of arrays (*kernel_size, count, d, c),
  after a first axis of 2 if `looks_linear`, and `bias`.

  Example:
    >>> import jax
    >>> from structinit_jax import layers
    >>> x = jax.random.normal(jax.random.key(0), (2, 8, 8, 64))
    >>> layer = layers.SAOConv(64, (3, 3), degree=4)
    >>> y, variables = layer.init_with_output(jax.random.key(1), x)
    >>> y.shape, [v.shape for v in variables['params']['values']]
    ((2, 8, 8, 64), [(3, 3, 16, 4, 4)])
    >>> ratio = jax.numpy.linalg.norm(y) / jax.numpy.linalg.norm(x)
    >>> bool(abs(ratio - 1) < 1e-5)
    True

  Source: Esguerra (2023), section 3.4.4.
  """

  features: int
  kernel_size: Sequence[int]
  strides: int | Sequence[int] | None = 1
  padding: int | str | Sequence[tuple[int, int]] = 'SAME'
  kernel_dilation: int | Sequence[int] | None = 1
  degree: int | None = None
  values_init: Callable[..., _Values] = sao.delta_values

  @property
  def _taps(self) -> tuple[int, ...]:
    return windows.kernel_sizes('kernel_size', self.kernel_size)

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps (*batch, *spatial, in) to (*batch, *spatial, features)."""
    taps = self._taps
    topology = plan(self, _features_of(x), self.looks_linear)
    values = self.param('values', lambda key: _mirrored(
        self.values_init(key, topology, taps, dtype=self.param_dtype),
        self.looks_linear))
    bias = self._bias(self.features)
    x, bias, *values = dtypes.promote(self.dtype, x, bias, *values)
    conv = functools.partial(
        compute.conv, topology=topology, strides=self.strides,
        padding=self.padding, dilation=self.kernel_dilation,
        precision=self.precision)
    return _apply(conv, x, values, self.looks_linear, bias=bias)


class SAOStack(_Sparse):
  r"""Equal-width sparse orthogonal layers, feature-major, under one scan.

  `h -> activation(h K_l + b_l)`, l = 1 .. depth: what as many `SAODense` with
  the activation after each compute, but features stay rows from the first layer
  to the last, and 10,000 layers compile as fast as one. All layers have one
  topology. Of a layer one array is stored for the backward pass, h K_l + b_l.

  With `activation=crelu` and `looks_linear=True` inputs and outputs have
  2 `features`, and the stack starts as a linear isometry of h.

  Attributes:
    depth: number of layers.
    features: units of a layer.
    degree: as of `SAODense`; or `density` or `topology`.
    activation: an elementwise function, or one with a parameter `axis`, that of
      the features, such as `maxmin`, `crelu` or `nn.softmax`.
    density: as of `SAODense`.
    topology: as of `SAODense`, of shape (features, features).
    looks_linear: as of `SAODense`.
    use_bias: whether there are biases.
    dtype: as of `SAODense`.
    param_dtype: dtype of the parameters.
    precision: as of `jax.lax.dot`.
    values_init: as of `SAODense`, called with a key for every layer.
    bias_init: an Initializer.

  Its parameters are those of a layer with a first axis of `depth`.

  Example:
    >>> import jax
    >>> from structinit_jax import layers
    >>> x = layers.crelu(jax.random.normal(jax.random.key(0), (5, 256)))
    >>> stack = layers.SAOStack(
    ...     1000, 256, 4, layers.crelu, looks_linear=True)
    >>> y, variables = stack.init_with_output(jax.random.key(1), x)
    >>> [v.shape for v in variables['params']['values']]
    [(1000, 2, 64, 4, 4)]
    >>> ratio = jax.numpy.linalg.norm(y) / jax.numpy.linalg.norm(x)
    >>> bool(abs(ratio - 1) < 1e-3)
    True

  Source: Esguerra (2023), section 3.5.3.1, of tanh networks.
  """

  depth: int
  features: int
  degree: int | None = None
  activation: Callable[..., jax.Array] = nn.tanh
  values_init: Callable[..., _Values] = sao.orthogonal_values

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps (..., features) to itself, twice as many if `looks_linear`."""
    base.integer('depth', self.depth, 1)
    width = (2 if self.looks_linear else 1) * base.integer(
        'features', self.features, 1)
    # Not a vmap: that of a function with a rule of its own, such as relu,
    # moves the batch to the front and back again.
    activation = self.activation
    if not callable(activation):
      raise ValueError(f'activation {activation!r} is no function')
    if _has_axis(activation):
      activation = functools.partial(activation, axis=0)
    try:
      given = jax.eval_shape(
          activation, jax.ShapeDtypeStruct((self.features, 1), x.dtype)).shape
    except (AttributeError, TypeError) as error:
      raise ValueError(
          f'activation {activation!r} is no function of one array that JAX '
          'can trace, with one array as its result') from error
    if not x.ndim or x.shape[-1] != width or given != (width, 1):
      raise ValueError(
          f'a stack of {self.features} features with looks_linear='
          f'{self.looks_linear} has layers that take {width}; x has shape '
          f'{x.shape}, and the activation makes ({self.features}, 1) to '
          f'{given}')
    topology = plan(self, width, self.looks_linear)
    values = self.param('values', lambda key: jax.vmap(lambda key: _mirrored(
        self.values_init(key, topology, dtype=self.param_dtype),
        self.looks_linear))(jax.random.split(key, self.depth)))
    bias = self._bias(self.depth, self.features)
    x, bias, *values = dtypes.promote(self.dtype, x, bias, *values)

    def layer(
        h: jax.Array, values: Sequence[jax.Array], bias: jax.Array | None
    ) -> jax.Array:
      z = _apply(lambda h, values: compute.matmul(
          h, values, topology, axis=0, precision=self.precision), h, values,
          self.looks_linear, axis=0)
      return z if bias is None else z + bias[:, None]

    # From z to z, not from h to h: what is stored is z, and the backward pass
    # computes the activation again, but no product.
    def step(z: jax.Array, params: Any) -> tuple[jax.Array, None]:
      return layer(activation(z), *params), None

    first, rest = (
        jax.tree.map(lambda v, part=part: v[part], (values, bias))
        for part in (0, slice(1, None)))
    z = layer(x.reshape(-1, width).T, *first)
    z, _ = jax.lax.scan(jax.checkpoint(step, prevent_cse=False), z, rest)
    return activation(z).T.reshape(x.shape)
