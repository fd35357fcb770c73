"""The initializers that a config can name, each a recipe for a whole model."""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import functools
import re
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from experiments import registry
import structinit_jax as si
from structinit_jax import base

__all__ = ['Recipe', 'make']

FREEZE, TRAIN = 'freeze', 'train'


@dataclasses.dataclass(frozen=True)
class Recipe:
  """How to initialise a model, and what of it to train.

  Attributes:
    rules: ordered `(regex, initializer)` pairs, as for `si.partition`. Rules
      that a model has no use for are left out.
    frozen: regular expression of the leaves that are not trained.
    prune: rules of `si.pruning.prune` for the trained model, which is then
      trained for as many epochs again.
    factors: options of `si.lowrank.factor_shapes`, for models of which some
      kernels are factors.
    subspace: options of `si.subspace.within`, for models that are trained in a
      random subspace.
    look: makes the InitFn of a model, a batch of its inputs and `rest`, the
      InitFn of the rules, for initializers that look at images.
    images: how many training images `look` gets at most, the first ones.
  """

  rules: tuple[tuple[str, Any], ...]
  frozen: str | None = None
  prune: tuple[tuple[str, si.pruning.Method], ...] = ()
  factors: Mapping[str, Any] | None = None
  subspace: Mapping[str, Any] | None = None
  look: Callable[..., si.StructuredInit] | None = None
  images: int = 0

  def shapes(self, full: Any) -> Any:
    """Returns the shapes of the parameters, from those of the full model."""
    if self.factors is None:
      return full
    return si.lowrank.factor_shapes(full, **self.factors)

  def build(self, shapes: Any) -> tuple[si.StructuredInit, Any]:
    """Returns the InitFn for these shapes and the labels of every leaf."""
    rules = _used(self.rules, shapes)
    freeze = [(self.frozen, FREEZE)] if self.frozen else []
    if all(re.fullmatch(p, name) for p, _ in freeze
           for name in si.leaf_names(shapes)) and freeze:
      raise ValueError(f'{self.frozen!r} freezes every leaf: nothing to train')
    return (si.partition(rules),
            si.labels(shapes, [*freeze, ('.*', TRAIN)]))

  def masks(self, key: jax.Array, params: Any) -> Any:
    """Returns what `prune` keeps of trained parameters."""
    return si.pruning.prune(key, params, _used(self.prune, params))


def _used(
    rules: Sequence[tuple[str, Any]], shapes: Any) -> list[tuple[str, Any]]:
  left = si.leaf_names(shapes)
  used = []
  for pattern, value in rules:
    taken = [name for name in left if re.fullmatch(pattern, name)]
    if taken:
      used.append((pattern, value))
      left = [name for name in left if name not in taken]
  return used


# By the number of axes: layers that a scan stacks have one more.
_AXES = {3: si.Axes((-2,), (-1,)), 5: si.Axes((-4, -3, -2), (-1,))}


def _by_rank(dense: Any, conv: Any | None = None) -> base.LeafInit:
  """Returns the Initializer of dense kernels and convolutions, also stacked."""

  def of(shape: Sequence[int]) -> Any:
    chosen = dense if len(shape) <= 3 or conv is None else conv
    axes = _AXES.get(len(shape))
    return chosen if axes is None else si.with_axes(chosen, axes)

  def structure(key: jax.Array, shape: tuple[int, ...]) -> dict[str, Any]:
    initializer = of(shape)
    return initializer.aux(key, shape) if hasattr(initializer, 'aux') else {}

  label = f'{dense!r}' if conv is None else f'{dense!r}, {conv!r}'
  return base.LeafInit(
      label, lambda key, shape, dtype: of(shape)(key, shape, dtype), structure)


# Biases, and the shifts and scales of normalisation, begin as the identity.
_REST = ((r'.*bias', si.zeros), (r'.*scale', jax.nn.initializers.ones))
_INITIALIZERS: dict[str, Callable[[], Any]] = {
    'glorot_normal': jax.nn.initializers.glorot_normal,
    'glorot_uniform': jax.nn.initializers.glorot_uniform,
    'he_normal': jax.nn.initializers.he_normal,
    'he_uniform': jax.nn.initializers.he_uniform,
    'lecun_normal': jax.nn.initializers.lecun_normal,
    'normal': functools.partial(jax.nn.initializers.normal, stddev=1e-3),
    'orthogonal': jax.nn.initializers.orthogonal,
}


