"""Initializers that look at a batch of images through the network itself."""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import functools
import importlib
import inspect
import math
import re
from typing import Any
import warnings

import jax
import jax.numpy as jnp
import numpy as np

from structinit_jax import base
from structinit_jax import descent
from structinit_jax import linalg
from structinit_jax import tree
from structinit_jax.kmeans import objectives
from structinit_jax.kmeans import solver

__all__ = ['clusters', 'joint', 'joint_loss', 'layer_statistics', 'lsuv']

METHODS = ('whitened', 'greedy', 'joint')
SCALES = ('variance', 'kept')
_MINIBATCH = 64
_ROUNDING = 1e-12  # relative variance of what does not vary
_REST = ("for one Initializer of all leaves there is "
         "si.partition([('.*', initializer)])")
_SEEN = np.zeros(())  # a record: a layer's second call leaves it as it is


def _networks() -> Any:
  """Imports `networks`, and with it flax, when there is a model to visit."""
  return importlib.import_module('structinit_jax.kmeans.networks')


def _check_batch(batch: Any) -> jax.Array:
  try:
    batch = jnp.asarray(batch)
  except (TypeError, ValueError) as error:
    raise ValueError(f'batch is no array: {error}') from error
  if batch.ndim < 2 or not batch.size or not jnp.issubdtype(
      batch.dtype, jnp.floating):
    raise ValueError(
        f'batch of shape {batch.shape} and dtype {batch.dtype} must be '
        'floating-point inputs (examples, ...) as the model takes them: '
        'images alone, scaled, no labels')
  if not isinstance(batch, jax.core.Tracer):
    with jax.ensure_compile_time_eval():  # a constant of some jitted function
      finite = bool(jnp.isfinite(batch).all())
      constant = bool(batch.min() == batch.max())
    if not finite:
      wrong = np.argwhere(~np.isfinite(np.asarray(batch, np.float32)))[0]
      raise ValueError(
          f'batch is not finite: example {wrong[0]} has a NaN or inf at '
          f'{tuple(int(i) for i in wrong[1:])}')
    if constant:
      raise ValueError(
          f'batch of shape {batch.shape} is constant: there is nothing to '
          'cluster; pass images that differ')
    # The compiler is to place what comes of it, on whichever mesh it is.
    where = batch.sharding
    if isinstance(where, jax.sharding.NamedSharding):
      mesh = jax.sharding.Mesh(where.mesh.devices, where.mesh.axis_names)
      batch = jax.device_put(
          batch, jax.sharding.NamedSharding(mesh, where.spec))
  return batch


def _auto_mesh() -> Any:
  """Returns a context where no mesh axis is explicit: XLA places everything."""
  mesh = jax.sharding.get_abstract_mesh()
  if not mesh.explicit_axes:
    return contextlib.nullcontext()
  return jax.sharding.use_abstract_mesh(mesh.update_axis_types(
      dict.fromkeys(mesh.explicit_axes, jax.sharding.AxisType.Auto)))


def _placed(function: Callable[..., Any], *arrays: Any) -> Any:
  """Calls a function where no axis is explicit; results are on all devices."""
  if not jax.sharding.get_abstract_mesh().explicit_axes:
    return function(*arrays)
  return jax.sharding.auto_axes(function, out_sharding=jax.P())(*arrays)


def _single(call: Any) -> bool:
  """Returns whether a filter has a group of its own: no clusters."""
  return call.kernel.shape[-1] == call.layer.window['groups']


def _may_vary(network: Any, batch: jax.Array, names: set[str]) -> bool:
  """Returns whether these kernels may depend on the inputs of their layers."""

  def visit(call: Any) -> Any:
    if call.layer.name not in names:
      return call.apply(call.kernel, call.bias), _SEEN
    kernel = call.kernel + 0 * call.inputs.sum().astype(call.kernel.dtype)
    y = call.apply(kernel, call.bias)
    call.put(kernel, None if call.bias is None else (
        call.bias + 0 * y.sum().astype(call.bias.dtype)))
    return y, _SEEN

  try:
    jax.eval_shape(
        lambda params, batch: network.run(params, batch, visit),
        dict(network.shapes), batch)
  except (TypeError, ValueError, _networks().errors.FlaxError):
    return False
  return True


