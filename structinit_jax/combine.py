"""Ordered (regex, initializer) rules that make a whole tree of parameters."""

from collections.abc import Callable
from collections.abc import Sequence
import difflib
import inspect
import re
from typing import Any

import jax
import jax.numpy as jnp

from structinit_jax import base
from structinit_jax import tree

__all__ = ['labels', 'partition']

Rules = Sequence[tuple[str, Any]]


def _compile(rules: Rules) -> list[re.Pattern[str]]:
  if isinstance(rules, (str, dict)) or not isinstance(rules, Sequence):
    raise ValueError(
        'rules must be an ordered sequence of (regex, value) pairs, got '
        f'{type(rules).__name__}; the order decides, so a dict will not do')
  patterns = []
  for rule in rules:
    if not isinstance(rule, (tuple, list)) or len(rule) != 2:
      raise ValueError(f'a rule is a pair (regex, value), got {rule!r}')
    if not isinstance(rule[0], (str, re.Pattern)):
      raise ValueError(
          f'the pattern of a rule is a string, got {rule[0]!r}')
    try:
      patterns.append(re.compile(rule[0]))
    except re.error as error:
      raise ValueError(
          f'rule {rule[0]!r} is not a regular expression: {error}') from error
  return patterns


def _assign(names: Sequence[str], rules: Rules) -> list[int]:
  """Returns for every name the index of the first rule that fully matches."""
  patterns = _compile(rules)
  chosen, uncovered = [], []
  for name in names:
    hits = [i for i, p in enumerate(patterns) if p.fullmatch(name)]
    if hits:
      chosen.append(hits[0])
    else:
      uncovered.append(name)
  shown = ', '.join(repr(rule[0]) for rule in rules) or 'none'
  if uncovered:
    raise ValueError(
        f'no rule covers {len(uncovered)} of {len(names)} leaves: '
        f'{", ".join(uncovered)}. The rules are {shown}; a rule must match the '
        "whole name, and a last rule ('.*', ...) covers the rest")
  unused = [i for i in range(len(rules)) if i not in chosen]
  if unused:
    lines = []
    for i in unused:
      taken = [name for name in names if patterns[i].fullmatch(name)]
      near = difflib.get_close_matches(
          patterns[i].pattern, names, n=1, cutoff=0.5)
      lines.append(repr(rules[i][0]) + (
          f' (earlier rules took {", ".join(taken)})' if taken else
          f' (did you mean {near[0]!r}?)' if near else ''))
    raise ValueError(
        f'{len(unused)} of {len(rules)} rules match no leaf: '
        f'{"; ".join(lines)}. The leaves are {", ".join(names) or "none"}')
  return chosen


def _is_leaf_initializer(value: Callable[..., Any]) -> bool:
  """Tells `init(key, shape, dtype)` from `init_fn(key, shapes)`."""
  if isinstance(value, base.LeafInit):
    return True
  if isinstance(value, base.StructuredInit):
    return False
  try:
    inspect.signature(value).bind(None, (), None)
  except TypeError:
    return False
  return True


