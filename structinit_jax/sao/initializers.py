"""Initializers of sparse orthogonal kernels: dense, delta and ECO."""

from collections.abc import Callable
import math
from typing import Any

import jax
import jax.numpy as jnp

from structinit_jax import base
from structinit_jax.sao import topologies
from structinit_jax.sao import weights

__all__ = ['blocks', 'delta_orthogonal', 'eco', 'orthogonal']

_SAMPLERS = {'dense': weights.orthogonal_values,
             'delta': weights.delta_values, 'eco': weights.eco_values}
# Which axes of a kernel hold a matrix and its negative.
_MIRRORED = {'none': (), 'in': (-2,), 'out': (-1,), 'both': (-2, -1)}


def _matrix_shape(
    shape: tuple[int, ...], looks_linear: str) -> tuple[int, int]:
  """Returns the channels of the matrix that the kernel is made of."""
  sizes = list(shape[-2:])
  for axis in _MIRRORED[looks_linear]:
    if sizes[axis] % 2:
      near = list(shape)
      near[axis] += 1
      raise ValueError(
          f'kernel of shape {shape}: looks_linear={looks_linear!r} needs an '
          f'even number of {"inputs" if axis == -2 else "outputs"}, got '
          f'{sizes[axis]}; the nearest shape that works is {tuple(near)}')
    sizes[axis] //= 2
  return sizes[0], sizes[1]