def _recipe(
    initializer: Any, where: str, body: str, freeze: bool) -> Recipe:
  """Puts an initializer on every kernel, or on one layer's alone."""
  layer = 'stem' if where == 'all' else where
  frozen = f'{layer}/.*' if freeze else None
  if where == 'all':
    return Recipe(((r'.*kernel', _by_rank(initializer)), *_REST), frozen)
  rest = registry.INITIALIZERS.build(body).rules
  return Recipe(((f'{layer}/kernel', initializer), *rest), frozen)


def _plain(maker: Callable[[], Any]) -> Callable[..., Recipe]:
  @registry.forwards_options(maker)
  def recipe(where: str = 'all', body: str = 'he_normal',
             freeze: bool = False, **options: Any) -> Recipe:
    if where not in ('all', 'stem'):
      raise ValueError(f"where={where!r} must be 'all' or 'stem'")
    return _recipe(maker(**options), where, body, freeze)
  return recipe


def _delta_orthogonal(scale: float = 2**0.5) -> Recipe:
  """Delta-orthogonal convolutions, orthogonal dense layers (gain for ReLU)."""
  return Recipe(((r'.*kernel', _orthogonal(scale)), *_REST))


_CONVS = {'delta': si.sao.delta_orthogonal, 'eco': si.sao.eco}


def _orthogonal(
    gain: float, looks_linear: bool = False, conv: str = 'delta'
) -> base.LeafInit:
  """Dense kernels and convolutions that are orthogonal, without zeros."""
  return _by_rank(*_structure(
      None, 1.0, 'debruijn', conv, gain=gain,
      looks_linear='in' if looks_linear else 'none'))


_ENDS = 'stem|head'


def _sparse(
    kernels: Any, values: Any = None, *, gain: float, dense: str,
    prune: si.pruning.Method | None = None,
) -> Recipe:
  """Puts a sparse initializer on all layers but those that stay dense.

  Convolutions that are orthogonal whatever their kernel, `soc_0`, do, too.
  """
  dense = rf'({dense}|soc_\d+)/.*kernel'
  rules = [(dense, _orthogonal(gain)), *_REST, (r'.*kernel', kernels)]
  if values is not None:
    rules.append((r'.*values.*', values))
  return Recipe(tuple(rules), prune=() if prune is None else (
      (rf'{dense}|.*(bias|scale)', si.pruning.dense), (r'.*', prune)))


def _structure(
    degree: int | None, density: float | None, kind: str, conv: str = 'delta',
    shared: bool = False, **options: Any,
) -> tuple[Any, Any]:
  """SAO's dense kernels and convolutions; `shared` has one topology a shape."""
  if conv not in _CONVS:
    raise ValueError(f"conv={conv!r} must be 'delta' or 'eco'")

  def make(maker: Callable[..., Any]) -> Any:
    if not shared:
      return maker(degree=degree, density=density, kind=kind, **options)

    def of(shape: tuple[int, ...]) -> Any:
      inputs = shape[-2] // (2 if options.get('looks_linear') == 'in' else 1)
      with jax.ensure_compile_time_eval():
        topology = si.sao.topology(
            jax.random.key(0), (inputs, shape[-1]), degree=degree,
            density=density, kind=kind)
      return maker(topology=topology, **options)

    return base.LeafInit(
        maker.__name__, lambda key, shape, dtype: of(shape)(key, shape, dtype),
        lambda key, shape: of(shape).aux(key, shape))

  return make(si.sao.orthogonal), make(_CONVS[conv])


def _sao(
    degree: int | None = None, density: float | None = None,
    kind: str = 'debruijn', conv: str = 'delta', gain: float = 1.0,
    looks_linear: bool = False, tied: bool = False, shared: bool = False,
    dense: str = _ENDS,
) -> Recipe:
  """SAO; the first and the last layer are dense and orthogonal."""
  blocks = {'gain': gain, 'tied': tied}
  stack = si.sao.blocks(looks_linear=looks_linear, **blocks)
  # Of sparse layers that store their values, those in a stack are dense ones.
  values = si.sao.blocks('eco', frequencies='complex', **blocks)
  kernels = _structure(
      degree, density, kind, conv, shared, gain=gain, tied=tied,
      looks_linear='in' if looks_linear else 'none')
  recipe = _sparse(_by_rank(*kernels), values, gain=gain, dense=dense)
  return Recipe(((r'hidden/values.*', stack), *recipe.rules))