def _plan(
    network: Any, batch: jax.Array, select: str | None, what: str,
    clusters: bool = True,
) -> dict[str, Any]:
  """Returns the layers to serve, by the name of their kernel, in order."""
  found: dict[str, Any] = {}

  def visit(call: Any) -> Any:
    layer = call.layer
    if clusters and not layer.refused and layer.name not in found:
      count = solver.window_count(
          call.inputs.shape, call.kernel.shape, layer.window)
      filters = call.kernel.shape[-1] // layer.window['groups']
      if _single(call):
        layer = layer._replace(
            refused='it has one filter a group, nothing to tell apart')
      elif base.fan_in(call.kernel.shape) == 1:
        layer = layer._replace(
            refused='its window sees one number, where all filters are alike')
      elif count < filters:
        images = math.ceil(filters / max(1, count / len(batch)))
        layer = layer._replace(refused=(
            f'{count} patches of {len(batch)} examples are fewer than its '
            f'{filters} filters; at least {images} examples would do'))
    found.setdefault(layer.name, layer)
    return call.apply(call.kernel, call.bias), _SEEN

  jax.eval_shape(
      lambda params, batch: network.run(params, batch, visit),
      dict(network.shapes), batch)
  last = next(reversed(found), None)
  for name, struct in network.shapes.items():
    leaf = name.split('/')[-1]
    if len(struct.shape) > 1 and leaf not in ('bias', 'scale'):
      found.setdefault(name, _networks().Layer(name, '', {}, (
          'no call of it is met: it is not used, or inside a transformation'
          if leaf == 'kernel' else 'it is no kernel of a convolution or a '
          'dense layer')))
  names = {name for name, layer in found.items() if not layer.refused}
  if not _may_vary(network, batch, names):
    for name in names:
      if not _may_vary(network, batch, {name}):
        found[name] = found[name]._replace(
            refused='a transformation around it shares its parameters')
  served = {name: layer for name, layer in found.items() if not layer.refused}
  if select is None:
    chosen = {name: layer for name, layer in served.items()
              if name != last or not clusters
              or layer.kind.startswith('Conv')}
    refused = [f'{name} ({layer.refused})' for name, layer in found.items()
               if layer.refused]
    if refused and chosen:
      warnings.warn(
          f'{what} leaves as they are: {"; ".join(refused)}', stacklevel=3)
  else:
    try:
      pattern = re.compile(select)
    except (re.error, TypeError) as error:
      raise ValueError(
          f'select={select!r} is not a regular expression: {error}') from error
    chosen = {name: layer for name, layer in found.items()
              if pattern.fullmatch(name)}
    for name, layer in chosen.items():
      if layer.refused:
        raise ValueError(
            f'select={select!r} asks for leaf {name!r} of shape '
            f'{network.shapes[name].shape}, which {what} cannot serve: '
            f'{layer.refused}')
  if not chosen:
    every = '; '.join(
        f'{name} ({layer.refused or "served"})'
        for name, layer in found.items()) or 'none'
    note = '' if select else (
        '; the last layer, if dense, has to be asked for by select')
    raise ValueError(
        f'{what} has no layer to serve: select={select!r}, and the leaves are '
        f'{every}{note}')
  return chosen


def _kept(kernel: jax.Array, like: jax.Array) -> jax.Array:
  """Returns a kernel whose filters have the norms of another one's."""
  factor = objectives.norms(like) / objectives.norms(kernel)
  return kernel * factor[(None,) * (kernel.ndim - 1)]


def _settle(
    call: Any, kernel: jax.Array, *, scale: str, center: bool
) -> jax.Array:
  """Returns a layer's outputs with a kernel at the scale that is asked for.

  Outputs are linear in the kernel: they are computed once.
  """
  dtype, bias = call.kernel.dtype, call.bias
  y = call.apply(
      kernel.astype(dtype), None if bias is None else jnp.zeros_like(bias))
  lead = (None,) * (y.ndim - 1)
  outputs, unit = objectives.scaled(
      y.astype(kernel.dtype),
      None if scale == 'layer' else tuple(range(y.ndim - 1)))
  unit = unit.reshape(-1)
  mean = outputs.mean(range(y.ndim - 1))
  variance = jnp.mean((outputs - mean[lead])**2, range(y.ndim - 1))
  if scale == 'layer':
    variance = jnp.full_like(variance, outputs.var())
  if scale == 'kept':
    factor = unit * objectives.norms(
        call.kernel.astype(kernel.dtype)) / objectives.norms(kernel)
  else:
    varies = variance > _ROUNDING * jnp.mean(outputs**2, range(y.ndim - 1))
    factor = jnp.where(
        varies, jax.lax.rsqrt(jnp.where(varies, variance, 1)), unit)
  if bias is not None:
    bias = (-mean * factor if center else bias).astype(bias.dtype)
  call.put(
      (kernel * (factor / unit)[(None,) * (kernel.ndim - 1)]).astype(dtype),
      bias)
  outputs = outputs * factor[lead]
  if bias is not None:
    outputs = outputs + bias.astype(kernel.dtype)[lead]
  return outputs.astype(y.dtype)


