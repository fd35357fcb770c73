"""A progress bar that is silent when nobody is looking."""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib

from rich import console
from rich import progress

__all__ = ['bar']


@contextlib.contextmanager
def bar(title: str, total: int) -> Iterator[Callable[[int], None]]:
  """Shows progress on standard error while the context lasts.

  Args:
    title: what is going on.
    total: how many steps there are.

  Yields:
    A function to call with the number of steps just done.
  """
  terminal = console.Console(stderr=True)
  columns = (
      progress.TextColumn('{task.description}'), progress.BarColumn(),
      progress.MofNCompleteColumn(), progress.TextColumn('epochs of runs'),
      progress.TimeElapsedColumn(), progress.TimeRemainingColumn())
  with progress.Progress(
      *columns, console=terminal, disable=not terminal.is_terminal) as shown:
    task = shown.add_task(title, total=total)
    yield lambda steps: shown.advance(task, steps)