def _prune(
    method: si.pruning.Method, weights: base.LeafInit, trained: bool,
    gain: float, dense: str,
) -> Recipe:
  if trained:
    return _sparse(weights, gain=gain, dense=dense, prune=method)
  return _sparse(
      si.pruning.from_scratch(method, weights), gain=gain, dense=dense)


def _pruned(make: Callable[[float], Any]) -> Callable[..., Recipe]:
  """Returns recipes of a pruning method, -S or (`trained`) -T."""

  def recipe(
      density: float, trained: bool = False, conv: str = 'delta',
      gain: float = 1.0, looks_linear: bool = False, dense: str = _ENDS,
  ) -> Recipe:
    return _prune(make(1 - density), _orthogonal(gain, looks_linear, conv),
                  trained, gain, dense)

  return recipe


def _ramanujan(
    degree: int | None = None, density: float | None = None,
    kind: str = 'debruijn', trained: bool = False, conv: str = 'delta',
    gain: float = 1.0, looks_linear: bool = False, dense: str = _ENDS,
) -> Recipe:
  """SAO's mask on an orthogonal network, at the start or after training."""
  like = _structure(degree, density, kind,
                    looks_linear='in' if looks_linear else 'none')
  return _prune(
      si.pruning.ramanujan(_by_rank(*like)),
      _orthogonal(gain, looks_linear, conv), trained, gain, dense)


def _independent(maker: Callable[..., Any]) -> Callable[..., Recipe]:
  """Returns recipes of independent values on SAO's mask."""

  def recipe(
      degree: int | None = None, density: float | None = None,
      kind: str = 'debruijn', scale: str = 'none', gain: float = 1.0,
      looks_linear: bool = False, dense: str = _ENDS,
  ) -> Recipe:
    structures = _structure(degree, density, kind,
                            looks_linear='in' if looks_linear else 'none')
    kernels = _by_rank(*(
        maker(like, scale=scale, gain=gain) for like in structures))
    return _sparse(kernels, gain=gain, dense=dense)

  return recipe


def _givens(
    density: float, gain: float = 1.0, looks_linear: bool = False,
    dense: str = _ENDS,
) -> Recipe:
  """EOI; the first and the last layer are dense and orthogonal."""
  givens = si.pruning.givens(density=density, gain=gain)
  return _sparse(_by_rank(_mirrored(givens) if looks_linear else givens),
                 gain=gain, dense=dense)


