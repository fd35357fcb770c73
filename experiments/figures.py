"""The pictures of the report, as PNG, and one of what a packing is.

    python -m experiments.figures --out DIR

draws the latter, figure 4 of Grassmannian Packings in Neural Networks; the
others are drawn by `experiments.report` from a run.
"""

import argparse
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import io
import math
import pathlib
import textwrap
from typing import Any

import jax
import numpy as np

from experiments import results
from experiments import summary
import structinit_jax as si

__all__ = [
    'dimension_plot', 'distance_matrices', 'excess_plot', 'filter_pictures',
    'kernel_distributions', 'kernel_pictures', 'learning_curves', 'main',
    'packing_pictures', 'strip_plot',
]

Groups = dict[str, list[Mapping[str, Any]]]

# Okabe and Ito: told apart with any colour vision.
_BLUE, _ORANGE = '#0072B2', '#E69F00'
_COLORS = (_BLUE, _ORANGE, '#009E73', '#CC79A7', '#D55E00')
_OTHERS = '0.75'


@contextlib.contextmanager
def _figure(width: float, height: float) -> Iterator[tuple[Any, list[bytes]]]:
  """Yields a figure and the list that will hold it as a PNG."""
  from matplotlib import figure
  from matplotlib.backends import backend_agg
  canvas = figure.Figure(figsize=(width, height), layout='constrained')
  backend_agg.FigureCanvasAgg(canvas)
  image: list[bytes] = []
  yield canvas, image
  buffer = io.BytesIO()
  canvas.savefig(buffer, format='png', dpi=110)
  image.append(buffer.getvalue())


def _plain(label: str) -> str:
  """Keeps matplotlib from reading a label as mathematics."""
  return label.replace('$', r'\$')


def _wrapped(label: str, width: int = 24) -> str:
  lines = textwrap.wrap(label, width, break_on_hyphens=False)
  return _plain('\n'.join(lines))


def _label_powers(axis: Any, ratio: float) -> None:
  """Labels a logarithmic axis, sparsely if it spans a large ratio."""
  from matplotlib import ticker
  axis.set_major_locator(
      ticker.LogLocator(subs=(1, 2, 5) if ratio < 20 else (1,)))
  axis.set_major_formatter('{x:g}')
  axis.set_minor_formatter(ticker.NullFormatter())


def _grid(count: int, most: int) -> tuple[int, int]:
  """Returns rows and columns for panels, at most `most` in a row."""
  rows = math.ceil(count / most)
  return rows, math.ceil(count / rows)


