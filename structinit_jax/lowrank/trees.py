"""Pairs of factors in a tree: find them, make them, decay their product."""

from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from structinit_jax import base as protocols
from structinit_jax import linalg
from structinit_jax import tree
from structinit_jax.lowrank import attention as heads
from structinit_jax.lowrank import factors
from structinit_jax.lowrank import forms
from structinit_jax.lowrank import objectives
from structinit_jax.lowrank import plans
from structinit_jax.lowrank import ranks

__all__ = [
    'compress', 'frobenius_decay', 'layer_objectives', 'lfai', 'low_rank',
    'pairs',
]


def pairs(params: protocols.PyTree) -> dict[str, forms.Form]:
  """Finds the pairs of factors of a tree: sibling leaves `u` and `v`.

  Args:
    params: parameters or their shapes.

  Returns:
    Their forms, by the name of what they are in.

  Raises:
    ValueError: if two siblings of these names are no factors of a kernel; the
      message names them.

  Example:
    >>> import jax.numpy as jnp, structinit_jax as si
    >>> params = {'head': {'u': jnp.ones((8, 2)), 'v': jnp.ones((2, 5))}}
    >>> {name: form.kernel for name, form in si.lowrank.pairs(params).items()}
    {'head': (8, 5)}

  Source: this library.
  """
  names, leaves, _ = tree.flatten_with_names(params)
  shapes = dict(zip(names, map(jnp.shape, leaves), strict=True))
  found = {}
  for name in names:
    parent, _, last = name.rpartition('/')
    other = plans.join(parent, 'v')
    if last == 'u' and other in shapes:
      try:
        found[parent] = forms.form(shapes[name], shapes[other])
      except ValueError as error:
        raise ValueError(f'leaves {name!r} and {other!r}: {error}') from error
  return found


def layer_objectives(
    kernels: Mapping[str, jax.Array], params: protocols.PyTree, *,
    activation: objectives.Activation = 'relu',
) -> dict[str, jax.Array]:
  r"""Returns `objective` of every pair of factors of a tree.

  The columns of a separable convolution that are one output count together, as
  they do for 'exact'.

  Args:
    kernels: by the name of what a pair is in, as `aux['kernels']` of `lfai`;
      pairs without one are left out.
    params: of the network.
    activation: that follows the layers, as of `factorize`.

  Returns:
    Scalars by name.

  Raises:
    ValueError: for a kernel whose shape is not that of its pair, or of no pair.

  Example:
    >>> import jax, jax.numpy as jnp, structinit_jax as si
    >>> shapes = {'u': jax.ShapeDtypeStruct((64, 6), jnp.float32),
    ...           'v': jax.ShapeDtypeStruct((6, 32), jnp.float32)}
    >>> init = si.lowrank.lfai(method='exact')
    >>> params, aux = init.init_with_aux(jax.random.key(0), {'head': shapes})
    >>> found = si.lowrank.layer_objectives(aux['kernels'], params)
    >>> round(float(found['head']), 1)
    7.9

  Source: Vodrahalli et al. (2022), problem 3.1, of every layer.
  """
  names, leaves, _ = tree.flatten_with_names(params)
  values = dict(zip(names, leaves, strict=True))
  all_forms = pairs(params)
  if unknown := sorted(kernels.keys() - all_forms.keys()):
    raise ValueError(f'kernels of {", ".join(unknown)} are of no pair')
  found = {}
  for name, kernel in kernels.items():
    form = all_forms[name]
    if jnp.shape(kernel) != form.kernel:
      raise ValueError(
          f'kernel of {name!r} of shape {jnp.shape(kernel)}: its pair is of a '
          f'kernel {form.kernel}')
    product = forms.merge(*(values[plans.join(name, last)] for last in 'uv'))
    w, y = (form.to_matrices(x.astype(protocols.compute_dtype(x.dtype)))
            for x in (kernel, product))
    found[name] = objectives.expected_error(
        jnp.moveaxis(w, 0, -2).reshape(*w.shape[1:3], -1),
        jnp.moveaxis(y, 0, -2).reshape(*y.shape[1:3], -1), activation)
  return found


def _after(done: jax.Array, w: jax.Array) -> jax.Array:
  """Returns w, once another array is there.

  In one program the loops of several shapes would run at once, and on CPU they
  can then wait for each other's threads forever. XLA drops its barriers before
  it orders what it runs, but keeps a product with 0.
  """
  return w + (0 * jnp.nan_to_num(done.reshape(-1)[0])).astype(w.dtype)


