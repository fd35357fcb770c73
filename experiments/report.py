"""Shows results: a table on the terminal and a self-contained HTML page.

python -m experiments.report RUN_DIR...
"""

import argparse
import base64
from collections.abc import Mapping
from collections.abc import Sequence
import html
import math
import pathlib
from typing import Any

import rich.box
import rich.console
import rich.table
import rich.text

from experiments import figures
from experiments import results
from experiments import summary

__all__ = ['main', 'write']

_DASH = '-'


def _pair(value: tuple[float, float] | None, signed: bool = False) -> str:
  if value is None or math.isnan(value[0]):
    return _DASH
  mean, half = value
  text = f'{mean:+.2f}' if signed else f'{mean:.2f}'
  return text if math.isnan(half) else f'{text} ± {half:.2f}'


def _change(value: tuple[float, float], form: str = '.3f') -> str:
  if all(map(math.isnan, value)):
    return _DASH
  first, last = (_DASH if math.isnan(v) else f'{v:{form}}' for v in value)
  return f'{first} → {last}'


def _cells(
    columns: Sequence[Mapping[str, str]]
) -> tuple[list[str], list[list[str]]]:
  """Returns a table's header and lines; a column of dashes is left out."""
  header = [name for name in columns[0]
            if any(line[name] != _DASH for line in columns)]
  return header, [[line[name] for name in header] for line in columns]


def _name(label: str, config: Mapping[str, Any]) -> str:
  is_baseline = label == config['baseline'] != 'baseline'
  return label + (' (baseline)' if is_baseline else '')


def _kernel_columns(
    row: summary.KernelRow, config: Mapping[str, Any]) -> dict[str, str]:
  """Returns the cells of a row of the second table by column."""
  bound = f' (≤ {row.bound:.3f})' if math.isfinite(row.bound) else ''
  return {
      'initializer': _name(row.label, config),
      'dead %': _change(row.dead, '.1f'),
      'near-0 %': _change(row.near_zero, '.1f'),
      'variance': _change(row.variance, '.3g'),
      'norm': _change(row.norm, '.3g'),
      'smallest distance': _change(row.distance) + bound,
      'tight-frame defect': _change(row.tight_frame, '.2f'),
      'orthonormality defect': _change(row.orthonormality, '.2f'),
  }


def _columns(row: summary.Row, config: Mapping[str, Any]) -> dict[str, str]:
  """Returns the cells of a row by column."""
  runs = str(row.runs)
  if row.diverged:
    runs += f' ({row.diverged} diverged)'
  cells = {
      'initializer': _name(row.label, config),
      'runs': runs,
      'first epoch %': _pair(row.first),
      'paper: first epoch %':
          _DASH if row.paper is None else f'{row.paper:g}',
      'Δ first epoch': _pair(row.first_difference, signed=True),
      'final %': _pair(row.final),
      'Δ final': _pair(row.final_difference, signed=True),
      'dead %': f'{row.dead:.1f}',
      'near-0 %': f'{row.near_zero:.1f}',
      'chordal distance': _change(row.distance),
      'coherence': _change(row.coherence),
      's/seed': f'{row.seconds:.2f}',
  }
  if config['epochs'] == 1:  # then the first epoch is the last
    cells['final %'] = cells['Δ final'] = _DASH
  return cells


def _print_table(title: str, header: list[str], lines: list[Any]) -> None:
  console = rich.console.Console()
  if not console.is_terminal:
    console = rich.console.Console(width=200)
  # Text, so that nothing in a label or title is read as markup.
  table = rich.table.Table(title=rich.text.Text(title),
                           box=rich.box.SIMPLE_HEAVY, title_justify='left')
  for i, name in enumerate(header):
    table.add_column(name, justify='left' if i == 0 else 'right')
  for line in lines:
    table.add_row(*map(rich.text.Text, line))
  console.print(table)


def _markdown(header: list[str], lines: list[Any]) -> str:
  rows = [header, ['---', *['---:'] * (len(header) - 1)], *lines]
  escaped = ([cell.replace('|', r'\|') for cell in row] for row in rows)
  return ''.join(f'| {" | ".join(row)} |\n' for row in escaped)


_CSS = """
body {font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 90em;
      padding: 0 1em; color: #222}
table {border-collapse: collapse; margin: 1em 0}
th, td {padding: .3em .7em; text-align: right; border-bottom: 1px solid #ddd;
        white-space: nowrap}
th {border-bottom: 2px solid #444; white-space: normal}
th:first-child, td:first-child {text-align: left}
img {max-width: 100%} figure {margin: 1.5em 0} figcaption {color: #555}
.scroll {overflow-x: auto} code {background: #f4f4f4}
"""

_LEGEND = """
Accuracies are on the test set, in percent: mean over seeds ± half width of
its 95&nbsp;% confidence interval (Student's t). <b>Δ</b>: minus the baseline,
paired: a seed has the same batches under every initializer. <b>Dead</b>: ReLU
units silent on the whole test set after training. <b>Near-0</b>: first-layer
filters whose
norm is below 1&nbsp;% of the root mean square after training. <b>Chordal
distance</b>: mean over pairs of first-layer filters, seen as lines, of the
sine of their angle, before → after training (1: mutually orthogonal).
<b>Coherence</b>: the largest |cosine| of two filters. <b>s/seed</b>: training
time without compilation; seeds are trained together. Diverged runs (a loss
that is not finite) are counted and left out of accuracies.
"""

_KERNEL_LEGEND = """
Sparsity and diversity, each before → after training, mean over seeds.
<b>Variance</b> and <b>norm</b>: of the weights of a first-layer filter, mean
over filters. The taps of a convolution are subspaces; <b>smallest
distance</b>: chordal, between two of them, with the proven bound.
<b>Tight-frame defect</b>: 0 if they cover all directions equally or, where
they cannot, are mutually orthogonal. <b>Orthonormality defect</b>: 0 if every
tap's weights are orthogonal vectors of one length.
"""