def partition(rules: Rules) -> base.StructuredInit:
  r"""Combines initializers by the names of the leaves they make.

  The first rule whose regular expression matches a leaf's whole name makes
  that leaf. The value of a rule is an Initializer (called once a leaf with
  the leaf's own key), or an InitFn or StructuredInit, called once with the
  same key and the nested dictionary of all leaves that the rule matched.

  Args:
    rules: ordered pairs `(regex, initializer)`.

  Returns:
    A StructuredInit; its `aux['masks']` mirrors the parameters.

  Raises:
    ValueError: at once for a malformed rule; when called, for a leaf that no
      rule covers, a rule that no leaf uses, or a leaf that its initializer
      cannot make (the message names the leaf and its shape).

  Example:
    >>> import jax, jax.numpy as jnp, structinit_jax as si
    >>> shapes = {'kernel': jax.ShapeDtypeStruct((3, 4), jnp.float32),
    ...           'bias': jax.ShapeDtypeStruct((4,), jnp.float32)}
    >>> init_fn = si.partition([
    ...     ('kernel', jax.nn.initializers.orthogonal()), ('.*', si.zeros)])
    >>> params = init_fn(jax.random.key(0), shapes)
    >>> jax.tree.map(jnp.shape, params)
    {'bias': (4,), 'kernel': (3, 4)}
  """
  _compile(rules)
  rules = tuple((pattern, value) for pattern, value in rules)
  for pattern, value in rules:
    if not callable(value):
      raise ValueError(
          f'rule {pattern!r}: {value!r} is not callable; it must be an '
          'Initializer, an InitFn or a StructuredInit')

  def init_with_aux(
      key: base.Key, shapes: base.PyTree) -> tuple[base.PyTree, base.Aux]:
    names, structs, treedef = tree.flatten_with_names(shapes)
    for name, struct in zip(names, structs, strict=True):
      if not hasattr(struct, 'shape') or not hasattr(struct, 'dtype'):
        raise ValueError(
            f'leaf {name!r} is {struct!r}; the leaves of shapes are '
            'jax.ShapeDtypeStruct(shape, dtype), as jax.eval_shape returns, or '
            'arrays')
    chosen = _assign(names, rules)
    made: dict[str, Any] = {}
    masks: dict[str, Any] = dict.fromkeys(names, True)
    facts: dict[str, dict[str, Any]] = {}

    for i, (pattern, value) in enumerate(rules):
      matched = {n: s for n, s, j in zip(names, structs, chosen, strict=True)
                 if j == i}
      if _is_leaf_initializer(value):
        for name, struct in matched.items():
          leaf_key = tree.leaf_key(key, name)
          try:
            made[name] = value(leaf_key, struct.shape, struct.dtype)
            aux = (value.aux(leaf_key, struct.shape)
                   if hasattr(value, 'aux') else {})
          except (ValueError, TypeError) as error:
            raise ValueError(
                f'leaf {name!r} of shape {tuple(struct.shape)}, made by rule '
                f'{pattern!r}: {error}') from error
          for kind, fact in aux.items():
            if kind == 'mask':
              if jnp.shape(fact) not in ((), tuple(struct.shape)):
                raise ValueError(
                    f'leaf {name!r} of shape {tuple(struct.shape)}: its mask '
                    f'has shape {jnp.shape(fact)}')
              masks[name] = fact
            else:
              facts.setdefault(kind, {})[name] = fact
      else:
        sub, aux = _run_tree_rule(value, key, tree.nest(matched))
        sub_names, sub_leaves, _ = tree.flatten_with_names(sub)
        if set(sub_names) != set(matched):
          raise ValueError(
              f'rule {pattern!r} was asked for {sorted(matched)} and returned '
              f'{sorted(sub_names)}')
        made.update(zip(sub_names, sub_leaves, strict=True))
        for kind, fact in aux.items():
          if kind == 'masks':
            sub_names, sub_leaves, _ = tree.flatten_with_names(fact)
            masks.update(zip(sub_names, sub_leaves, strict=True))
          else:
            facts.setdefault(kind, {}).update(fact)

    leaves = [made[name] for name in names]
    tree.check_like(names, leaves, structs)
    leaves = [
        base.place(leaf, struct.sharding)
        if isinstance(struct, jax.ShapeDtypeStruct) else leaf
        for leaf, struct in zip(leaves, structs, strict=True)]
    aux = {'masks': treedef.unflatten([masks[name] for name in names])}
    return treedef.unflatten(leaves), {**aux, **facts}

  def init(key: base.Key, shapes: base.PyTree) -> base.PyTree:
    return init_with_aux(key, shapes)[0]

  return base.StructuredInit(init, init_with_aux, rules)


def _run_tree_rule(
    value: Any, key: base.Key, shapes: base.PyTree
) -> tuple[base.PyTree, base.Aux]:
  if isinstance(value, base.StructuredInit):
    return value.init_with_aux(key, shapes)
  return value(key, shapes), {}


def labels(shapes: base.PyTree, rules: Rules) -> base.PyTree:
  """Labels every leaf, for `optax.partition`: which to train, which to freeze.

  Args:
    shapes: parameters or their shapes.
    rules: ordered pairs `(regex, label)`; the first full match wins.

  Returns:
    A tree of the same structure whose leaves are the labels.

  Raises:
    ValueError: for a leaf that no rule covers or a rule that no leaf uses.

  Example:
    >>> import jax.numpy as jnp, optax, structinit_jax as si
    >>> params = {'stem': {'kernel': jnp.ones(2)}, 'head': jnp.ones(3)}
    >>> labels = si.labels(params, [('stem/.*', 'freeze'), ('.*', 'train')])
    >>> labels
    {'head': 'train', 'stem': {'kernel': 'freeze'}}
    >>> optimizer = optax.partition(
    ...     {'train': optax.sgd(0.1), 'freeze': optax.set_to_zero()}, labels)
  """
  names, _, treedef = tree.flatten_with_names(shapes)
  return treedef.unflatten([rules[i][1] for i in _assign(names, rules)])