def _build(
    name: str, what: str, axes: Callable[[int], bool],
    make: Callable[..., weights.Values], *, degree: int | None,
    density: float | None, kind: str, topology: topologies.Topology | None,
    gain: float, tied: bool, looks_linear: str, **options: str,
) -> base.LeafInit:
  """Makes an Initializer of values sampled by `make`."""
  if topology is None:
    topologies.check_request(degree, density, kind)
    topologies.check_range(degree, density)
  else:
    topologies.check_topology(topology)
    if (degree, density, kind) != (None, None, 'debruijn'):
      raise ValueError(
          'topology stands instead of degree, density and kind; give it alone')
  if looks_linear not in _MIRRORED:
    raise ValueError(
        f'looks_linear {looks_linear!r} is unknown; use '
        f'{", ".join(_MIRRORED)}')
  gain = base.positive('gain', gain)

  def plan(
      key: base.Key, shape: tuple[int, ...]
  ) -> tuple[base.Key, topologies.Topology, jax.Array | None]:
    structure_key, values_key = jax.random.split(key)
    inner = _matrix_shape(shape, looks_linear)
    if topology is None:
      found = topologies.plan(inner, degree, density, kind)
      return values_key, found, topologies.draw(structure_key, found)
    if topology.shape != inner:
      raise ValueError(
          f'kernel of shape {shape}: looks_linear={looks_linear!r} asks for a '
          f'topology of shape {inner}; the one given is {topology}')
    order = topology.permutation
    return values_key, topology, None if order is None else jnp.asarray(order)

  def check(shape: tuple[int, ...]) -> bool:
    """Whether the kernel has entries."""
    if not axes(len(shape)):
      raise ValueError(
          f'{what}; shape {shape} has {len(shape)} axes. Give other leaves a '
          'rule of their own; si.with_axes serves other axis orders')
    return math.prod(shape) > 0

  def sample(key: base.Key, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    if not check(shape):
      return jnp.zeros(shape, dtype)
    values_key, found, order = plan(key, shape)
    values = make(
        values_key, found, shape[:-2], gain=gain, tied=tied, dtype=dtype,
        **options)
    kernel = weights.scatter(values, found, order)
    for axis in _MIRRORED[looks_linear]:
      kernel = jnp.concatenate([kernel, -kernel], axis=axis)
    return kernel

  def structure(key: base.Key, shape: tuple[int, ...]) -> dict[str, Any]:
    if not check(shape):
      return {}
    _, found, order = plan(key, shape)
    mask = topologies.mask(found, order)
    for axis in _MIRRORED[looks_linear]:
      mask = jnp.concatenate([mask, mask], axis=axis)
    facts: dict[str, Any] = {'mask': jnp.broadcast_to(mask, shape)}
    if not isinstance(order, jax.core.Tracer):
      facts['topology'] = topologies.drawn(found, order)
    return facts

  shown = {'topology': topology} if topology is not None else {
      'degree': degree, 'density': density}
  shown = {k: v for k, v in shown.items() if v is not None}
  defaults = {'kind': 'debruijn', 'gain': 1.0, 'tied': False,
              'looks_linear': 'none', 'frequencies': 'real'}
  given = {'kind': kind, 'gain': gain, 'tied': tied,
           'looks_linear': looks_linear, **options}
  shown |= {k: v for k, v in given.items() if v != defaults[k]}
  label = ', '.join(f'{k}={v!r}' for k, v in shown.items())
  return base.LeafInit(f'sao.{name}({label})', sample, structure)


def _orthogonal_values(
    key: base.Key, topology: topologies.Topology, spatial: tuple[int, ...],
    **options: Any,
) -> weights.Values:
  del spatial  # of a dense kernel there is none
  return weights.orthogonal_values(key, topology, **options)


def orthogonal(
    *, degree: int | None = None, density: float | None = None,
    kind: str = 'debruijn', topology: topologies.Topology | None = None,
    gain: float = 1.0, tied: bool = False, looks_linear: str = 'none',
) -> base.LeafInit:
  r"""Initializer: a sparse dense-layer kernel that is exactly orthogonal.

  The kernel K (in, out) lives on a topology (see `topology`): $K^T K = gain^2
  I$, or $K K^T$ if out > in, with `degree` nonzeros in a column. Blocks are
  Haar distributed.

  With Q such a matrix, `looks_linear` makes kernels of ReLU networks that start
  as linear, isometric ones: `'out'` is [Q, -Q], `'in'` [Q; -Q] and `'both'`
  [[Q, -Q], [-Q, Q]], for the first layer, the last, and those between, where
  every unit is followed by its negative: $relu(h) Q - relu(-h) Q = h Q$. After
  a CReLU every layer is `'in'`. The degree is that of Q, and K has twice as
  many inputs a unit for 'in' and 'both'.

  The thesis's variants: SAO 1, one structure for all layers, is
  `topology=topology(key, shape, degree=d, kind='thesis')`; SAO 2 adds
  `tied=True`; SAO 3, a structure a layer, is `degree=d, kind='thesis'`.

  Args:
    degree: inputs of an output; give it, `density` or `topology`.
    density: 1 / b, b the number of blocks; within 2 %.
    kind: 'debruijn', 'random', 'thesis' or 'weighing'.
    topology: this very structure, for kernels of its shape.
    gain: all min(in, out) singular values of Q.
    tied: whether all blocks of one shape hold the same values.
    looks_linear: 'none', 'in', 'out' or 'both'.

  Returns:
    An Initializer of kernels (in, out). Its `aux(key, shape)` holds the `mask`
    and the `topology` of Q; the latter not where a permutation is drawn from a
    traced key. The key is split in two, for the topology and for the values.

  Raises:
    ValueError: for an unknown option, or (when called) for a shape that is not
      dense or has no such degree; the message names the nearest.

  Example:
    >>> import jax, structinit_jax as si
    >>> init = si.sao.orthogonal(degree=4)
    >>> kernel = init(jax.random.key(0), (256, 128))
    >>> int((kernel != 0).sum()), init.aux(jax.random.key(0), (256, 128)
    ...                                    )['mask'].sum().item()
    (512, 512)
    >>> bool(abs(jax.numpy.linalg.svdvals(kernel) - 1).max() < 1e-6)
    True

  Source: Esguerra (2023), sections 3.4.2 and 3.4.3; Balduzzi et al., The
    shattered gradients problem, ICML 2017, for looks-linear kernels.
  """
  return _build(
      'orthogonal', 'a sparse orthogonal kernel is dense, (in, out), 2 axes',
      lambda ndim: ndim == 2, _orthogonal_values, degree=degree,
      density=density, kind=kind, topology=topology, gain=gain, tied=tied,
      looks_linear=looks_linear)


def delta_orthogonal(
    *, degree: int | None = None, density: float | None = None,
    kind: str = 'debruijn', topology: topologies.Topology | None = None,
    gain: float = 1.0, tied: bool = False, looks_linear: str = 'none',
) -> base.LeafInit:
  """Initializer: a convolution whose kernels are sparse, orthogonal at a tap.

  SAO-Delta: a sparse orthogonal matrix at the centre, `(k - 1) // 2`, of the
  kernel (*spatial, in, out), 0 elsewhere. The mask keeps or removes whole
  kernels, so the other taps of a kept one train. All singular values of the
  convolution are the gain, with any padding and in either order of sizes.

  Args:
    degree: input channels of an output channel; or `density` or `topology`.
    density: as of `orthogonal`.
    kind: as of `orthogonal`.
    topology: as of `orthogonal`; its shape is that of the channels.
    gain: as of `orthogonal`.
    tied: as of `orthogonal`.
    looks_linear: as of `orthogonal`, on the channels.

  Returns:
    An Initializer of kernels (*spatial, in, out). Its `aux(key, shape)` holds
    the `mask` and the `topology`, as that of `orthogonal`.

  Raises:
    ValueError: as `orthogonal`; for a kernel with no spatial axis.

  Example:
    >>> import jax, structinit_jax as si
    >>> init = si.sao.delta_orthogonal(degree=4)
    >>> kernel = init(jax.random.key(0), (3, 3, 64, 32))
    >>> int((kernel != 0).sum()), int((kernel[1, 1] != 0).sum())
    (128, 128)
    >>> init.aux(jax.random.key(0), (3, 3, 64, 32))['mask'].sum().item()
    1152

  Source: Esguerra (2023), section 3.4.4.1; Xiao et al. (2018), algorithm 1.
  """
  return _build(
      'delta_orthogonal',
      'a delta-orthogonal kernel is one of a convolution, (*spatial, in, out), '
      'at least 3 axes', lambda ndim: ndim >= 3, weights.delta_values,
      degree=degree, density=density, kind=kind, topology=topology, gain=gain,
      tied=tied, looks_linear=looks_linear)


def eco(
    *, degree: int | None = None, density: float | None = None,
    kind: str = 'debruijn', topology: topologies.Topology | None = None,
    frequencies: str = 'real', gain: float = 1.0, tied: bool = False,
    looks_linear: str = 'none',
) -> base.LeafInit:
  r"""Initializer: a convolution that is orthogonal at every frequency.

  SAO-ECO: the kernel (*spatial, in, out) is the inverse DFT of sparse
  orthogonal matrices on one topology, so whole kernels are kept or removed. The
  convolution has to be circular, with dilation n / k for images of n positions
  and k | n: `nn.Conv(features, (k, k), kernel_dilation=n // k,
  padding='CIRCULAR')`. Then all its singular values are the gain.

  Args:
    degree: input channels of an output channel; or `density` or `topology`.
    density: as of `orthogonal`.
    kind: as of `orthogonal`.
    topology: as of `orthogonal`; its shape is that of the channels.
    frequencies: 'real', the thesis's, whose kernels are all even, or
      'complex'; see `eco_values`.
    gain: as of `orthogonal`.
    tied: as of `orthogonal`.
    looks_linear: as of `orthogonal`, on the channels.

  Returns:
    An Initializer of kernels (*spatial, in, out). Its `aux(key, shape)` holds
    the `mask` and the `topology`, as that of `orthogonal`.

  Raises:
    ValueError: as `orthogonal`; for a kernel with no spatial axis, or unknown
      frequencies.

  Example:
    >>> import jax, jax.numpy as jnp, structinit_jax as si
    >>> init = si.sao.eco(degree=4, frequencies='complex')
    >>> kernel = init(jax.random.key(0), (3, 3, 16, 32))
    >>> at_zero = kernel.sum(axis=(0, 1))
    >>> bool(abs(at_zero @ at_zero.T - jnp.eye(16)).max() < 2e-6)
    True

  Source: Esguerra (2023), section 3.4.4.2; Yu et al. (2022).
  """
  weights.check_frequencies(frequencies)
  return _build(
      'eco', 'an ECO kernel is one of a convolution, (*spatial, in, out), at '
      'least 3 axes', lambda ndim: ndim >= 3, weights.eco_values,
      degree=degree, density=density, kind=kind, topology=topology, gain=gain,
      tied=tied, looks_linear=looks_linear, frequencies=frequencies)


def blocks(
    kernel: str = 'dense', *, spatial: int = 2, frequencies: str = 'real',
    gain: float = 1.0, tied: bool = False, looks_linear: bool = False,
) -> base.LeafInit:
  """Initializer of what sparse layers store, the blocks without the zeros.

  For the leaves `values/..` of `layers.SAODense`, `SAOConv`, `SAOStack` and
  `ECOConv`, arrays (*batch, *spatial, count, d, c): every layer of the batch
  gets the values that `orthogonal_values`, `delta_values` or `eco_values` make.
  Where blocks of several shapes share a layer, each is a leaf of its own. Not
  for kind 'weighing', whose blocks depend on each other.

  Args:
    kernel: 'dense', 'delta' or 'eco'.
    spatial: number of spatial axes, of the latter two.
    frequencies: as of `eco`.
    gain: as of `orthogonal`.
    tied: as of `orthogonal`.
    looks_linear: as of the layers: the last axis before `spatial` is 2, for Q
      and -Q.

  Returns:
    An Initializer.

  Raises:
    ValueError: for an unknown option, or (when called) for another shape.

  Example:
    >>> import jax, structinit_jax as si
    >>> layer = si.layers.SAOStack(10, 64, degree=4)
    >>> x = jax.numpy.ones((1, 64))
    >>> shapes = jax.eval_shape(layer.init, jax.random.key(0), x)
    >>> init_fn = si.partition(
    ...     [('.*/values/.*', si.sao.blocks(gain=1.1)), ('.*', si.zeros)])
    >>> params = init_fn(jax.random.key(0), shapes)['params']
    >>> kernels = layer.to_dense(params)['kernel']
    >>> bool(abs(jax.numpy.linalg.svdvals(kernels) - 1.1).max() < 1e-5)
    True

  Source: Esguerra (2023), Algorithm 2.
  """
  if kernel not in _SAMPLERS:
    raise ValueError(
        f'kernel {kernel!r} is unknown; use {", ".join(_SAMPLERS)}')
  weights.check_frequencies(frequencies)
  gain = base.positive('gain', gain)
  options: dict[str, Any] = {'gain': gain, 'tied': tied}
  if kernel == 'eco':
    options['frequencies'] = frequencies
  spatial = base.integer('spatial', spatial, 1)
  ndim = 3 + (0 if kernel == 'dense' else spatial)
  shown = ''.join(f', {name}={value!r}' for name, value in {
      **options, 'looks_linear': looks_linear}.items())
  label = f'sao.blocks({kernel!r}{shown})'

  def sample(key: base.Key, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    one = shape[len(shape) - ndim:]
    batch = shape[:len(shape) - ndim - looks_linear]
    if len(shape) < ndim + looks_linear or (
        looks_linear and shape[len(batch)] != 2):
      sides = '2, ' if looks_linear else ''
      taps = '' if kernel == 'dense' else f'{spatial} spatial sizes, '
      raise ValueError(
          f'values of shape {shape}: {label} makes arrays '
          f'(*batch, {sides}{taps}count, d, c)')
    if not math.prod(shape):
      return jnp.zeros(shape, dtype)
    count, d, c = one[-3:]
    topology = topologies.Topology((count * d, count * c), count)

    def layer(key: base.Key) -> jax.Array:
      sizes = () if kernel == 'dense' else (one[:-3],)
      x, = _SAMPLERS[kernel](key, topology, *sizes, dtype=dtype, **options)
      return jnp.stack([x, -x]) if looks_linear else x

    keys = jax.random.split(key, math.prod(batch))
    return jax.lax.map(layer, keys).reshape(shape)

  return base.LeafInit(label, sample)