def _fit_all(
    ws: Mapping[str, jax.Array], all_forms: Mapping[str, forms.Form],
    options: Mapping[str, Any], keys: Mapping[str, protocols.Key] | None = None,
    inputs: protocols.Key | None = None,
) -> dict[str, tuple[jax.Array, jax.Array]]:
  """Returns the factors of every W; equal shapes are one `vmap`."""
  alike: dict[Any, list[str]] = {}
  for name, w in ws.items():
    like = w.shape[1:], w.dtype, all_forms[name].rank
    alike.setdefault(like, []).append(name)
  found: dict[str, tuple[jax.Array, jax.Array]] = {}
  for (_, _, rank), names in alike.items():
    w = jnp.concatenate([ws[name] for name in names])
    if found:
      w = _after(next(reversed(found.values()))[0], w)
    us, vs = factors.fits(
        keys and jnp.concatenate([keys[name] for name in names]), w, rank,
        inputs, **options)
    first = 0
    for name in names:
      last = first + len(ws[name])
      found[name] = us[first:last], vs[first:last]
      first = last
  return found


def lfai(
    *, activation: objectives.Activation = 'relu', method: str = 'exact',
    base: Callable[..., jax.Array] = factors.lecun_normal,
    rest: Callable[..., jax.Array] | None = None, restarts: int | None = None,
    steps: int | None = None, tolerance: float | None = None,
    batch: int = 1024, learning_rate: float = 0.01, norms: str = 'best',
) -> protocols.StructuredInit:
  r"""Low-rank layers that start as the function of full-rank ones.

  For every pair of leaves `u`, `v` in one place of the tree, as
  `layers.LowRankDense` and `LowRankConv` have them, a kernel is drawn by `base`
  and replaced by its factors, by `factorize`. The kernel is the one that `base`
  would have drawn for the leaf `kernel` of the full layer. Layers of equal
  shapes are solved together, and Adam shows all layers the same inputs. Where
  the result is sharded, products are summed in another order, after which
  'exact' may stop at another step.

  Args:
    activation: that follows the layers, as of `factorize`.
    method: as of `factorize`.
    base: Initializer of the full-rank kernels; those of attention are drawn as
      matrices, which is how Flax draws them. Variance 1 / fan_in by default.
    rest: Initializer of the leaves that are no factors, if there are any.
    restarts: as of `factorize`.
    steps: as of `factorize`.
    tolerance: as of `factorize`.
    batch: as of `factorize`.
    learning_rate: as of `factorize`.
    norms: as of `factorize`.

  Returns:
    A StructuredInit; `aux['ranks']` holds the ranks of the pairs,
    `aux['kernels']` the kernels that were drawn.

  Raises:
    ValueError: for an unknown option; when called, for leaves that are no
      factors if there is no `rest`, and for pairs that are none of a kernel.

  Example:
    >>> import jax, jax.numpy as jnp, structinit_jax as si
    >>> shapes = {'u': jax.ShapeDtypeStruct((64, 6), jnp.float32),
    ...           'v': jax.ShapeDtypeStruct((6, 32), jnp.float32)}
    >>> params = si.lowrank.lfai(activation='relu')(jax.random.key(0), shapes)
    >>> jax.tree.map(jnp.shape, params)
    {'u': (64, 6), 'v': (6, 32)}

  Source: Vodrahalli et al. (2022), definition 2.3 and Algorithms 1 to 3.
  """
  options = factors.check_options(
      method, activation, restarts=restarts, steps=steps, tolerance=tolerance,
      batch=batch, learning_rate=learning_rate, norms=norms)

  def init_with_aux(
      key: protocols.Key, shapes: protocols.PyTree
  ) -> tuple[protocols.PyTree, protocols.Aux]:
    protocols.check_key(key)
    names, structs, treedef = tree.flatten_with_names(shapes)
    dtypes = {name: struct.dtype
              for name, struct in zip(names, structs, strict=True)}
    found = pairs(shapes)
    ws, keys, kernels = {}, {}, {}
    for name, form in found.items():
      try:
        inner = protocols.compute_dtype(dtypes[plans.join(name, 'u')])
        factors.check_rank(form.matrix, form.rank)
      except ValueError as error:
        raise ValueError(f'leaf {plans.join(name, "u")!r}: {error}') from error
      kernel = base(
          tree.leaf_key(key, plans.join(name, 'kernel')), form.drawn, inner)
      if jnp.shape(kernel) not in (form.drawn, form.kernel):
        raise ValueError(
            f'leaf {plans.join(name, "u")!r}: base made a kernel of shape '
            f'{jnp.shape(kernel)}, and the factors are of one of shape '
            f'{form.kernel}')
      kernels[name] = kernel.reshape(form.kernel)
      ws[name] = form.to_matrices(kernels[name])
      keys[name] = jax.random.split(
          tree.leaf_key(key, plans.join(name, 'u')), form.count)
    made = {}
    solved = _fit_all(ws, found, options, keys, tree.leaf_key(key, 'inputs'))
    for name, (u, v) in solved.items():
      factors.check_found(plans.join(name, 'kernel'), u, v)
      for last, leaf in zip('uv', found[name].leaves(u, v), strict=True):
        made[plans.join(name, last)] = leaf
    others = [name for name in names if name not in made]
    if others and rest is None:
      raise ValueError(
          f'leaves {", ".join(others)} are no factors: give lfai rest=, an '
          "Initializer for them, or a rule of si.partition, with "
          "r'(.*/)?[uv]' for this one")
    for name, struct in zip(names, structs, strict=True):
      if name in others and rest is not None:
        made[name] = rest(
            tree.leaf_key(key, name), struct.shape, struct.dtype)
    leaves = [made[name].astype(dtypes[name]) for name in names]
    tree.check_like(names, leaves, structs)
    return treedef.unflatten(leaves), {
        'masks': treedef.unflatten([True] * len(names)),
        'ranks': {name: form.rank for name, form in found.items()},
        'kernels': kernels}

  return protocols.StructuredInit(
      lambda key, shapes: init_with_aux(key, shapes)[0], init_with_aux)


