"""Any Flax model with two factors in place of some kernels."""

from collections.abc import Callable
import functools
from typing import Any

import flax.linen as nn
from flax.linen import linear
import jax.numpy as jnp

from structinit_jax import lowrank
from structinit_jax.layers import biases
from structinit_jax.lowrank import forms

__all__ = ['factored']


def factored(fn: Callable[..., Any]) -> Callable[..., Any]:
  """Lets a Flax model compute with factors where it is given factors.

  Where a `flax.linen.Dense`, `Conv` or one of attention's `DenseGeneral`s finds
  `u` and `v` among its parameters, it multiplies by one and then by the other,
  and needs no `kernel`. The model stays as it is; which layers have factors,
  and of which rank, is read from the parameters.

  Args:
    fn: `model.apply`, or a function that calls it.

  Returns:
    A function with the same arguments and results.

  Raises:
    ValueError: by the function, for a layer that factors cannot stand in for;
      the message names it.

  Example:
    >>> import flax.linen as nn, jax, jax.numpy as jnp, structinit_jax as si
    >>> model = nn.Sequential([nn.Dense(64), nn.relu, nn.Dense(10)])
    >>> x = jnp.ones((2, 32))
    >>> shapes = jax.eval_shape(model.init, jax.random.key(0), x)['params']
    >>> low = si.lowrank.factor_shapes(shapes, rank_scale=0.25)
    >>> params = si.lowrank.lfai(rest=si.zeros)(jax.random.key(0), low)
    >>> apply = si.layers.factored(model.apply)
    >>> apply({'params': params}, x).shape
    (2, 10)

  Source: this library.
  """

  @functools.wraps(fn)
  def wrapped(*args: Any, **kwargs: Any) -> Any:
    with nn.intercept_methods(_intercept):
      return fn(*args, **kwargs)

  return wrapped


def _intercept(
    call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
  layer = context.module
  compute = next(
      (compute for kind, compute in _LAYERS.items() if isinstance(layer, kind)),
      None)
  if (compute is None or context.method_name != '__call__'
      or not layer.has_variable('params', 'u')):
    return call(*args, **kwargs)
  arrays = [layer.get_variable('params', name) for name in ('u', 'v')]
  bias = layer.get_variable('params', 'bias') if layer.use_bias else None
  x = args[0] if args else kwargs['inputs']
  try:
    x, u, v, bias = layer.promote_dtype(x, *arrays, bias, dtype=layer.dtype)
    return compute(layer, x, u, v, bias)
  except ValueError as error:
    name = '/'.join(layer.scope.path)
    raise ValueError(
        f'factors of {name!r}: {error}. If the layer should keep its kernel, '
        'leave it out of select') from error


def _dense(layer: nn.Dense, x: Any, u: Any, v: Any, bias: Any) -> Any:
  return _general(layer, (-1,), x, u, v, bias)


def _dense_general(
    layer: nn.DenseGeneral, x: Any, u: Any, v: Any, bias: Any) -> Any:
  if layer.batch_dims:
    raise ValueError(f'batch_dims={layer.batch_dims} need one pair each')
  axis = layer.axis
  return _general(
      layer, (axis,) if isinstance(axis, int) else tuple(axis), x, u, v, bias)


def _general(
    layer: Any, axes: tuple[int, ...], x: Any, u: Any, v: Any, bias: Any
) -> Any:
  axes = tuple(axis % x.ndim for axis in axes)
  features = layer.features
  outputs = (features,) if isinstance(features, int) else tuple(features)
  inputs = tuple(x.shape[axis] for axis in axes)
  if u.shape[:-1] != inputs or v.shape[1:] != outputs:
    raise ValueError(
        f'u of shape {u.shape} and v of shape {v.shape} are none of a kernel '
        f'{(*inputs, *outputs)}')
  z = jnp.tensordot(
      x, u, (axes, tuple(range(len(axes)))), precision=layer.precision)
  y = jnp.tensordot(z, v, 1, precision=layer.precision)
  if bias is None:
    return y
  return y + jnp.expand_dims(bias, range(y.ndim - bias.ndim))


def _conv(layer: nn.Conv, x: Any, u: Any, v: Any, bias: Any) -> Any:
  size = layer.kernel_size
  kernel = (size,) if isinstance(size, int) else tuple(size)
  found = forms.form(u.shape, v.shape).kernel
  want = (*kernel, x.shape[-1] // layer.feature_group_count, layer.features)
  if found != want:
    raise ValueError(
        f'u of shape {u.shape} and v of shape {v.shape} are of a kernel '
        f'{found}, the layer has {want}')
  if layer.mask is not None or layer.input_dilation not in (None, 1):
    raise ValueError('a masked or transposed convolution has no factors')
  dilation = layer.kernel_dilation
  dilation = 1 if dilation is None else dilation
  padding = linear.canonicalize_padding(layer.padding, len(kernel))
  if padding == 'CAUSAL':
    steps = dilation if isinstance(dilation, int) else dilation[0]
    padding = [((kernel[0] - 1) * steps, 0)]
  options = {}
  if layer.conv_general_dilated is not None:
    options['conv_general_dilated'] = layer.conv_general_dilated
  y = lowrank.conv(
      x, u, v, strides=1 if layer.strides is None else layer.strides,
      padding=padding, dilation=dilation, precision=layer.precision, **options)
  return biases.add(y, bias)


def _conv_transpose(*_: Any) -> Any:
  raise ValueError('a transposed convolution has no factors')


_LAYERS = {nn.Dense: _dense, nn.DenseGeneral: _dense_general, nn.Conv: _conv,
           nn.ConvTranspose: _conv_transpose}
