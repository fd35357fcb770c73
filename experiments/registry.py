"""The one place where names in a config become code.

A name may carry keyword arguments, as in `'grassmann(freeze=True)'`. To add a
model, optimizer or initializer of your own, assign it:

    registry.MODELS['mine'] = MyModel
"""

import ast
from collections.abc import Callable
import difflib
import inspect
from typing import Any
from typing import TypeVar

__all__ = ['DATASETS', 'INITIALIZERS', 'MODELS', 'OPTIMIZERS', 'SCHEDULES',
           'Registry', 'forwards_options', 'parse', 'split_label']


_Maker = TypeVar('_Maker', bound=Callable[..., Any])


def parse(expression: str) -> tuple[str, dict[str, Any]]:
  """Splits `'name(key=literal, ...)'` into a name and keyword arguments.

  Args:
    expression: a bare name, or a call with literal keyword arguments.

  Returns:
    `(name, kwargs)`.

  Raises:
    ValueError: if it is neither.

  Example:
    >>> parse("packing(layout='taps', scale=0.5)")
    ('packing', {'layout': 'taps', 'scale': 0.5})
  """
  try:
    node = ast.parse(expression.strip(), mode='eval').body
    if isinstance(node, ast.Name):
      return node.id, {}
    if (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        and not node.args and all(k.arg for k in node.keywords)):
      options = {str(k.arg): ast.literal_eval(k.value) for k in node.keywords}
      if len(options) == len(node.keywords):
        return node.func.id, options
  except (SyntaxError, TypeError, ValueError):
    pass
  raise ValueError(
      f"{expression!r} is not a name or a call such as 'name(key=1.0)'")


def split_label(entry: str) -> tuple[str, str]:
  """Splits `'label = expression'`, or takes a bare expression as its label.

  Args:
    entry: one of `config.initializers`.

  Returns:
    `(label, expression)`.

  Example:
    >>> split_label('baseline = he_normal')
    ('baseline', 'he_normal')
    >>> split_label('grassmann(freeze = True)')
    ('grassmann(freeze = True)', 'grassmann(freeze = True)')
  """
  try:
    parse(entry)
  except ValueError:
    label, separator, expression = entry.partition(' = ')
    if separator:
      return label.strip(), expression.strip()
  return entry.strip(), entry.strip()


class Registry(dict[str, Callable[..., Any]]):
  """Names of one kind; looking up an unknown one suggests the nearest."""

  def __init__(self, kind: str):
    super().__init__()
    self.kind = kind

  def __missing__(self, name: str) -> Callable[..., Any]:
    near = difflib.get_close_matches(name, self, n=3)
    hint = f'did you mean {" or ".join(map(repr, near))}? ' if near else ''
    raise ValueError(
        f'unknown {self.kind} {name!r}; {hint}known: '
        f'{", ".join(sorted(self))}')

  def build(self, expression: str, *args: Any, **defaults: Any) -> Any:
    """Calls what the expression names, with its own keyword arguments."""
    name, kwargs = parse(expression)
    maker = self[name]
    known = [option for option in _options(maker)[len(args):]
             if option not in defaults]
    for option in kwargs:
      if known and option not in known:
        near = difflib.get_close_matches(option, known, n=1)
        hint = f'did you mean {near[0]!r}? ' if near else ''
        raise ValueError(
            f'{self.kind} {name!r} has no option {option!r}; {hint}known: '
            f'{", ".join(known)}')
    try:
      return maker(*args, **{**defaults, **kwargs})
    except TypeError as error:
      raise ValueError(f'{self.kind} {expression!r}: {error}') from error


_FORWARDS: dict[Callable[..., Any], Callable[..., Any]] = {}


def forwards_options(target: Callable[..., Any]) -> Callable[[_Maker], _Maker]:
  """Marks a maker that passes its `**options` on, so that they are known.

  Args:
    target: the function that takes them in the end.

  Returns:
    A decorator.
  """

  def mark(maker: _Maker) -> _Maker:
    _FORWARDS[maker] = target
    return maker

  return mark


def _options(maker: Callable[..., Any]) -> list[str]:
  """Returns the names of a maker's options, or nothing if they are open."""
  parameters = inspect.signature(maker).parameters.values()
  names = [p.name for p in parameters if p.kind in (
      p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
  if any(p.kind == p.VAR_KEYWORD for p in parameters):
    target = _FORWARDS.get(maker)
    return names + _options(target) if target else []
  return names


DATASETS = Registry('data set')
INITIALIZERS = Registry('initializer')
MODELS = Registry('model')
OPTIMIZERS = Registry('optimizer')
SCHEDULES = Registry('schedule')