def low_rank(
    *, rank_scale: float | None = None, rank: int | None = None,
    kind: str = 'separable', **options: Any,
) -> protocols.LeafInit:
  r"""Kernels of low rank: the products of the factors that `lfai` makes.

  For layers that keep their kernel, to start as the low-rank network does.

  Args:
    rank_scale: relative to the smaller side of the matrix; or `rank`.
    rank: the same for all.
    kind: of convolutions, 'separable' or 'pointwise'.
    **options: as of `lfai`, but for `rest`.

  Returns:
    An Initializer of dense kernels and convolutions; its `aux` has the rank.

  Raises:
    ValueError: for an unknown option; when called, for a shape of less than two
      axes or with no such rank.

  Example:
    >>> import jax, jax.numpy as jnp, structinit_jax as si
    >>> init = si.lowrank.low_rank(rank=4)
    >>> int(jnp.linalg.matrix_rank(init(jax.random.key(0), (32, 16))))
    4

  Source: Vodrahalli et al. (2022), definition 2.3.
  """
  init = lfai(**options)
  ranks.of(1, 1, rank=rank, rank_scale=rank_scale)

  def form(shape: protocols.Shape) -> forms.Form:
    one = forms.of_kernel(shape, 1, kind=kind)
    size = ranks.of(*one.matrix, rank=rank, rank_scale=rank_scale)
    return one.of_rank(factors.check_rank(one.matrix, size))

  def sample(
      key: protocols.Key, shape: protocols.Shape, dtype: Any) -> jax.Array:
    if 0 in shape:
      return jnp.zeros(shape, dtype)
    found = form(shape)
    made = init(key, {name: jax.ShapeDtypeStruct(size, dtype)
                      for name, size in (('u', found.u), ('v', found.v))})
    return forms.merge(made['u'], made['v'])

  given = {'rank_scale': rank_scale, 'rank': rank, 'kind': kind, **options}
  label = ', '.join(
      f'{name}={value!r}' for name, value in given.items() if value is not None)
  return protocols.LeafInit(
      f'lowrank.low_rank({label})', sample,
      lambda key, shape: {'rank': 0 if 0 in shape else form(shape).rank})


