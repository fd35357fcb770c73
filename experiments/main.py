"""Compares initializers: one command, a table and a report.

    python -m experiments.main --config=experiments/configs/demo.py \
        --workdir=runs/demo

This file is kept short on purpose: everything it calls can be imported from a
notebook.
"""

from collections.abc import Sequence
import pathlib

from absl import app
from absl import flags
from absl import logging
from ml_collections import config_flags

from experiments import report
from experiments import sweep

_CONFIG = config_flags.DEFINE_config_file(
    'config', None, 'File with a get_config() function.', lock_config=True)
_WORKDIR = flags.DEFINE_string(
    'workdir', None, 'Where results go; a rerun resumes.')


def main(argv: Sequence[str]) -> None:
  """Trains what is missing and shows the result."""
  if len(argv) > 1:
    raise app.UsageError(f'unexpected arguments: {" ".join(argv[1:])}')
  workdir = pathlib.Path(_WORKDIR.value or '.')  # the flag is required
  if not flags.FLAGS['verbosity'].present:
    logging.set_verbosity(logging.WARNING)
  try:
    sweep.compare(_CONFIG.value, workdir)
    report.write([workdir])
  except ValueError as error:
    raise SystemExit(f'error: {error}') from error


if __name__ == '__main__':
  flags.mark_flags_as_required(['config', 'workdir'])
  app.run(main)
