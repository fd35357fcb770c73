"""What the benchmarks share: timing in turns and writing the JSON."""

from collections.abc import Callable
from collections.abc import Mapping
import json
import os
import pathlib
import platform
import time
from typing import Any

import jax

Step = Callable[[], Any]
# Of the environment, what times depend on.
_VARIABLES = 'OPENBLAS_NUM_THREADS', 'XLA_FLAGS'


def seconds(step: Step) -> float:
  """Returns how long a step takes, what it returns included."""
  start = time.perf_counter()
  jax.block_until_ready(step())
  return time.perf_counter() - start


def rounds(steps: Mapping[str, Step], count: int) -> list[dict[str, float]]:
  """Times the steps in turns, `count` times, after a call that compiles."""
  for step in steps.values():
    jax.block_until_ready(step())
  return [{name: seconds(step) for name, step in steps.items()}
          for _ in range(count)]


def _cores() -> int | None:
  """Returns how many cores this process may use, where that can be asked."""
  if hasattr(os, 'sched_getaffinity'):
    return len(os.sched_getaffinity(0))
  return os.cpu_count()


def write(out: pathlib.Path, rows: list[dict[str, Any]], **facts: Any) -> None:
  """Writes the rows and what they were measured with."""
  out.write_text(json.dumps({
      'jax': jax.__version__, 'machine': platform.machine(),
      'device': jax.devices()[0].device_kind, 'cores': _cores(),
      'environment': {
          name: os.environ[name] for name in _VARIABLES if name in os.environ},
      **facts, 'rows': rows}, indent=1) + '\n')