def compress(
    params: protocols.PyTree, *, rank_scale: float | None = None,
    rank: int | None = None, energy: float | None = None,
    stable: float | None = None, budget: float | None = None,
    uses: Mapping[str, int] | None = None,
    activation: objectives.Activation = 'relu', method: str = 'exact',
    covariances: Mapping[str, jax.Array] | None = None,
    select: str = '.*', kind: str = 'separable',
    steps: int | None = None, tolerance: float | None = None,
) -> dict[str, Any]:
  r"""Replaces the kernels of a trained network by factors.

  A kernel is replaced if that saves parameters. With the covariance of its
  inputs the outputs past the activation are approximated on data, as far as the
  inputs are Gaussian.

  Args:
    params: nested dictionaries of arrays, as of `factor_shapes`.
    rank_scale: ranks relative to the smaller side of the matrix; give this,
      `rank`, `energy`, `stable` or `budget`.
    rank: one rank for all, at most the smaller side.
    energy: the share of the squared singular values that a rank has to keep.
      These are, for `stable` and `budget` too, of the root of the covariance
      times the kernel.
    stable: ranks relative to the `stable_rank` of the matrix.
    budget: share of the weights of the selected kernels that the factors may
      have together. It is spent so that the shares of their squared singular
      values that kernels keep add up to the most.
    uses: as of `factor_shapes`.
    activation: that follows the layers, as of `factorize`.
    method: as of `factorize`; no Adam.
    covariances: of the inputs, (in, in) in the order of the kernel's rows, by
      the name of what the kernel is in; the identity for others.
    select: regular expression of the names of the kernels to replace.
    kind: of convolutions, 'separable' or 'pointwise'; covariances are for
      'pointwise' and dense ones.
    steps: as of `factorize`.
    tolerance: as of `factorize`.

  Returns:
    Nested dictionaries, with `u` and `v` in place of `kernel`: for the same
    model, by `layers.factored`.

  Raises:
    ValueError: for a kernel that is not finite (the message names it), a
      covariance of no kernel or of another shape, or an unknown option.

  Example:
    >>> import jax, jax.numpy as jnp, structinit_jax as si
    >>> w = jax.random.normal(jax.random.key(0), (64, 64)) / 8
    >>> params = {'hidden': {'kernel': w, 'bias': jnp.zeros(64)}}
    >>> small = si.lowrank.compress(params, rank_scale=0.1)
    >>> jax.tree.map(jnp.shape, small)
    {'hidden': {'bias': (64,), 'u': (64, 6), 'v': (6, 64)}}

  Source: Vodrahalli et al. (2022), remark 4.1, of other inputs.
  """
  # From the singular vectors only: nothing here is drawn.
  options = factors.check_options(
      method, activation, restarts=0, steps=steps, tolerance=tolerance,
      batch=1, learning_rate=0., norms='best')
  if method == 'baseline' or method.startswith('adam'):
    raise ValueError(
        f'method {method!r} draws at random; use spectral, randomized, '
        'rescaled, exact or relu_svd')
  choose = ranks.chooser(rank_scale=rank_scale, rank=rank, energy=energy,
                         stable=stable, budget=budget, uses=uses)
  names, leaves, _ = tree.flatten_with_names(params)
  made = dict(zip(names, leaves, strict=True))
  found = plans.find(params, select=select, kind=kind)
  covariances = dict(covariances or {})
  ws, back, matrices = {}, {}, {}
  for parent, form in found.items():
    name = plans.join(parent, 'kernel')
    factors.check_finite(f'leaf {name!r}', made[name])
    try:
      inner = protocols.compute_dtype(made[name].dtype)
    except ValueError as error:
      raise ValueError(f'leaf {name!r}: {error}') from error
    w = form.to_matrices(made[name].astype(inner))
    if parent in covariances:
      if form.windows > 1:
        raise ValueError(
            f'leaf {name!r} of shape {form.kernel}: a covariance needs kind='
            "'pointwise', as the factors of a separable convolution see single "
            'rows of the window')
      try:
        root, inverse = objectives.root(covariances.pop(parent), form.rows)
      except ValueError as error:
        raise ValueError(f'leaf {name!r}: {error}') from error
      w = linalg.matmul(root.astype(w.dtype), w[0, :, 0])[None, :, None]
      back[parent] = inverse.astype(w.dtype)
    ws[parent] = w
    values = None
    if rank is None and rank_scale is None:
      if isinstance(w, jax.core.Tracer):
        raise ValueError(
            f'leaf {name!r} is traced: ranks by singular values need values; '
            'give rank or rank_scale under jax.jit')
      values = jnp.linalg.svd(w.reshape(form.matrix), compute_uv=False)
    matrices[parent] = form.matrix, values
  if covariances:
    raise ValueError(
        f'covariances of {", ".join(sorted(covariances))} are of no kernel')
  found = {name: found[name].of_rank(rank)
           for name, rank in choose(matrices).items()}
  ws = {name: ws[name] for name in found}
  for name, (u, v) in _fit_all(ws, found, options).items():
    if name in back:
      u = linalg.matmul(back[name], u)
    factors.check_found(plans.join(name, 'kernel'), u, v)
    dtype = made.pop(plans.join(name, 'kernel')).dtype
    for last, leaf in zip('uv', found[name].leaves(u, v), strict=True):
      made[plans.join(name, last)] = leaf.astype(dtype)
  return tree.nest({name: made[name] for name in sorted(made)})


