"""Records as tables, for the scripts that draw a paper's figures."""

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

__all__ = ['markdown']


def _cell(value: Any) -> str:
  if value is None:
    return '-'
  if isinstance(value, bool):
    return 'yes' if value else 'no'
  return f'{value:.4g}' if isinstance(value, float) else str(value)


def markdown(records: Sequence[Mapping[str, Any]]) -> str:
  """Returns a Markdown table, a line a record; all have the first one's keys.

  Args:
    records: at least one.

  Returns:
    The lines.
  """
  rows = [list(records[0]), ['---'] * len(records[0]),
          *([_cell(value) for value in r.values()] for r in records)]
  return ''.join(f'| {" | ".join(row)} |\n' for row in rows)
