"""Everything the README says to run, runs; its table is the measured one."""

import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

_ROOT = pathlib.Path(__file__).parent.parent
# One device, as a reader has; compiled as the tests are, see conftest.py.
_ENVIRONMENT = {
    **os.environ, 'XLA_FLAGS': '--xla_backend_optimization_level=1 '
    '--xla_cpu_use_fusion_emitters=false'}
_README = (_ROOT / 'README.md').read_text()


def _blocks(language):
  return re.findall(rf'```{language}\n(.*?)```', _README, flags=re.DOTALL)


def test_python_blocks_run_in_order():
  script = '\n'.join(_blocks('python'))
  result = subprocess.run(
      [sys.executable, '-c', script], cwd=_ROOT, env=_ENVIRONMENT,
      capture_output=True, text=True)
  assert result.returncode == 0, result.stderr
  assert 'layers_0/kernel' in result.stdout


_COMMANDS = [line for block in _blocks('sh') for line in block.splitlines()]


def test_every_make_target_is_run_by_ci():
  ci = (_ROOT / '.ci' / 'run').read_text()
  targets = [line for line in _COMMANDS if line.startswith('make ')]
  assert targets
  assert all(target in ci for target in targets)


def test_commands_run(tmp_path):
  """Runs the README's commands, on less data; only the size is changed."""
  commands = [line for line in _COMMANDS if line.startswith('python ')]
  assert any('experiments.main' in line for line in commands)
  assert any('experiments.report' in line for line in commands)
  shown = {'experiments.figures': 'packings.png',
           'experiments.benchmarks.packing': 'rows 1'}  # others print a table
  for line in commands:
    if 'sao_figures' in line or 'intrinsic_dimension' in line:  # own tests
      continue
    words = shlex.split(line.replace('runs/', f'{tmp_path}/'))
    words[0] = sys.executable
    if 'experiments.main' in line:
      words += ['--config.dataset=digits', '--config.epochs=1',
                '--config.seeds=2']
    if 'experiments.benchmarks' in line:
      words += ['--cases', '3,1,6']
    if 'ablation' in line:
      words += ["--config.initializers=('SAO = sao(degree=4)',)"]
    result = subprocess.run(words, cwd=_ROOT, env=_ENVIRONMENT,
                            capture_output=True, text=True)
    assert result.returncode == 0, (line, result.stderr)
    module = words[words.index('-m') + 1]
    assert shown.get(module, 'first epoch %') in result.stdout


def test_tables_are_the_measured_ones():
  tables = re.findall(
      r'<!-- begin table: (\S+) -->\n(.*?)<!-- end table -->', _README,
      flags=re.DOTALL)
  assert len(tables) == 2
  for name, table in tables:
    assert table == (_ROOT / name).read_text()


@pytest.mark.parametrize(
    'target', re.findall(r'\]\(([\w/.]+)\)', _README))
def test_links_lead_somewhere(target):
  assert (_ROOT / target).exists()