def _layerwise(
    key: base.Key, params: dict[str, jax.Array], batch: jax.Array, *,
    network: Any, chosen: Mapping[str, Any], make: Callable[..., jax.Array],
    scale: str, center: bool,
) -> dict[str, jax.Array]:
  """Makes one layer after the other, on the way of one run of the model."""

  def visit(call: Any) -> Any:
    if call.layer.name not in chosen:
      return call.apply(call.kernel, call.bias), None
    inner = base.compute_dtype(call.kernel.dtype)
    kernel = make(
        tree.leaf_key(key, call.layer.name), call.layer,
        call.inputs.astype(inner), call.kernel.astype(inner))
    return _settle(call, kernel, scale=scale, center=center), _SEEN

  return network.run(params, batch, visit)[0]


def _scores(call: Any, y: jax.Array, whiten: bool) -> jax.Array:
  """Returns the scores that a layer's outputs are, but for bias and scale."""
  inner = base.compute_dtype(call.kernel.dtype)
  lead = (None,) * (y.ndim - 1)
  s = y.astype(inner)
  if call.bias is not None:
    s = s - call.bias.astype(inner)[lead]
  if whiten:
    return objectives.standardize(s)
  return s / objectives.norms(call.kernel.astype(inner))[lead]


def _by_group(
    key: base.Key, patches: jax.Array, num: int, **options: Any) -> jax.Array:
  """Clusters patches (groups, count, fan_in), each group on its own."""
  fit = functools.partial(solver.cluster, num=num, **options)
  return jax.vmap(fit)(jax.random.split(key, len(patches)), patches)[0]


