"""Initializers that fill convolution kernels with Grassmannian packings."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from structinit_jax import base
from structinit_jax import linalg
from structinit_jax.grassmann import bounds
from structinit_jax.grassmann import cache
from structinit_jax.grassmann import descent
from structinit_jax.grassmann import distances
from structinit_jax.grassmann import solver

__all__ = ['packing']

_LAYOUTS = ('taps', 'filters')


def _sizes(
    shape: tuple[int, ...], layout: str, groups: int = 1
) -> tuple[int, int, int]:
  """Returns `(dim, rank, num)` of the packing that fills a group's kernel."""
  if len(shape) < 3:
    raise ValueError(
        f'a packing fills a convolution kernel (*spatial, in, out), at least '
        f'3 axes; shape {shape} has {len(shape)}. Give dense kernels and '
        'biases a rule of their own; si.with_axes serves other axis orders')
  *spatial, c_in, c_out = shape
  if c_out % groups:
    near = min((d for d in range(1, c_out + 1) if c_out % d == 0),
               key=lambda d: abs(d - groups))
    raise ValueError(
        f'kernel of shape {shape}: groups={groups} has to divide c_out = '
        f'{c_out}; the nearest that does is {near}')
  c_out //= groups
  taps = math.prod(spatial)
  dim = {'taps': c_out, 'filters': taps}[layout]
  if c_in > dim and math.prod(shape):
    limit = {'taps': 'c_out' if groups == 1 else 'c_out / groups',
             'filters': 'kernel height * width'}
    other = 'filters' if layout == 'taps' else 'taps'
    other_dim = taps if layout == 'taps' else c_out
    remedy = (
        f"layout={other!r} takes this rank" if c_in <= other_dim else
        f'no layout serves this shape (the other one needs c_in <= '
        f'{limit[other]} = {other_dim}); the largest c_in that works is '
        f'{max(dim, other_dim)}')
    raise ValueError(
        f'kernel of shape {shape}: layout={layout!r} packs subspaces of '
        f'rank c_in = {c_in} in R^{dim} and needs c_in <= {limit[layout]} = '
        f'{dim}; {remedy}')
  num = taps if layout == 'taps' else c_out
  if groups > 1 and layout == 'taps' and dim == 1 < num:
    raise ValueError(
        f'kernel of shape {shape} with groups={groups}: every group has one '
        "output, and R^1 has no two lines to pack; use layout='filters'")
  return dim, c_in, num


def _check_layout(layout: str) -> None:
  if layout not in _LAYOUTS:
    raise ValueError(
        f'layout {layout!r} is unknown; use {" or ".join(_LAYOUTS)}')


def _check_scale(scale: str | float) -> str | float:
  """Returns 'none', 'kaiming' or a positive Python float."""
  if isinstance(scale, str):
    if scale not in ('none', 'kaiming'):
      raise ValueError(
          f"scale {scale!r} is unknown; use 'none', 'kaiming' or a float")
    return scale
  try:
    number = float(scale)
  except TypeError:
    number = math.nan
  if not 0 < number < math.inf:
    raise ValueError(f'scale {scale} must be a positive, finite float')
  return number


def _kernel(
    columns: jax.Array, shape: tuple[int, ...], layout: str, scale: str | float
) -> jax.Array:
  """Makes a kernel of basis vectors, the columns `(dim, num * rank)`."""
  dim, c_in = columns.shape[0], shape[-2]
  if scale == 'kaiming':
    columns = columns * math.sqrt(2 * dim / base.fan_in(shape))
  elif not isinstance(scale, str):
    columns = columns * scale
  if layout == 'taps':
    return columns.T.reshape(shape)
  return columns.reshape(dim, -1, c_in).mT.reshape(shape)


@functools.partial(jax.jit, static_argnums=range(2, 7))
def _draw(
    key: base.Key, frames: jax.Array | None, sizes: tuple[int, int, int],
    shape: tuple[int, ...], layout: str, scale: str | float, dtype: Any,
) -> jax.Array:
  """Rotates a packing and draws bases; orthogonal ones if there is none."""
  dim, rank, num = sizes
  basis_key, rotation_key = jax.random.split(key)
  if frames is None:
    columns = linalg.haar(rotation_key, (dim, num * rank), dtype)
  else:
    bases = linalg.haar(basis_key, (num, rank, rank), dtype)
    columns = linalg.matmul(frames, bases).transpose(1, 0, 2)
    columns = linalg.haar_rotate(
        rotation_key, columns.reshape(dim, num * rank))
  return _kernel(columns, shape, layout, scale)


@functools.cache
def _base_packing(
    dim: int, rank: int, num: int, distance: str, restarts: int | None,
    steps: int | None, seed: int,
) -> tuple[np.ndarray, dict[str, Any]]:
  """Loads or solves one packing; float64 frames and their facts.

  With the default options it is the one that ships with the package, if one
  does. The frames enter a traced program as a constant, so they are solved
  outside any trace and on the host processor: then every process of a job has
  the same constant.
  """
  if (distance, restarts, steps, seed) == ('chordal', None, None, 0):
    shipped = cache.load(dim, rank, num)
    if shipped is not None:
      return shipped.frames, {
          'dim': dim, 'rank': rank, 'num': num, 'metric': distance,
          'distance': math.sqrt(shipped.squared),
          'bound': bounds.upper_bound(dim, rank, num, distance),
          'method': shipped.method}
  with jax.ensure_compile_time_eval(), jax.default_device(_host()):
    found = solver.pack(
        jax.random.key(seed), dim=dim, rank=rank, num=num, distance=distance,
        restarts=restarts, steps=steps)
    frames = np.linalg.qr(np.asarray(found.frames, np.float64))[0]
    facts = {'dim': dim, 'rank': rank, 'num': num, 'metric': distance,
             'distance': float(found.distance), 'bound': found.bound,
             'method': found.method}
  return frames, facts