def _table_html(header: list[str], lines: list[Any]) -> str:
  def row(cells: list[str], tag: str) -> str:
    return ''.join(f'<{tag}>{html.escape(c)}</{tag}>' for c in cells)
  body = ''.join(f'<tr>{row(line, "td")}</tr>' for line in lines)
  return (f'<div class="scroll"><table><tr>{row(header, "th")}</tr>{body}'
          '</table></div>')


def _section(
    folder: pathlib.Path, records: Sequence[Mapping[str, Any]],
    config: Mapping[str, Any], header: list[str], lines: list[Any]) -> str:
  groups = summary.by_initializer(records, config)
  kernels = summary.measure_kernels(folder, groups)
  kernel_table = _cells([_kernel_columns(row, config) for row in
                         summary.summarise_kernels(groups, kernels)])
  (folder / 'kernels.md').write_text(
      _markdown(*kernel_table), encoding='utf-8')
  baseline = config['baseline']
  last = records[-1]
  facts = ', '.join(f'{name} {config[name]}' for name in (
      'dataset', 'model', 'optimizer', 'learning_rate', 'schedule',
      'weight_decay', 'frobenius_decay', 'batch_size', 'epochs', 'dtype')
                    if name in config)  # runs of before have fewer fields
  versions = ', '.join(f'{k} {v}' for k, v in last['versions'].items())
  drawn = (
      ('learning_curves', figures.learning_curves(groups, baseline),
       'Learning curves: mean over seeds with its 95 % band, a panel an '
       'initializer; grey are all others. Epoch 0 is the network as '
       'initialised.'),
      ('seeds', figures.strip_plot(groups),
       'Every seed (dots) and the mean (bar).'),
      ('kernel_distributions',
       figures.kernel_distributions(kernels, baseline),
       'How first-layer filters spread: a histogram that lies to the right '
       'of the baseline\'s dashed line has larger filters, one that reaches '
       'far to the left has nearly dead ones. Upwards before, downwards after '
       'training; filters of all seeds, each histogram as high as its fullest '
       'bin.'),
      ('kernels', figures.kernel_pictures(folder, groups),
       'First-layer filters of the first seed before and after training, one '
       'tile a filter (at most 64), grey between. Red positive, blue negative; '
       'three input channels show as red, green and blue, zero as grey, with '
       'white between. Each picture has a scale of its own, given above it.'),
      ('distances', figures.distance_matrices(kernels),
       'Chordal distances between the subspaces of every two taps of the '
       'first layer, first seed: the more evenly a matrix has the colour of '
       'the marked bound, the better a packing it is; dark entries are the '
       'taps that look in the most similar directions.'))
  pictures = ''
  for name, png, caption in drawn:
    if png is not None:
      target = folder / 'figures' / f'{name}.png'
      target.parent.mkdir(exist_ok=True)
      target.write_bytes(png)
      source = 'data:image/png;base64,' + base64.b64encode(png).decode()
      caption = html.escape(caption)
      pictures += (f'<figure><img src="{source}" alt="{caption}">'
                   f'<figcaption>{caption}</figcaption></figure>')
  return (
      f'<h1>{html.escape(config["title"])}</h1>'
      f'<p>{html.escape(facts)}. Data: {html.escape(last["data_source"])}.</p>'
      f'{_table_html(header, lines)}<p>{_LEGEND}</p>'
      f'{_table_html(*kernel_table)}<p>{_KERNEL_LEGEND}</p>{pictures}'
      f'<p>{html.escape(versions)}; PRNG {html.escape(last["prng_impl"])}; '
      f'devices {html.escape(", ".join(last["devices"]))}.</p>')


def write(
    folders: Sequence[pathlib.Path], out: pathlib.Path | None = None
) -> pathlib.Path:
  """Prints the table of every run directory and writes the report.

  Args:
    folders: run directories.
    out: where the page goes; by default `report.html` in the run directory,
      or in the current directory if there are several.

  Returns:
    Where the page went. `table.md` and `figures/` go into every run directory.

  Raises:
    ValueError: if a folder holds no finished runs.
  """
  sections = []
  for folder in folders:
    records = results.read_records(folder)
    config = results.read_config(folder) if records else {}
    records = results.of_config(records, config) if records else []
    if not records:
      raise ValueError(f'{folder} holds no finished runs yet')
    header, lines = _cells([
        _columns(row, config) for row in summary.summarise(records, config)])
    _print_table(f'{config["title"]} ({folder})', header, lines)
    (folder / 'table.md').write_text(
        _markdown(header, lines), encoding='utf-8')
    sections.append(_section(folder, records, config, header, lines))
  if out is None:
    out = (folders[0] if len(folders) == 1 else pathlib.Path()) / 'report.html'
  out.write_text(
      '<!doctype html><html lang="en"><meta charset="utf-8">'
      '<meta name="viewport" content="width=device-width">'
      f'<title>structinit_jax: initializers compared</title>'
      f'<style>{_CSS}</style>{"<hr>".join(sections)}</html>\n',
      encoding='utf-8')
  print(f'report: {out}')
  return out


def main() -> None:
  """Rebuilds the report of run directories."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('run_dirs', nargs='+', type=pathlib.Path)
  parser.add_argument('--out', type=pathlib.Path, help='where the page goes')
  arguments = parser.parse_args()
  try:
    write(arguments.run_dirs, arguments.out)
  except ValueError as error:
    raise SystemExit(f'error: {error}') from error


if __name__ == '__main__':
  main()