def _attention(params: protocols.PyTree) -> list[tuple[str, str, bool]]:
  """Finds the kernels of attention that are multiplied: one, other, is out."""
  names, leaves, _ = tree.flatten_with_names(params)
  shapes = dict(zip(names, map(jnp.shape, leaves), strict=True))
  found = []
  for name in names:
    parent, _, last = name.removesuffix('/kernel').rpartition('/')
    for one, other in heads.PRODUCTS:
      partner = plans.join(parent, f'{other}/kernel')
      if (last == one and name.endswith('/kernel') and partner in shapes
          and len(shapes[name]) == len(shapes[partner]) == 3):
        found.append((name, partner, other == 'out'))
  return found


def frobenius_decay(
    coefficient: float, rest: float = 0.0, *, attention: bool = False
) -> optax.GradientTransformation:
  r"""Decays the products of factors, not the factors.

  Adds the gradient of $\frac{\lambda}{2} \| U V \|_F^2$, that is
  $\lambda U (V V^T)$ and $\lambda (U^T U) V$, to the updates of every pair; the
  product is not formed.

  Args:
    coefficient: lambda, at least 0.
    rest: of the other leaves, as of `optax.add_decayed_weights`.
    attention: whether the kernels of query and key, and of value and out, of
      Flax's attention are pairs, too: one product a head.

  Returns:
    An optax transformation; it belongs before the one that scales by the
    learning rate, as `optax.add_decayed_weights` does.

  Raises:
    ValueError: if a coefficient is negative or not finite; if there is no pair
      and no `rest`, or an update is not given the parameters.

  Example:
    >>> import jax.numpy as jnp, optax, structinit_jax as si
    >>> params = {'u': jnp.ones((3, 1)), 'v': 2 * jnp.ones((1, 2))}
    >>> decay = si.lowrank.frobenius_decay(0.1)
    >>> zeros = optax.tree.zeros_like(params)
    >>> updates, _ = decay.update(zeros, decay.init(params), params)
    >>> [[round(float(x), 2) for x in row] for row in updates['u']]
    [[0.8], [0.8], [0.8]]

  Source: Khodak et al. (2021), section 3.2; Vodrahalli et al. (2022), section
    4.
  """
  coefficient = protocols.positive('coefficient', coefficient, or_zero=True)
  rest = protocols.positive('rest', rest, or_zero=True)

  def init_fn(params: protocols.PyTree) -> optax.EmptyState:
    if not rest and not pairs(params) and not (
        attention and _attention(params)):
      raise ValueError(
          'no pair of leaves u, v among '
          f'{", ".join(tree.leaf_names(params)) or "none"}')
    return optax.EmptyState()

  def update_fn(
      updates: protocols.PyTree, state: optax.OptState,
      params: protocols.PyTree = None,
  ) -> tuple[protocols.PyTree, optax.OptState]:
    if params is None:
      raise ValueError(
          'frobenius_decay needs params: optimizer.update(g, s, p)')
    names, leaves, treedef = tree.flatten_with_names(params)
    values = dict(zip(names, leaves, strict=True))
    decays = {}
    for name, form in pairs(params).items():
      one, other = plans.join(name, 'u'), plans.join(name, 'v')
      u, v = form.matrices(values[one], values[other])
      flat = v.reshape(*v.shape[:2], -1)
      decays[one], decays[other] = form.leaves(
          linalg.matmul(u, linalg.matmul(flat, flat.mT)),
          linalg.matmul(linalg.matmul(u.mT, u), flat).reshape(v.shape))
    for one, other, out in _attention(params) if attention else ():
      decays[one], decays[other] = heads.decays(
          values[one], values[other], out=out)
    return treedef.unflatten([
        update + (coefficient * decays[name] if name in decays
                  else rest * values[name])
        for name, update in zip(
            names, treedef.flatten_up_to(updates), strict=True)]), state

  return optax.GradientTransformation(init_fn, update_fn)