def _host() -> jax.Device | None:
  try:
    return jax.local_devices(backend='cpu')[0]
  except RuntimeError:  # JAX was told to leave the CPU backend out
    return None


def packing(
    *, distance: str = 'chordal', layout: str = 'taps',
    scale: str | float = 'none', groups: int = 1,
    restarts: int | None = None, steps: int | None = None, seed: int = 0,
) -> base.LeafInit:
  r"""Initializer: a convolution kernel that is a Grassmannian packing.

  * `layout='taps'` (the paper's): the kernel `(*spatial, c_in, c_out)` is
    `prod(spatial)` subspaces of rank `c_in` in $R^{c_{out}}$; basis vector c
    of subspace n is the fibre `kernel[n, c, :]`. Needs `c_in <= c_out`.
  * `layout='filters'`: `c_out` subspaces of rank `c_in` in $R^{k_h k_w}$; basis
    vector c of subspace n is the slice `kernel[..., c, n]`. Needs
    `c_in <= prod(spatial)`.

  The best packing of a shape is the same for every layer, up to a rotation.
  It is solved once per process and shape, when the initializer is first traced
  (from `seed`, so it is a function of the arguments alone); the layer's key
  then draws a Haar rotation of the space and a Haar basis of every subspace.
  Neither changes a distance. Where `num * rank <= dim` no search is needed:
  mutually orthogonal subspaces are optimal. Nor is it for 3x3, 5x5 and 7x7
  kernels of 1 or 3 inputs and 16, 32, 64, 96, 128 or 256 outputs of a group
  (but 7x7x3x256 with 'filters'): their chordal packings ship with the package
  and are used, once they pass their certificate, unless `restarts`, `steps` or
  `seed` ask for a search.

  A grouped kernel `(*spatial, c_in / groups, c_out)`, that of Flax's
  `feature_group_count`, is one such packing per group: block j of
  `c_out / groups` output channels, rotated on its own. Depthwise kernels have
  `c_in / groups = 1`; with one output per group they need layout='filters'.

  Basis vectors have unit norm, so entries have mean square 1 / dim:

  * `scale='none'`: as they are;
  * `scale='kaiming'`: times $\sqrt{2 \, dim / fan_{in}}$, so entries have the
    mean square $2 / fan_{in}$ of `jax.nn.initializers.he_normal`;
  * a float: times that. The paper's words taken literally, basis vectors of
    norm $\sqrt{2 / fan_{in}}$, are `scale=math.sqrt(2 / fan_in)`.

  Args:
    distance: what to maximise: 'chordal' or 'fubini_study'.
    layout: 'taps' or 'filters'.
    scale: 'none', 'kaiming' or a positive float.
    groups: feature groups of the convolution; has to divide `c_out`.
    restarts: random starts of the search, as in `pack`.
    steps: descent steps of each, as in `pack`.
    seed: seed of the search (not of the rotation).

  Returns:
    An Initializer. Its `aux(key, shape)['packing']` holds the dimensions, the
    attained distance, the bound and the method (of each group alike).

  Raises:
    ValueError: for an unknown option, or (when called) for a shape that the
      layout cannot serve, or for a shipped packing whose file is damaged.

  Example:
    >>> import jax, jax.numpy as jnp, structinit_jax as si
    >>> init = si.grassmann.packing()
    >>> kernel = init(jax.random.key(0), (3, 3, 3, 32))
    >>> frames = kernel.reshape(9, 3, 32).mT
    >>> round(float(si.grassmann.min_distance(frames)), 4)     # sqrt(3)
    1.7321

  Source: Yap, Roberts, Prabhu, Grassmannian Packings in Neural Networks,
    sections 2 and 3; its second layout is that of public implementations.
  """
  distances.check_distance(distance)
  _check_layout(layout)
  scale = _check_scale(scale)
  groups = base.integer('groups', groups, 1)
  restarts, steps, seed = descent.options(restarts, steps, seed)

  def solve(dim: int, rank: int, num: int) -> tuple[np.ndarray, dict[str, Any]]:
    return _base_packing(dim, rank, num, distance, restarts, steps, seed)

  def sample_group(
      key: base.Key, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    dim, rank, num = _sizes(shape, layout)
    if not math.prod(shape):
      return jnp.zeros(shape, dtype)
    frames = None
    if num * rank > dim:
      frames = jnp.asarray(solve(dim, rank, num)[0], dtype)
    return _draw(key, frames, (dim, rank, num), shape, layout, scale, dtype)

  def sample(key: base.Key, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    _sizes(shape, layout, groups)
    if groups == 1:
      return sample_group(key, shape, dtype)
    group = (*shape[:-1], shape[-1] // groups)
    kernels = jax.vmap(lambda k: sample_group(k, group, dtype))(
        jax.random.split(key, groups))
    return jnp.moveaxis(kernels, 0, -2).reshape(shape)

  def structure(key: base.Key, shape: tuple[int, ...]) -> dict[str, Any]:
    del key  # the distances are those of the packing, whatever the rotation
    dim, rank, num = _sizes(shape, layout, groups)
    if num < 2 or not math.prod(shape):
      return {}
    return {'packing': dict(solve(dim, rank, num)[1])}

  options = [f'layout={layout!r}', f'scale={scale!r}']
  if distance != 'chordal':
    options.append(f'distance={distance!r}')
  if groups != 1:
    options.append(f'groups={groups}')
  label = f'grassmann.packing({", ".join(options)})'
  return base.LeafInit(label, sample, structure)