def _curve(
    group: Sequence[Mapping[str, Any]], name: str, convert: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Returns the epochs, the mean over seeds and its half width."""
  curves = [r['curves'][name] for r in group if r['status'] == 'ok']
  points = [(epoch, *summary.interval([convert(v) for v in values]))
            for epoch, values in enumerate(zip(*curves, strict=True))
            if None not in values]
  epochs, mean, half = np.array(points).reshape(-1, 3).T
  return epochs, mean, np.nan_to_num(half)


def learning_curves(groups: Groups, baseline: str = '') -> bytes:
  """Draws the mean over seeds with its confidence band, a panel an initializer.

  Args:
    groups: records by initializer.
    baseline: the initializer that is drawn in every panel.

  Returns:
    A PNG: test error, test loss and training loss; epoch 0 is before training.
    Behind every initializer are all others.
  """
  quantities = (
      ('test_accuracy', 'test error (%)', lambda v: 100 * (1 - v)),
      ('test_loss', 'test loss (nats)', float),
      ('train_loss', 'training loss (nats)', float))
  rows, columns = _grid(len(groups), 6)
  size = max(2.2 * columns + 0.6, 7), len(quantities) * (1.7 * rows + 0.4) + 0.5
  with _figure(*size) as (figure, image):
    parts = figure.subfigures(len(quantities), 1)
    for part, (name, title, convert) in zip(parts, quantities, strict=True):
      curves = {label: _curve(group, name, convert)
                for label, group in groups.items()}
      means = np.concatenate([mean for _, mean, _ in curves.values()])
      means = means[means > 0]
      axes = part.subplots(
          rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
      for axis in axes[len(groups):]:
        axis.remove()
      for i, (axis, label) in enumerate(zip(axes, curves, strict=False)):
        for other in curves:
          axis.plot(*curves[other][:2], color=_OTHERS, linewidth=0.8,
                    label='all others')
        if baseline in curves:
          axis.plot(*curves[baseline][:2], 'k--', linewidth=1,
                    label=f'{_plain(baseline)} (baseline)')
        x, mean, half = curves[label]
        axis.plot(x, mean, marker='.', markersize=4, color=_BLUE,
                  label='named above, 95 % band')
        # On a logarithmic axis a band cannot reach zero.
        axis.fill_between(x, np.maximum(mean - half, mean / 10), mean + half,
                          alpha=0.25, color=_BLUE, linewidth=0)
        if not len(x):
          axis.text(0.5, 0.5, 'diverged', transform=axis.transAxes,
                    ha='center', va='center')
        axis.set_title(_wrapped(label), fontsize=9)
        if len(means):  # a wide band does not flatten the curves
          axis.set_yscale('log')
          axis.set_ylim(0.8 * means.min(), 1.25 * means.max())
          _label_powers(axis.yaxis, means.max() / means.min())
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.tick_params(labelsize=8, labelbottom=i + columns >= len(groups))
        axis.grid(alpha=0.3)
      part.supylabel(title, fontsize=10)
      part.supxlabel('epoch', fontsize=10)
    handles, labels = axes[0].get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    figure.legend(unique.values(), unique.keys(), loc='outside lower center',
                  ncols=3)
  return image[0]


def _limits(values: np.ndarray) -> tuple[float, float]:
  """Returns an axis range that a few far-off values do not stretch."""
  low, high = np.percentile(values, (25, 75))
  reach = 3 * max(high - low, 0.5)
  inside = values[(values >= low - reach) & (values <= high + reach)]
  margin = 0.05 * max(inside.max() - inside.min(), 1.0)
  return float(inside.min() - margin), float(inside.max() + margin)


def strip_plot(groups: Groups) -> bytes:
  """Draws every seed as a dot, the mean as a bar.

  Args:
    groups: records by initializer.

  Returns:
    A PNG: accuracy after the first and the last epoch. Values that would
    stretch the axis are written out instead.
  """
  panels = (('first_epoch_accuracy', 'test accuracy after epoch 1 (%)'),
            ('final_accuracy', 'test accuracy after the last epoch (%)'))
  with _figure(13, 1.2 + 0.42 * len(groups)) as (figure, image):
    axes = figure.subplots(1, len(panels), sharey=True)
    for axis, (name, title) in zip(axes, panels, strict=True):
      per_group = [np.array([100 * r[name] for r in group
                             if r['status'] == 'ok'])
                   for group in groups.values()]
      everything = np.concatenate(per_group)
      if len(everything):
        low, high = _limits(everything)
        axis.set_xlim(low, high)
        for i, values in enumerate(per_group):
          outside = values[(values < low) | (values > high)]
          if len(outside):
            left = outside.mean() < low
            axis.text(  # below the dots
                low if left else high, i + 0.36,
                f' {len(outside)} of {len(values)} off the scale, mean '
                f'{outside.mean():.1f} ',
                ha='left' if left else 'right', va='center', fontsize=7)
          jitter = (np.arange(len(values)) % 5 - 2) * 0.05
          axis.plot(values, i + jitter, 'o', markersize=4, alpha=0.6,
                    color=_BLUE, markeredgewidth=0)
          if len(values):
            axis.plot([values.mean()] * 2, [i - 0.22, i + 0.22], 'k-',
                      linewidth=2)
      axis.set_xlabel(title)
      axis.set_yticks(range(len(groups)), list(map(_plain, groups)))
      axis.grid(alpha=0.3, axis='x')
    axes[0].invert_yaxis()
  return image[0]


def excess_plot(rows: Sequence[Mapping[str, Any]]) -> bytes:
  """Draws accuracy against the excess of the objective, a dot a row.

  Args:
    rows: as of `lowrank_figures.rows`.

  Returns:
    A PNG: accuracy after the first and the last epoch, with 95 % intervals. An
    excess of 0 is drawn at the left end of the logarithmic axis. Initializers
    that are called alike up to a comma have one colour.
  """
  families = [_plain(row['initializer']).partition(',')[0] for row in rows]
  colors = dict(zip(dict.fromkeys(families), (*_COLORS, '0.35') * len(rows),
                    strict=False))
  floor = min((row['excess %'] for row in rows if row['excess %'] > 1e-3),
              default=1.) / 2
  with _figure(12, 4.5) as (figure, image):
    axes = figure.subplots(1, 2)
    for axis, name in zip(axes, ('first epoch', 'final'), strict=True):
      for i, (row, family) in enumerate(zip(rows, families, strict=True)):
        axis.errorbar(
            max(row['excess %'], floor), row[f'{name} %'], row[f'{name} ± %'],
            fmt='os^Dv'[families[:i].count(family) % 5], color=colors[family],
            markersize=7, elinewidth=1, label=_plain(row['initializer']))
      axis.set_xscale('log')
      axis.set_xlabel('excess of the objective (%)')
      axis.set_ylabel(f'test accuracy, {name} (%)')
      axis.grid(alpha=0.3)
    figure.legend(*axes[0].get_legend_handles_labels(), loc='outside right',
                  fontsize=8)
  return image[0]


def dimension_plot(found: Mapping[str, Any]) -> bytes:
  """Draws accuracy against the dimension of the subspace.

  Args:
    found: as of `intrinsic_dimension.find`.

  Returns:
    A PNG.
  """
  from matplotlib import ticker

  rows = found['tried']
  dims = [row['d'] for row in rows]
  error = np.nan_to_num([row['± %'] for row in rows])
  with _figure(6.4, 4.2) as (figure, image):
    axis = figure.subplots()
    axis.errorbar(dims, [row['accuracy %'] for row in rows], yerr=error,
                  fmt='o-', color=_BLUE, capsize=3, label='in the subspace')
    axis.axhline(found['baseline'], color='0.4', label='all parameters')
    axis.axhline(found['threshold'], color=_ORANGE, linestyle='--',
                 label=f'{found["share"]:.0%} of that')
    low, high = found['interval']
    if low is not None and high is not None:
      axis.axvspan(low, high, color=_OTHERS, alpha=0.5,
                   label='where seeds reach it, 95 %')
    if found['dimension'] is not None:
      axis.axvline(found['dimension'], color='0.6', linestyle=':',
                   label=f'd = {found["dimension"]}')
    axis.set_xscale('log')
    plain = ticker.LogFormatter(minor_thresholds=(2, 0.5))
    axis.xaxis.set_major_formatter(plain)
    axis.xaxis.set_minor_formatter(plain)
    axis.set_xlabel('dimensions of the subspace')
    axis.set_ylabel('test accuracy, %')
    axis.legend(loc='lower right')
  return image[0]


def _pooled(
    seeds: Sequence[tuple[summary.Kernel, summary.Kernel]], name: str
) -> list[np.ndarray]:
  """Returns the finite values over all filters and seeds, before and after."""
  pooled = [np.concatenate([getattr(kernel, name) for kernel in kernels])
            for kernels in zip(*seeds, strict=True)]
  return [values[np.isfinite(values)] for values in pooled]


def kernel_distributions(
    kernels: summary.Kernels, baseline: str = '') -> bytes | None:
  """Draws how mean, variance and norm of the first-layer filters spread.

  Args:
    kernels: measured kernels by initializer.
    baseline: the initializer whose medians are drawn as lines.

  Returns:
    A PNG, figure 2 of the paper for every initializer: histograms over the
    filters of all seeds, before training upwards and after it downwards, each
    as high as its fullest bin; None if no kernels were kept.
  """
  if not kernels:
    return None
  panels = (('mean', 'mean weight of a filter'),
            ('variance', "variance of a filter's weights"),
            ('norm', 'norm of a filter'))
  with _figure(13, 1.3 + 0.62 * len(kernels)) as (figure, image):
    axes = figure.subplots(1, len(panels), sharey=True)
    for axis, (name, title) in zip(axes, panels, strict=True):
      pairs = [_pooled(seeds, name) for seeds in kernels.values()]
      everything = np.concatenate([v for pair in pairs for v in pair])
      largest = everything.max(initial=0.0)
      least = max(everything.min(initial=largest, where=everything > 0),
                  1e-9 * largest)  # less is drawn at the left end
      edges = np.histogram_bin_edges(everything, 50)
      if name != 'mean' and largest > 10 * least:
        axis.set_xscale('log')
        _label_powers(axis.xaxis, largest / least)
        edges = np.geomspace(least, largest, 51)
      for i, pair in enumerate(pairs):
        for values, color, sign, when in (
            (pair[0], _ORANGE, -1, 'before training'),
            (pair[1], _BLUE, 1, 'after training')):
          counts = np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0]
          heights = 0.42 * sign * counts / max(counts.max(), 1)
          axis.stairs(i + heights, edges, baseline=i, fill=True, color=color,
                      label=when if i == 0 else None)
      for values in _pooled(kernels.get(baseline, []), name)[:1]:
        if len(values):
          axis.axvline(float(np.median(values)), color='k', linewidth=0.8,
                       linestyle='--',
                       label=f'median of {_plain(baseline)} before training')
      axis.set_xlabel(title)
      axis.set_yticks(range(len(kernels)), list(map(_plain, kernels)))
      axis.set_ylim(len(kernels) - 0.5, -0.5)
      axis.grid(alpha=0.3)
    figure.legend(*axes[0].get_legend_handles_labels(),
                  loc='outside lower center', ncols=3)
  return image[0]


def distance_matrices(kernels: summary.Kernels) -> bytes | None:
  """Draws the distances between the subspaces of a first layer's taps.

  Args:
    kernels: measured kernels by initializer.

  Returns:
    A PNG: for the first seed of every initializer the matrix of chordal
    distances before and after training; the proven bound on the smallest is
    marked on the colour bar. None if no convolution's kernels were kept, or
    they have a single tap.
  """
  pairs = {label: [kernel.packing for kernel in seeds[0] if kernel.packing]
           for label, seeds in kernels.items()}
  packings = [packing for pair in pairs.values() for packing in pair]
  if not packings or len(packings[0].distances) < 2:
    return None
  from matplotlib import cm
  from matplotlib import colors as mpl_colors
  off = ~np.eye(len(packings[0].distances), dtype=bool)
  values = np.concatenate([packing.distances[off] for packing in packings])
  values = values[np.isfinite(values)]
  bound = float(packings[0].bound)
  high = max(bound, values.max(initial=0.0)) or 1.0
  # Subspaces that coincide would take the colours from all others.
  low = min(np.percentile(values, 10), 0.98 * high) if len(values) else 0.0
  colors = cm.ScalarMappable(mpl_colors.Normalize(low, high), 'viridis')
  rows, columns = _grid(len(pairs), 6)
  with _figure(1.75 * columns + 2, 4.1 * rows + 0.3) as (figure, image):
    figure.set_layout_engine('compressed')
    parts = figure.subplots(2 * rows, columns, squeeze=False)
    for axis in parts.ravel():
      axis.set_axis_off()
    for i, (label, pair) in enumerate(pairs.items()):
      for when, packing in enumerate(pair):
        axis = parts[i // columns * 2 + when, i % columns]
        axis.set_axis_on()
        axis.imshow(np.where(off, packing.distances, np.nan),
                    cmap=colors.cmap, norm=colors.norm)
        axis.set_xticks([])
        axis.set_yticks([])
        smallest = float(packing.min_distance)
        axis.set_xlabel(
            'diverged' if math.isnan(smallest) else f'smallest {smallest:.3f}',
            fontsize=8)
        if not when:
          axis.set_title(_wrapped(label, 18), fontsize=9)
        if i % columns == 0:
          axis.set_ylabel(('before training', 'after training')[when],
                          fontsize=9)
    bar = figure.colorbar(colors, ax=parts, extend='min', fraction=0.03)
    bar.set_label('chordal distance between two taps\n'
                  f'(red: bound on the smallest, {bound:.3f})')
    bar.ax.axhline(bound, color='#D55E00', linewidth=3, clip_on=False)
  return image[0]


def _disc(frame: np.ndarray, rings: int = 6, corners: int = 48) -> np.ndarray:
  """Returns the unit disc of a plane `(3, 2)` as small quadrangles."""
  angle, radius = np.meshgrid(
      np.linspace(0, 2 * np.pi, corners + 1), np.linspace(0, 1, rings + 1))
  points = np.stack(
      [radius * np.cos(angle), radius * np.sin(angle)], -1) @ frame.T
  return np.stack([points[:-1, :-1], points[:-1, 1:],
                   points[1:, 1:], points[1:, :-1]], 2).reshape(-1, 4, 3)


def packing_pictures() -> bytes:
  """Draws the best packing of 5 lines and that of 2 planes of space.

  Returns:
    A PNG, figure 4 of the paper.
  """
  from matplotlib import colors
  from mpl_toolkits.mplot3d import art3d
  lines, planes = (
      si.grassmann.pack(jax.random.key(0), dim=3, rank=rank, num=num)
      for rank, num in ((1, 5), (2, 2)))
  with _figure(9, 5) as (figure, image):
    axes = figure.subplots(1, 2, subplot_kw={'projection': '3d'})
    u, v = np.meshgrid(np.linspace(0, 2 * np.pi, 25), np.linspace(0, np.pi, 13))
    sphere = np.cos(u) * np.sin(v), np.sin(u) * np.sin(v), np.cos(v)
    for direction, color in zip(
        np.asarray(lines.frames)[..., 0], _COLORS, strict=True):
      axes[0].plot(*np.outer(direction, (-1, 1)), 'o-', color=color,
                   linewidth=3, markersize=6)
    # Small pieces, for they are drawn in the order of their depth.
    discs = [_disc(frame) for frame in np.asarray(planes.frames)]
    axes[1].add_collection3d(art3d.Poly3DCollection(
        np.concatenate(discs), facecolors=[
            colors.to_rgba(color, 0.85)
            for color, disc in zip(_COLORS, discs, strict=False)
            for _ in disc], linewidths=0))
    for axis, packing, name in zip(
        axes, (lines, planes), ('5 lines', '2 planes'), strict=True):
      axis.plot_wireframe(*sphere, color='0.8', linewidth=0.4)
      axis.set_box_aspect((1, 1, 1), zoom=1.4)
      axis.set_axis_off()
      # One angle is not 0, for planes as for lines.
      angle = math.degrees(math.asin(min(float(packing.distance), 1.0)))
      axis.set_title(f'{name} in $R^3$: every two at least {angle:.1f}° apart')
  return image[0]


def _mosaic(kernel: np.ndarray, columns: int) -> np.ndarray:
  """Tiles filters `(height, width, in, out)`; three inputs show as colours."""
  height, width, channels, count = kernel.shape
  if channels != 3:
    kernel = kernel.mean(axis=2, keepdims=True)
  rows = math.ceil(count / columns)
  out = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1,
                 kernel.shape[2]), np.nan)
  for n in range(count):
    y, x = n // columns * (height + 1), n % columns * (width + 1)
    out[y:y + height, x:x + width] = kernel[..., n]
  return out


def _as_images(kernel: np.ndarray, image_shape: Sequence[int]) -> np.ndarray:
  """Views a first layer's kernel as filters `(height, width, in, out)`."""
  if kernel.ndim == 4:
    return kernel
  rows, columns = math.prod(kernel.shape[:-1]), kernel.shape[-1]
  if rows == math.prod(image_shape):
    return kernel.reshape(*image_shape, columns)
  return kernel.reshape(1, rows, 1, columns)


def kernel_pictures(folder: pathlib.Path, groups: Groups) -> bytes | None:
  """Draws the first-layer filters of one seed, before and after training.

  Args:
    folder: the run directory.
    groups: records by initializer.

  Returns:
    A PNG, or None if no kernels were kept.
  """
  pictures: dict[str, list[np.ndarray]] = {}
  for label, group in groups.items():
    record = min(group, key=lambda r: r['seed'])
    pair = results.read_kernels(folder, label, record['seed'])
    if pair is not None:
      pictures[label] = [
          _mosaic(_as_images(kernel, record['image_shape'])[..., :64], 16)
          for kernel in pair]
  if not pictures:
    return None
  tallest = max(tiles.shape[0] / tiles.shape[1]
                for pair in pictures.values() for tiles in pair)
  height = 5.3 * min(tallest, 1.0) + 0.3
  with _figure(13, height * len(pictures) + 0.4) as (figure, image):
    axes = figure.subplots(len(pictures), 2, squeeze=False)
    for row, (label, pair) in zip(axes, pictures.items(), strict=True):
      row[0].set_ylabel(_plain(label).replace(', ', ',\n'), rotation=0,
                        ha='right', va='center')
      for axis, tiles in zip(row, pair, strict=True):
        bound = _show(axis, tiles)
        axis.set_title(f'largest |weight| {bound:.2g}', fontsize=8, pad=2)
    axes[-1, 0].set_xlabel('before training')
    axes[-1, 1].set_xlabel('after training')
  return image[0]


def filter_pictures(kernels: Mapping[str, np.ndarray]) -> bytes:
  """Draws filters, each as strong as it can be, a row a kernel.

  Args:
    kernels: arrays `(height, width, in, out)` by label, all of one shape.

  Returns:
    A PNG.
  """
  tiles = {}
  for label, kernel in kernels.items():
    largest = np.abs(kernel).max((0, 1, 2))
    tiles[label] = _mosaic(
        kernel / np.where(largest > 0, largest, 1), min(16, kernel.shape[-1]))
  height, width = next(iter(tiles.values())).shape[:2]
  with _figure(10, (8 * height / width + 0.2) * len(tiles)) as (figure, image):
    axes = figure.subplots(len(tiles), squeeze=False)[:, 0]
    for axis, (label, picture) in zip(axes, tiles.items(), strict=True):
      axis.set_ylabel(_plain(label), rotation=0, ha='right', va='center')
      _show(axis, picture)
  return image[0]


def _show(axis: Any, tiles: np.ndarray) -> float:
  """Draws a mosaic, and returns the weight of its strongest colour."""
  bound = float(np.max(np.abs(tiles), initial=0, where=np.isfinite(tiles)))
  bound = bound if bound > 0 else 1.0
  axis.set_xticks([])
  axis.set_yticks([])
  axis.set_facecolor('0.6')
  if tiles.shape[2] == 3:
    axis.imshow(np.nan_to_num(0.5 + tiles / (2 * bound), nan=1.0))
  else:
    axis.imshow(tiles[..., 0], cmap='RdBu_r', vmin=-bound, vmax=bound)
  return bound


def main() -> None:
  """Draws figure 4 of Grassmannian Packings in Neural Networks."""
  parser = argparse.ArgumentParser(description=main.__doc__)
  parser.add_argument('--out', type=pathlib.Path, required=True,
                      help='the folder that packings.png goes to')
  out = parser.parse_args().out
  try:
    out.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise SystemExit(f'error: --out {out} is no folder: {error}') from error
  (out / 'packings.png').write_bytes(packing_pictures())
  print(f'figure: {out / "packings.png"}')


if __name__ == '__main__':
  main()
