"""Convolutions and dense layers of Flax models, met on the way; needs flax.

A `Network` runs a model on a batch. At every convolution and dense layer it
hands what the layer is, what it sees and its weights to a visitor, which
returns the weights to go on with. Batch normalization uses the statistics of
the batch, whatever the mode of the model.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import dataclasses
from typing import Any
from typing import NamedTuple

from flax import errors
from flax import linen as nn
from flax import nnx
from flax.core import meta
import jax
from jax import lax
import jax.numpy as jnp

from structinit_jax import base
from structinit_jax import tree
from structinit_jax import windows

__all__ = ['Layer', 'Network', 'network']

_RECORDS = 'structinit_records'


class Layer(NamedTuple):
  """What a layer is, apart from its weights.

  Attributes:
    name: of its kernel among the leaves.
    kind: of the module, such as 'Conv'.
    window: strides, padding, dilation and groups, as of `kmeans.score`.
    refused: why it cannot be served, or ''.
  """

  name: str
  kind: str
  window: Mapping[str, Any]
  refused: str = ''


class Call(NamedTuple):
  """A call of a layer, as a visitor meets it.

  Attributes:
    layer: what is called.
    inputs: of the call.
    kernel: of the layer.
    bias: of the layer, or None.
    apply: `(kernel, bias) -> outputs`, with these weights from then on. Once.
    put: `(kernel, bias) -> None`, which are the layer's from then on.
  """

  layer: Layer
  inputs: jax.Array
  kernel: jax.Array
  bias: jax.Array | None
  apply: Callable[[Any, Any], jax.Array]
  put: Callable[[Any, Any], None]


# Returns the outputs to go on with, and what to record of the layer.
Visit = Callable[[Call], tuple[jax.Array, Any]]


@dataclasses.dataclass(frozen=True)
class Network:
  """A model whose layers can be visited.

  Attributes:
    shapes: its parameters by leaf name, as `jax.ShapeDtypeStruct`.
    initial: `key -> params`, by leaf name, as the model makes them itself.
    run: `(params, batch, visit) -> (params, records)`, both by leaf name: the
      parameters as visits left them and, in lists, what they recorded.
  """

  shapes: Mapping[str, jax.ShapeDtypeStruct]
  initial: Callable[[base.Key], dict[str, jax.Array]]
  run: Callable[..., tuple[dict[str, jax.Array], dict[str, list[Any]]]]


def network(
    model: Any, batch: Any, arguments: Mapping[str, Any] | None) -> Network:
  """Returns the Network of a model.

  Args:
    model: a Linen or an NNX module.
    batch: its input.
    arguments: keyword arguments of its call; None are none.

  Returns:
    A Network.

  Raises:
    ValueError: if it is neither, or cannot be called so.
  """
  kind = type(model).__name__
  if not isinstance(model, nn.Module | nnx.Module):
    raise ValueError(
        f'model is a {kind}; it must be a flax.linen.Module or a '
        'flax.nnx.Module')
  arguments = {} if arguments is None else arguments
  if not isinstance(arguments, Mapping):
    raise ValueError(
        f'arguments={arguments!r} must be the keyword arguments of the call of '
        f"{kind}, such as {{'train': True}}")
  try:
    return (_linen if isinstance(model, nn.Module) else _nnx)(
        model, batch, arguments)
  except (TypeError, ValueError, errors.FlaxError) as error:
    raise ValueError(
        f'{kind} cannot be called on a batch of shape {batch.shape} with '
        f'arguments={dict(arguments)}: {error}') from error


def _named(params: Any) -> dict[str, jax.Array]:
  """Returns the leaves of Linen or NNX parameters, by name."""
  names, leaves, _ = tree.flatten_with_names(meta.unbox(params))
  return dict(zip(names, leaves, strict=True))


def _structs(named: Mapping[str, Any]) -> dict[str, jax.ShapeDtypeStruct]:
  return {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
          for name, leaf in named.items()}


def _window(layer: Any, ndim: int) -> tuple[dict[str, Any], str]:
  """Returns the options of a convolution's window, or why it has none."""
  padding = layer.padding
  window = {
      'strides': windows.per_axis('strides', layer.strides, ndim),
      'padding': padding,
      'dilation': windows.per_axis('dilation', layer.kernel_dilation, ndim),
      'groups': layer.feature_group_count}
  refused = ''
  if layer.input_dilation not in (None, 1) and set(
      layer.input_dilation) != {1}:
    refused = 'its inputs are dilated'
  elif isinstance(padding, str) and padding not in windows.PADDINGS:
    refused = f'its padding is {padding!r}'
  elif layer.mask is not None:
    refused = 'its kernel is masked'
  return window, refused