def _clustered(
    key: base.Key, layer: Any, x: jax.Array, kernel: jax.Array, *,
    patches: int, **options: Any,
) -> jax.Array:
  """Returns the kernel that k-means of a layer's patches makes."""
  which, how = jax.random.split(key)
  groups = layer.window['groups']
  most = max(patches, kernel.shape[-1] // groups)
  found = solver.patches(which, x, kernel.shape, layer.window, most)
  theta = _by_group(how, found, kernel.shape[-1] // groups, **options)
  theta = jnp.moveaxis(theta, 0, 1).reshape(kernel.shape)
  # Where inputs do not vary a filter is 0: there the kernel stays.
  lost = jnp.all(theta == 0, range(kernel.ndim - 1))
  return jnp.where(lost[(None,) * (kernel.ndim - 1)], kernel, theta)


def _loss(
    network: Any, chosen: Mapping[str, Any], params: Mapping[str, jax.Array],
    batch: jax.Array, *, whiten: bool, penalty: float, kind: str,
) -> jax.Array:
  """Returns the paper's loss of chosen layers, in one run of the model."""

  def visit(call: Any) -> Any:
    y = call.apply(call.kernel, call.bias)
    if call.layer.name not in chosen:
      return y, None
    s = _scores(call, y, whiten)
    return y, objectives.total(s, call.layer.window['groups'])

  _, records = network.run(params, batch, visit)
  value = -jnp.sum(jnp.stack([sum(each) for each in records.values()]))
  if penalty:
    value = value + penalty * jnp.sum(jnp.stack([
        objectives.cosine_penalty(
            params[name], kind=kind, groups=layer.window['groups'])
        for name, layer in chosen.items()]))
  return value


def _descended(
    key: base.Key, params: dict[str, jax.Array], batch: jax.Array, *,
    network: Any, chosen: Mapping[str, Any], steps: int, batch_size: int,
    learning_rate: float, decay: bool, **options: Any,
) -> tuple[dict[str, jax.Array], jax.Array]:
  """Minimises the loss of all layers at once, on minibatches."""

  def loss(key: base.Key, kernels: dict[str, jax.Array]) -> jax.Array:
    rows = jax.random.choice(key, len(batch), (batch_size,), replace=False)
    return _loss(
        network, chosen, {**params, **kernels}, batch[rows], **options)

  kernels, losses = descent.descend(
      key, {name: params[name] for name in chosen}, loss, steps=steps,
      learning_rate=learning_rate, decay=decay)
  return {**params, **kernels}, losses


def _structured(
    network: Any, batch: jax.Array, chosen: Mapping[str, Any], rest: Any,
    solve: Callable[..., Any],
) -> base.StructuredInit:
  """Returns the StructuredInit of `solve(key, params, batch)`."""
  if rest is not None and (
      isinstance(rest, base.LeafInit) or not callable(rest)):
    raise ValueError(
        f'rest={rest!r} must be an InitFn, (key, shapes) -> params; {_REST}')
  solve = jax.jit(solve)
  initial = network.initial if rest is None else jax.jit(
      functools.partial(_made, rest, network.shapes))
  measure = jax.jit(functools.partial(_measure, network, chosen, True))

  def values(key: base.Key) -> tuple[dict[str, jax.Array], Any]:
    base.check_key(key)
    return _placed(lambda key: solve(key, initial(key), batch), key)

  def pick(params: Mapping[str, jax.Array], shapes: base.PyTree) -> Any:
    names, structs, treedef = tree.flatten_with_names(shapes)
    unknown = [name for name in names if name not in params]
    if unknown:
      raise ValueError(
          f'leaves {", ".join(map(repr, unknown))} are none of the model, '
          f'whose leaves are {", ".join(params)}')
    for name, struct in zip(names, structs, strict=True):
      if not jnp.issubdtype(struct.dtype, jnp.inexact) and jnp.issubdtype(
          params[name].dtype, jnp.inexact):
        raise ValueError(
            f'leaf {name!r} of shape {struct.shape} is asked for in '
            f'{struct.dtype}; the model has it in {params[name].dtype}')
    leaves = [params[name].astype(struct.dtype)
              for name, struct in zip(names, structs, strict=True)]
    tree.check_like(names, leaves, structs)
    return treedef.unflatten(leaves)

  def init(key: base.Key, shapes: base.PyTree) -> base.PyTree:
    return pick(values(key)[0], shapes)

  def init_with_aux(
      key: base.Key, shapes: base.PyTree) -> tuple[base.PyTree, base.Aux]:
    params, losses = values(key)
    made = pick(params, shapes)
    aux = {'masks': jax.tree.map(lambda _: True, made),
           'kmeans': _placed(lambda params: measure(params, batch), params)}
    if losses is not None:
      aux['losses'] = losses
    return made, aux

  return base.StructuredInit(init, init_with_aux)


def _made(
    rest: Any, shapes: Mapping[str, jax.ShapeDtypeStruct], key: base.Key
) -> dict[str, jax.Array]:
  """Returns what an InitFn makes of the model's leaves, by name."""
  try:
    params = rest(key, tree.nest(shapes))
  except TypeError as error:
    raise ValueError(f'rest={rest!r} is no InitFn, (key, shapes) -> params: it '
                     f'fails with {error}; {_REST}') from error
  names, leaves, _ = tree.flatten_with_names(params)
  made = dict(zip(names, leaves, strict=True))
  if {*made} != {*shapes}:
    raise ValueError(
        f'rest made the leaves {", ".join(made)}, and those of the model are '
        f'{", ".join(shapes)}')
  tree.check_like([*shapes], [made[name] for name in shapes],
                  [*shapes.values()])
  return {name: made[name] for name in shapes}


def _measure(
    network: Any, chosen: Mapping[str, Any] | None, whiten: bool,
    params: Mapping[str, jax.Array], batch: jax.Array,
) -> dict[str, objectives.Statistics]:
  """Returns the statistics of chosen layers, of all that can be served."""

  def visit(call: Any) -> Any:
    y, layer = call.apply(call.kernel, call.bias), call.layer
    if layer.refused or (
        _single(call) if chosen is None else layer.name not in chosen):
      return y, None
    return y, objectives.summarize(
        _scores(call, y, whiten), call.kernel, layer.window['groups'])

  _, records = network.run(params, batch, visit)
  return {name: record[0] for name, record in records.items()}


def clusters(
    inputs: jax.typing.ArrayLike, *, whiten: bool = True,
    strides: int | Sequence[int] = 1,
    padding: int | str | Sequence[tuple[int, int]] = 'SAME',
    dilation: int | Sequence[int] = 1, groups: int = 1, patches: int = 16384,
    iterations: int = 30, temperature: float = 0.5, ridge: float = 1.0,
) -> base.LeafInit:
  """Makes the kernel of one layer from its inputs, whatever the framework.

  What `joint` makes of a layer: filters that are k-means clusters of the
  patches that the layer's window sees. Their outputs vary by 1 on the patches.

  Args:
    inputs: of the layer, (*batch, *spatial, in).
    whiten: whether patches are centred and whitened; a bias of minus the mean
      output then centres the outputs.
    strides: as of `score`.
    padding: as of `score`.
    dilation: as of `score`.
    groups: as of `score`; whitened, a group has at least 2 filters.
    patches: as of `joint`.
    iterations: as of `joint`.
    temperature: as of `joint`.
    ridge: as of `joint`.

  Returns:
    An Initializer of kernels (*window, in / groups, out); `with_axes` for other
    layouts. In a group whose patches do not vary filters are Gaussian.

  Raises:
    ValueError: for inputs that are not finite, constant or not floating-point;
      when called, for a kernel that does not fit them, that sees one number at
      a time, or that has more filters than there are patches.

  Example:
    >>> import jax, structinit_jax as si
    >>> x = jax.random.normal(jax.random.key(0), (32, 8, 8, 3))
    >>> init = si.kmeans.clusters(x)
    >>> kernel = init(jax.random.key(1), (3, 3, 3, 16))
    >>> stats = si.kmeans.statistics(kernel, x, whiten=True)
    >>> int(stats.dead.sum()), bool(stats.coherence < 0.95)
    (0, True)

  Source: Zhou, equation 3; Coates and Ng (2012), section 3.
  """
  x = _check_batch(inputs)
  # Centred patches have no direction of their own.
  fewest = 2 if whiten else 1
  window = {'strides': strides, 'padding': padding, 'dilation': dilation,
            'groups': base.integer('groups', groups, 1)}
  patches, options = _check_clustering(
      patches, iterations, ridge, temperature=temperature, whiten=whiten)

  def sample(key: base.Key, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    if not math.prod(shape):
      return jnp.zeros(shape, dtype)
    struct = jax.ShapeDtypeStruct(shape, dtype)
    with _auto_mesh():
      jax.eval_shape(functools.partial(
          objectives.responses, **window), struct, x)  # its errors
    if base.fan_in(shape) == 1:
      raise ValueError(
          f'kernel {shape} sees one number at a time, where all filters are '
          'alike; a window of two at least has clusters')
    count = solver.window_count(x.shape, shape, window)
    filters = shape[-1] // groups
    if filters < fewest:
      raise ValueError(
          f'kernel {shape} has {filters} filters a group, where whitened '
          f'clusters are at least {fewest}')
    if count < filters:
      raise ValueError(
          f'kernel {shape} has {filters} filters a group, more than the '
          f'{count} patches of inputs {x.shape}; at most {count} would do')
    return _placed(lambda key: make(key, x.astype(dtype), shape), key)

  @functools.partial(jax.jit, static_argnums=2)
  def make(
      key: base.Key, x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    which, how = jax.random.split(key)
    most = max(patches, shape[-1] // groups)
    found = solver.patches(which, x, shape, window, most)
    theta = _by_group(how, found, shape[-1] // groups, **options)
    # Where patches do not vary a filter is 0: there it is drawn.
    drawn = jax.random.normal(jax.random.fold_in(how, 1), theta.shape, x.dtype)
    theta = jnp.where(jnp.any(theta != 0, 1, keepdims=True), theta, drawn)
    y = jnp.einsum('gnp,gpk->gnk', found, theta, precision='highest')
    y, unit = objectives.scaled(y, (1,))
    variance = y.var(1, keepdims=True)
    theta = theta * jnp.where(
        variance > 0,
        jax.lax.rsqrt(jnp.where(variance > 0, variance, 1)) / unit, 1)
    return jnp.moveaxis(theta, 0, 1).reshape(shape)

  return base.LeafInit(
      f'kmeans.clusters(inputs={x.dtype}{x.shape}, whiten={whiten})', sample)


def _check_clustering(
    patches: int, iterations: int, ridge: float, **options: Any
) -> tuple[int, dict[str, Any]]:
  """Returns the options of `solver.cluster`, checked."""
  options['temperature'] = base.positive(
      'temperature', options['temperature'], or_zero=True)
  return base.integer('patches', patches, 1), {
      **options, 'iterations': base.integer('iterations', iterations, 1),
      'ridge': base.positive('ridge', ridge)}


def _check_unused(method: str, options: Mapping[str, Any]) -> None:
  """Refuses options of 'joint' that another method would not look at."""
  known = inspect.signature(joint).parameters
  for name, value in options.items():
    if value != known[name].default:
      raise ValueError(
          f"{name}={value!r} is an option of method='joint'; {method!r} has no "
          'use for it')


def joint(
    model: Any, batch: jax.typing.ArrayLike, *, method: str = 'whitened',
    select: str | None = None, rest: Any = None,
    arguments: Mapping[str, Any] | None = None, scale: str = 'variance',
    patches: int = 16384, iterations: int = 30, temperature: float = 0.5,
    ridge: float = 1.0, steps: int = 10_000, batch_size: int | None = None,
    learning_rate: float = 1e-3, decay: bool = False, penalty: float = 100.0,
    kind: str = 'squared', whiten: bool = False, start: str = 'rest',
) -> base.StructuredInit:
  r"""Makes kernels whose filters are the clusters of what they see in a batch.

  The model runs on the batch, and every convolution or dense layer is met with
  its true inputs, window, strides and padding; no model is rewritten. The first
  call compiles all layers into one program, which of deep models takes longer
  than to run it.

  * 'whitened' (default): one layer after the other, on the way of one run,
    k-means of the whitened patches, softened at first; filters that win no
    patch, or are aligned with another, are made anew, and at the end turned
    from each other until no |cosine| is above 0.9, where the span of the
    patches leaves room.
    Layers see only those before them, so one run in order is all there is to
    do.
  * 'greedy': the same without softening and making anew, as Coates and Ng.
  * 'joint': the paper's, $-\sum_l \sum_i \max_k s_{ik} + \lambda \sum_l$
    `cosine_penalty`, with sums over the patches of a minibatch, by Adam on the
    kernels of all layers at once; the gradient goes through the network.

  Batch normalization uses the statistics of the batch, and its scales and
  shifts stay. Where centred patches need it ('whitened', 'greedy') the layer's
  bias, if it has one, makes its outputs centred, at either scale. A layer whose
  inputs do not vary keeps its kernel. Centred clusters balance: a group's
  filters, weighted by the patches they win, sum to almost 0, so that their rank
  is one less than their number; a group of two has nearly opposite ones.

  Args:
    model: a Linen or an NNX module; for others there is `clusters`.
    batch: inputs as the model takes them, floating-point (examples, ...): 256
      images, say. No labels.
    method: 'whitened', 'greedy' or 'joint'.
    select: regular expression of the kernels to make; None is all that can be,
      but for the last layer if it is dense, which has classes, not clusters.
    rest: an InitFn of all leaves, for the others and to start from; None is the
      model's own (for NNX its values, whatever the key).
    arguments: keyword arguments of the model's call, such as {'train': True}.
    scale: 'variance' makes every filter's output vary by 1 on the batch;
      'kept' gives filters the norms that they have in `rest`. Where nothing
      normalizes between layers the loss of 'joint' depends on them.
    patches: of a layer, that 'whitened' and 'greedy' use at most, drawn at
      random; no fewer than filters.
    iterations: of k-means, of those two.
    temperature: of 'whitened', at its first iteration: see `cluster`.
    ridge: added to the covariance, relative to the mean variance of a pixel.
      Less than 1 makes filters of higher frequencies.
    steps: of 'joint'.
    batch_size: of 'joint'; None is 64, or the batch if that is smaller.
    learning_rate: of 'joint', Adam's; the paper does not tell its own.
    decay: whether it falls to 0 as a cosine, of 'joint'.
    penalty: $\lambda$ of 'joint'.
    kind: of penalty, as of `cosine_penalty`.
    whiten: whether 'joint' has whitened scores, those of the outputs that batch
      normalization makes.
    start: of 'joint': 'rest', as in the paper, or 'greedy', k-means of raw
      patches layer by layer.

  Returns:
    A StructuredInit. It makes leaves of the model alone, all or a part of them
    (in a `partition`); `aux['kmeans']` has the `Statistics` of every layer it
    made, whitened, by the kernel's name, and `aux['losses']` the loss before
    every step of 'joint'.

  Raises:
    ValueError: for a batch that is not finite, constant, not floating-point or
      not what the model takes, a layer that `select` asks for and that cannot
      be served, or an option that is out of range, or of 'joint' alone and not
      its default where `method` is another. Without `select` such layers are
      left out with a warning that names them.

  Example:
    >>> import flax.linen as nn, jax, structinit_jax as si
    >>> model = nn.Sequential([
    ...     nn.Conv(8, (3, 3)), nn.relu, nn.Conv(8, (3, 3), strides=2)])
    >>> images = jax.random.normal(jax.random.key(0), (16, 8, 8, 3))
    >>> init_fn = si.kmeans.joint(model, images)
    >>> shapes = jax.eval_shape(model.init, jax.random.key(0), images)['params']
    >>> params, aux = init_fn.init_with_aux(jax.random.key(0), shapes)
    >>> sorted(aux['kmeans'])
    ['layers_0/kernel', 'layers_2/kernel']
    >>> y = model.apply({'params': params}, images)
    >>> bool(abs(y.std((0, 1, 2)) - 1).max() < 1e-3)
    True

  Source: Zhou, section 3; 'greedy': Coates and Ng (2012), and layer by layer
    Kraehenbuehl et al. (2016); 'whitened': this library.
  """
  if method not in METHODS:
    raise ValueError(f'method={method!r} must be one of {", ".join(METHODS)}')
  if scale not in SCALES:
    raise ValueError(f'scale={scale!r} must be one of {", ".join(SCALES)}')
  if start not in ('rest', 'greedy'):
    raise ValueError(f"start={start!r} must be 'rest' or 'greedy'")
  if kind not in objectives.PENALTIES:
    raise ValueError(
        f'kind={kind!r} must be one of {", ".join(objectives.PENALTIES)}')
  if method != 'joint':
    _check_unused(method, {
        'steps': steps, 'batch_size': batch_size, 'decay': decay,
        'learning_rate': learning_rate, 'penalty': penalty, 'kind': kind,
        'whiten': whiten, 'start': start})
  batch = _check_batch(batch)
  patches, clustering = _check_clustering(
      patches, iterations, ridge, temperature=temperature)
  fit = functools.partial(_clustered, patches=patches, **clustering)
  hard = functools.partial(fit, temperature=0.0, reseed=False)
  if batch_size is None:
    batch_size = min(_MINIBATCH, len(batch))
  descent_options = {
      'steps': base.integer('steps', steps, 0),
      'batch_size': base.integer('batch_size', batch_size, 1, len(batch)),
      'learning_rate': base.positive('learning_rate', learning_rate),
      'penalty': base.positive('penalty', penalty, or_zero=True),
      'kind': kind, 'decay': decay, 'whiten': whiten}
  with _auto_mesh():
    network = _networks().network(model, batch, arguments)
    chosen = _plan(network, batch, select, 'kmeans.joint')
  centered = method != 'joint'
  layerwise = functools.partial(
      _layerwise, network=network, chosen=chosen, center=centered)

  def solve(
      key: base.Key, params: dict[str, jax.Array], batch: jax.Array
  ) -> tuple[dict[str, jax.Array], Any]:
    if method != 'joint':
      make = fit if method == 'whitened' else hard
      return layerwise(key, params, batch, make=make, scale=scale), None
    found = params
    if start == 'greedy':
      make = functools.partial(hard, whiten=False)
      found = layerwise(key, params, batch, make=make, scale=scale)
    found, losses = _descended(
        jax.random.fold_in(key, 1), found, batch, network=network,
        chosen=chosen, **descent_options)
    if scale == 'kept':
      return {name: (_kept(kernel, params[name]) if name in chosen else kernel)
              for name, kernel in found.items()}, losses
    return layerwise(
        key, found, batch, scale=scale,
        make=lambda key, layer, x, kernel: kernel), losses

  return _structured(network, batch, chosen, rest, solve)


def lsuv(
    model: Any, batch: jax.typing.ArrayLike, *, select: str | None = None,
    rest: Any = None, arguments: Mapping[str, Any] | None = None,
) -> base.StructuredInit:
  """Makes orthonormal kernels whose outputs vary by 1 on a batch (LSUV).

  A kernel is Haar distributed as a matrix (fan_in, out), and one factor a layer
  gives its outputs unit variance: exactly, as the layer is linear, so that
  nothing is iterated. Where out is larger than fan_in, every group of a grouped
  convolution is a matrix of its own.

  Args:
    model: as of `joint`.
    batch: as of `joint`.
    select: as of `joint`, but by default with the last layer. Layers of one
      filter a group, or with more filters than patches, are served, too.
    rest: as of `joint`.
    arguments: as of `joint`.

  Returns:
    A StructuredInit, as of `joint`.

  Raises:
    ValueError: as of `joint`.

  Example:
    >>> import flax.linen as nn, jax, structinit_jax as si
    >>> model, x = nn.Dense(4), jax.random.normal(jax.random.key(0), (64, 9))
    >>> shapes = jax.eval_shape(model.init, jax.random.key(0), x)['params']
    >>> params = si.kmeans.lsuv(model, 3 * x)(jax.random.key(1), shapes)
    >>> round(float(model.apply({'params': params}, 3 * x).std()), 3)
    1.0

  Source: D. Mishkin and J. Matas, All you need is a good init, ICLR 2016.
  """
  batch = _check_batch(batch)
  with _auto_mesh():
    network = _networks().network(model, batch, arguments)
    chosen = _plan(network, batch, select, 'kmeans.lsuv', clusters=False)

  def solve(
      key: base.Key, params: dict[str, jax.Array], batch: jax.Array
  ) -> tuple[dict[str, jax.Array], Any]:

    def make(key: base.Key, layer: Any, x: Any, kernel: jax.Array) -> jax.Array:
      del x
      rows, columns = base.fan_in(kernel.shape), kernel.shape[-1]
      parts = layer.window['groups'] if columns > rows else 1
      keys = jax.random.split(key, parts) if parts > 1 else key[None]
      made = jax.vmap(lambda key: linalg.haar(
          key, (rows, columns // parts), kernel.dtype))(keys)
      return jnp.moveaxis(made, 0, 1).reshape(kernel.shape)

    return _layerwise(
        key, params, batch, network=network, chosen=chosen, make=make,
        scale='layer', center=False), None

  return _structured(network, batch, chosen, rest, solve)


def joint_loss(
    model: Any, params: base.PyTree, batch: jax.typing.ArrayLike, *,
    select: str | None = None, penalty: float = 100.0, kind: str = 'squared',
    whiten: bool = False, arguments: Mapping[str, Any] | None = None,
) -> jax.Array:
  r"""Returns the loss that 'joint' of `joint` minimises, on a batch.

  $-\sum_l \sum_i \max_k s_{ik} + \lambda \sum_l$ `cosine_penalty`, with sums
  over the layers and over the patches of the batch.

  Args:
    model: as of `joint`.
    params: its parameters.
    batch: as of `joint`.
    select: as of `joint`.
    penalty: as of `joint`.
    kind: as of `joint`.
    whiten: as of `joint`.
    arguments: as of `joint`.

  Returns:
    A scalar, differentiable in `params`.

  Raises:
    ValueError: as of `joint`, or for parameters that are not the model's.

  Example:
    >>> import flax.linen as nn, jax, structinit_jax as si
    >>> model, x = nn.Conv(4, (3, 3)), jax.random.normal(
    ...     jax.random.key(0), (8, 6, 6, 3))
    >>> params = model.init(jax.random.key(1), x)['params']
    >>> loss = si.kmeans.joint_loss(model, params, x, penalty=0)
    >>> score = si.kmeans.score(params['kernel'], x)
    >>> bool(abs(loss + 8 * 6 * 6 * score) < 0.01)
    True

  Source: Zhou, equation 5.
  """
  penalty = base.positive('penalty', penalty, or_zero=True)

  def loss(params: base.PyTree, batch: jax.typing.ArrayLike) -> jax.Array:
    network, given, batch = _given(model, params, batch, arguments)
    chosen = _plan(network, batch, select, 'kmeans.joint_loss')
    return _loss(network, chosen, given, batch, whiten=whiten, kind=kind,
                 penalty=penalty)

  return _placed(loss, params, batch)


def _given(
    model: Any, params: base.PyTree, batch: jax.typing.ArrayLike,
    arguments: Mapping[str, Any] | None,
) -> tuple[Any, dict[str, jax.Array], jax.Array]:
  """Returns the network, parameters by name and the batch, all checked."""
  batch = _check_batch(batch)
  network = _networks().network(model, batch, arguments)
  names, leaves, _ = tree.flatten_with_names(params)
  given = dict(zip(names, leaves, strict=True))
  if {*given} != {*network.shapes}:
    raise ValueError(
        f'the leaves {", ".join(sorted({*given} ^ {*network.shapes}))} are '
        'either of params or of the model, not of both')
  for name, leaf in given.items():
    if leaf.shape != network.shapes[name].shape:
      raise ValueError(
          f'leaf {name!r} has shape {leaf.shape}; that of the model has '
          f'{network.shapes[name].shape}')
  return network, given, batch


def layer_statistics(
    model: Any, params: base.PyTree, batch: jax.typing.ArrayLike, *,
    whiten: bool = True, arguments: Mapping[str, Any] | None = None,
) -> dict[str, objectives.Statistics]:
  """Measures how the filters of every layer share what they see.

  Args:
    model: as of `joint`.
    params: its parameters, however they were made.
    batch: as of `joint`.
    whiten: as of `scores`.
    arguments: as of `joint`.

  Returns:
    The `Statistics` of every layer that k-means could serve, by the name of its
    kernel.

  Raises:
    ValueError: for a batch as of `joint`, or parameters that are not the
      model's.

  Example:
    >>> import flax.linen as nn, jax, structinit_jax as si
    >>> model, x = nn.Dense(4), jax.random.normal(jax.random.key(0), (64, 9))
    >>> params = model.init(jax.random.key(1), x)['params']
    >>> stats = si.kmeans.layer_statistics(model, params, x)
    >>> stats['kernel'].wins.shape
    (4,)

  Source: `statistics`, of all layers in one run.
  """

  def measure(params: base.PyTree, batch: jax.typing.ArrayLike) -> Any:
    network, given, batch = _given(model, params, batch, arguments)
    return jax.jit(functools.partial(_measure, network, None, whiten))(
        given, batch)

  return _placed(measure, params, batch)