def _mirrored(initializer: Any) -> base.LeafInit:
  """Returns the Initializer of [Q; -Q], for inputs relu(h) and relu(-h)."""

  def half(shape: tuple[int, ...]) -> tuple[int, ...]:
    return *shape[:-2], shape[-2] // 2, shape[-1]

  def sample(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    q = initializer(key, half(shape), dtype)
    return jnp.concatenate([q, -q], axis=-2)

  def structure(key: jax.Array, shape: tuple[int, ...]) -> dict[str, Any]:
    mask = initializer.aux(key, half(shape))['mask']
    return {'mask': jnp.concatenate([mask, mask], axis=-2)}

  return base.LeafInit(f'{initializer!r}, mirrored', sample, structure)


def _body(name: str) -> Any:
  """Returns the Initializer of the kernels that a recipe begins with."""
  if name not in _INITIALIZERS:
    raise ValueError(
        f'body={name!r} must be one of {", ".join(sorted(_INITIALIZERS))}')
  return _INITIALIZERS[name]()


def _lfai(
    method: str = 'exact', activation: str = 'relu', rank_scale: float = 0.1,
    kind: str = 'separable', norms: str = 'best', steps: int | None = None,
    batch: int = 1024, body: str = 'lecun_normal', dense: str = _ENDS,
) -> Recipe:
  """Factors, close to the kernels of `body`; the ends keep those."""
  kernels = _body(body)
  pairs = si.lowrank.lfai(
      activation=activation, method=method, base=kernels, norms=norms,
      steps=steps, batch=batch)
  return Recipe(
      ((r'(.*/)?[uv]', pairs), (r'.*kernel', _by_rank(kernels)), *_REST),
      factors={'rank_scale': rank_scale, 'kind': kind,
               'select': rf'(?!({dense})/).*'})


def _subspace(
    dim: int, projection: str = 'hadamard', column_norm: float | None = 1.0,
    per_layer: bool | str = False, body: str = 'lecun_normal',
) -> Recipe:
  """Few coordinates, from the kernels of `body`."""
  return Recipe(
      ((r'.*kernel', _by_rank(_body(body))), *_REST),
      subspace={'dim': dim, 'projection': projection,
                'column_norm': column_norm, 'per_layer': per_layer})


def _sees(body: str, images: int, look: Callable[..., Any]) -> Recipe:
  """Puts an initializer that looks at images over the kernels of `body`."""
  # Options that fit no model are refused here, not when it is their turn.
  look(nn.Dense(2), jnp.eye(4), select='kernel')
  return Recipe(((r'.*kernel', _by_rank(_body(body))), *_REST),
                look=look, images=base.integer('images', images, 1))


def _kmeans(
    method: str = 'whitened', images: int = 256, body: str = 'he_normal',
    select: str | None = None, scale: str = 'variance', patches: int = 16384,
    iterations: int = 30, temperature: float = 0.5, ridge: float = 1.0,
    steps: int = 10_000, learning_rate: float = 1e-3, penalty: float = 100.0,
    decay: bool = False, start: str = 'rest',
) -> Recipe:
  """Filters that are clusters of what layers see in training images."""
  return _sees(body, images, functools.partial(
      si.kmeans.joint, method=method, select=select, scale=scale,
      patches=patches, iterations=iterations, temperature=temperature,
      ridge=ridge, steps=steps, learning_rate=learning_rate, penalty=penalty,
      decay=decay, start=start))


def _lsuv(images: int = 256, body: str = 'he_normal') -> Recipe:
  """Orthonormal kernels whose outputs vary by 1 on training images."""
  return _sees(body, images, si.kmeans.lsuv)


def _only(where: str, maker: Callable[..., Any]) -> Callable[..., Recipe]:
  """Returns recipes with a structured `where` layer; `body` elsewhere."""
  @registry.forwards_options(maker)
  def recipe(
      freeze: bool = False, body: str = 'he_normal', **options: Any) -> Recipe:
    return _recipe(maker(**options), where, body, freeze)
  return recipe


for _name, _maker in _INITIALIZERS.items():
  registry.INITIALIZERS[_name] = _plain(_maker)
for _name, _method in (
    ('gmp', si.pruning.global_magnitude), ('lmp', si.pruning.local_magnitude),
    ('lrp', si.pruning.local_random)):
  registry.INITIALIZERS[_name] = _pruned(
      functools.partial(_method, axes=_AXES))
registry.INITIALIZERS['delta_orthogonal'] = _delta_orthogonal
registry.INITIALIZERS['eoi'] = _givens
registry.INITIALIZERS['kmeans'] = _kmeans
registry.INITIALIZERS['lfai'] = _lfai
registry.INITIALIZERS['lsuv'] = _lsuv
registry.INITIALIZERS['rg'] = _ramanujan
registry.INITIALIZERS['rg_normal'] = _independent(si.pruning.normal)
registry.INITIALIZERS['rg_uniform'] = _independent(si.pruning.uniform)
registry.INITIALIZERS['sao'] = _sao
registry.INITIALIZERS['dictionary'] = _only('stem', si.grassmann.dictionary)
registry.INITIALIZERS['grassmann'] = _only('stem', si.grassmann.packing)
registry.INITIALIZERS['simplex_head'] = _only(
    'head', si.grassmann.simplex_head)
registry.INITIALIZERS['subspace'] = _subspace
registry.INITIALIZERS['tight_frame'] = _only('stem', si.grassmann.tight_frame)


def make(entry: str) -> tuple[str, Recipe]:
  """Returns the label and the recipe of a config entry.

  Args:
    entry: `'label = name(option=value)'`, or without the label.

  Returns:
    `(label, recipe)`.

  Raises:
    ValueError: for an unknown name (nearest ones are listed) or option.
  """
  label, expression = registry.split_label(entry)
  return label, registry.INITIALIZERS.build(expression)