_DENSE = {'strides': 1, 'padding': 'SAME', 'dilation': 1, 'groups': 1}


def _layer(module: Any, name: str, kernel: Any, shape: tuple[int, ...] | None,
           convs: Any, denses: Any) -> Layer:
  """Returns the Layer of a module with a leaf `kernel`."""
  kind, window, refused = type(module).__name__, dict(_DENSE), ''
  if type(module) in convs:
    window, refused = _window(module, kernel.ndim - 2)
  elif type(module) not in denses:
    served = ' or '.join(cls.__name__ for cls in (*convs, *denses))
    refused = f'a {kind} is no {served}'
  if shape is not None and tuple(kernel.shape) != tuple(shape):
    refused = ('its kernel is stacked by a scan or a vmap, and layers inside '
               'cannot be told apart')
  return Layer(name, kind, window, refused)


def _linen(model: Any, batch: Any, arguments: Mapping[str, Any]) -> Network:
  def variables(key: base.Key) -> Any:
    keys = {'params': key, 'dropout': jax.random.fold_in(key, 1)}
    return dict(model.init(keys, batch, **arguments))

  structs = jax.eval_shape(variables, jax.random.key(0))
  held = meta.unbox(structs.get('params', {}))
  shapes = _structs(_named(held))
  names, treedef = [*shapes], jax.tree.structure(held)
  stateful = bool({*structs} - {'params'})
  normed: list[str] = []  # modules around, that make other kernels of theirs

  def run(
      params: Mapping[str, jax.Array], batch: Any, visit: Visit
  ) -> tuple[dict[str, jax.Array], dict[str, list[Any]]]:

    def intercept(
        call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
      module = context.module
      if context.method_name != '__call__':
        return call(*args, **kwargs)
      if isinstance(module, nn.BatchNorm):
        return _normalize(module, *args, **{
            k: v for k, v in kwargs.items() if k != 'use_running_average'})
      if isinstance(module, nn.SpectralNorm | nn.WeightNorm):
        normed.append(type(module).__name__)
        try:
          return call(*args, **kwargs)
        finally:
          normed.pop()
      if not module.has_variable('params', 'kernel') or module.has_variable(
          _RECORDS, 'record'):
        return call(*args, **kwargs)
      kernel = module.get_variable('params', 'kernel')
      name = '/'.join((*module.scope.path, 'kernel'))
      shape = shapes[name].shape if name in shapes else None
      layer = _layer(module, name, kernel, shape, (nn.Conv,), (nn.Dense,))
      if not (name in shapes and module.is_mutable_collection('params')):
        layer = layer._replace(
            refused='a transformation around it holds its parameters')
      if normed:
        layer = layer._replace(refused=f'a {normed[-1]} is around it')
      bias = (module.get_variable('params', 'bias')
              if module.has_variable('params', 'bias') else None)

      def put(kernel: Any, bias: Any) -> None:
        module.put_variable('params', 'kernel', kernel)
        if bias is not None:
          module.put_variable('params', 'bias', bias)

      def apply(kernel: Any, bias: Any) -> Any:
        put(kernel, bias)
        return call(*args, **kwargs)

      inputs = args[0] if args else next(iter(kwargs.values()))
      if layer.refused:  # unless the kernel is that of a layer inside
        y = call(*args, **kwargs)
        if not module.has_variable(_RECORDS, 'record'):
          visit(Call(layer, inputs, kernel, bias, lambda *_: y, put))
        return y
      y, record = visit(Call(layer, inputs, kernel, bias, apply, put))
      if record is not None:
        module.sow(_RECORDS, 'record', record)
      return y

    state = variables(jax.random.key(0)) if stateful else {}
    state['params'] = treedef.unflatten([params[name] for name in names])
    with nn.intercept_methods(intercept):
      _, state = model.apply(
          state, batch, mutable=True, **arguments, rngs={
              name: jax.random.key(0) for name in ('params', 'dropout')})
    records: dict[str, list[Any]] = {}
    _collect(state.get(_RECORDS, {}), (), records)
    return _named(state.get('params', {})), records

  return Network(
      shapes, jax.jit(lambda key: _named(variables(key).get('params', {}))),
      run)


def _collect(
    node: Any, path: tuple[str, ...], records: dict[str, list[Any]]) -> None:
  """Gathers what modules sowed, by the name of the module's kernel."""
  for name, value in node.items():
    if name == 'record' and isinstance(value, tuple):
      records['/'.join((*path, 'kernel'))] = [*value]
    else:
      _collect(value, (*path, name), records)


def _normalize(module: Any, x: jax.Array, mask: Any = None) -> jax.Array:
  """Returns what batch normalization makes of a batch, without state."""
  axes = module.axis if isinstance(module.axis, tuple) else (module.axis,)
  axes = tuple(axis % x.ndim for axis in axes)
  others = tuple(axis for axis in range(x.ndim) if axis not in axes)
  y = x.astype(base.compute_dtype(x.dtype))
  where = None if mask is None else jnp.asarray(mask, bool)
  mean = jnp.mean(y, others, keepdims=True, where=where)
  variance = jnp.mean((y - mean)**2, others, keepdims=True, where=where)
  y = (y - mean) * lax.rsqrt(variance + module.epsilon)
  shape = [x.shape[a] if a in axes else 1 for a in range(x.ndim)]
  for name, used, combine in (('scale', module.use_scale, jnp.multiply),
                              ('bias', module.use_bias, jnp.add)):
    if used:
      weights = module.get_variable('params', name)
      y = combine(y, weights.reshape(shape).astype(y.dtype))
  return y.astype(module.dtype or x.dtype)


@contextlib.contextmanager
def _calls(kinds: Any, handle: Callable[..., Any]) -> Iterator[None]:
  """Lets `handle(call, module, *args)` stand in for calls of these classes."""

  def patched(call: Callable[..., Any]) -> Callable[..., Any]:
    def wrapper(module: Any, *args: Any, **kwargs: Any) -> Any:
      return handle(call, module, *args, **kwargs)
    return wrapper

  calls = {kind: kind.__dict__['__call__'] for kind in kinds
           if '__call__' in kind.__dict__}
  try:
    for kind, call in calls.items():
      kind.__call__ = patched(call)
    yield
  finally:
    for kind, call in calls.items():
      kind.__call__ = call


def _nnx(model: Any, batch: Any, arguments: Mapping[str, Any]) -> Network:
  graph, held, rest = nnx.split(model, nnx.Param, ...)
  names, leaves, treedef = tree.flatten_with_names(held)
  others, rest_def = jax.tree.flatten(rest)
  shapes = _structs(dict(zip(names, leaves, strict=True)))

  def run(
      params: Mapping[str, jax.Array], batch: Any, visit: Visit
  ) -> tuple[dict[str, jax.Array], dict[str, list[Any]]]:
    state = treedef.unflatten([params[name] for name in names])
    # Variables belong to the trace they are made in: those of a jit are new.
    copy = nnx.merge(graph, state, rest_def.unflatten(others))
    paths = {id(module): '/'.join(map(str, path))
             for path, module in nnx.iter_modules(copy)}
    kinds = {type(module) for _, module in nnx.iter_modules(copy)
             if hasattr(module, 'kernel')} | {nnx.BatchNorm}
    records: dict[str, list[Any]] = {}

    def handle(
        call: Callable[..., Any], module: Any, *args: Any, **kwargs: Any
    ) -> Any:
      if isinstance(module, nnx.BatchNorm):
        kwargs['use_running_average'] = False  # may be the second argument
        return call(module, *args[:1], **kwargs)
      path = paths.get(id(module))
      name = 'kernel' if path == '' else f'{path}/kernel'
      if name not in shapes or name in records:
        return call(module, *args, **kwargs)
      kernel = module.kernel[...]
      bias = getattr(module, 'bias', None)
      layer = _layer(module, name, kernel, shapes[name].shape,
                     (nnx.Conv,), (nnx.Linear,))

      def put(kernel: Any, bias: Any) -> None:
        module.kernel[...] = kernel
        if bias is not None:
          module.bias[...] = bias

      def apply(kernel: Any, bias: Any) -> Any:
        put(kernel, bias)
        return call(module, *args, **kwargs)

      inputs = args[0] if args else next(iter(kwargs.values()))
      y, record = visit(Call(
          layer, inputs, kernel, None if bias is None else bias[...], apply,
          put))
      records[name] = [] if record is None else [record]
      return y

    with _calls(kinds, handle):
      copy(batch, **arguments)
    found = _named(nnx.state(copy, nnx.Param))
    return found, {name: record for name, record in records.items() if record}

  def initial(key: base.Key) -> dict[str, jax.Array]:
    del key  # an NNX module holds its values
    return dict(zip(names, leaves, strict=True))

  jax.eval_shape(lambda params, batch: run(  # its errors
      params, batch, lambda call: (call.apply(call.kernel, call.bias), None)),
      shapes, batch)
  return Network(shapes, initial, run)
