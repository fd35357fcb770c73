"""The pictures of the report, as PNG."""

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import io
import math
import pathlib
from typing import Any

import numpy as np

from experiments import results
from experiments import summary

__all__ = ['kernel_pictures', 'learning_curves', 'strip_plot']

Groups = dict[str, list[Mapping[str, Any]]]


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


def _style(i: int) -> dict[str, Any]:
  import matplotlib
  return {'color': matplotlib.colormaps['tab10'](i % 10),
          'linestyle': ('-', '--', ':')[i // 10 % 3]}


def learning_curves(groups: Groups) -> bytes:
  """Draws the mean over seeds with its confidence band.

  Args:
    groups: records by initializer.

  Returns:
    A PNG: test error, test loss and training loss; epoch 0 is before training.
  """
  panels = (('test_accuracy', 'test error (%)', lambda v: 100 * (1 - v)),
            ('test_loss', 'test loss (nats)', float),
            ('train_loss', 'training loss (nats)', float))
  with _figure(15, 5) as (figure, image):
    axes = figure.subplots(1, len(panels))
    for axis, (name, title, convert) in zip(axes, panels, strict=True):
      for i, (label, group) in enumerate(groups.items()):
        curves = [r['curves'][name] for r in group if r['status'] == 'ok']
        points = [(epoch, summary.interval([convert(v) for v in values]))
                  for epoch, values in enumerate(zip(*curves, strict=True))
                  if None not in values]
        if not points:
          continue
        x = [epoch for epoch, _ in points]
        mean = np.array([m for _, (m, _) in points])
        half = np.nan_to_num([h for _, (_, h) in points])
        axis.plot(x, mean, marker='.', label=_plain(label), **_style(i))
        # On a logarithmic axis a band cannot reach zero.
        axis.fill_between(x, np.maximum(mean - half, mean / 10), mean + half,
                          alpha=0.15, color=_style(i)['color'], linewidth=0)
      axis.set_xlabel('epoch')
      axis.set_ylabel(title)
      axis.set_yscale('log')
      axis.xaxis.get_major_locator().set_params(integer=True)
      axis.grid(alpha=0.3, which='both')
    handles, labels = axes[0].get_legend_handles_labels()
    if handles:
      figure.legend(handles, labels, loc='outside lower center', ncols=4)
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
            axis.text(
                low if left else high, i, f' {len(outside)} of {len(values)} '
                f'off the scale, mean {outside.mean():.1f} ',
                ha='left' if left else 'right', va='center', fontsize=8)
          jitter = (np.arange(len(values)) % 5 - 2) * 0.07
          axis.plot(values, i + jitter, 'o', markersize=4, alpha=0.6,
                    color=_style(i)['color'], markeredgewidth=0)
          if len(values):
            axis.plot([values.mean()] * 2, [i - 0.3, i + 0.3], 'k-',
                      linewidth=2)
      axis.set_xlabel(title)
      axis.set_yticks(range(len(groups)), list(map(_plain, groups)))
      axis.grid(alpha=0.3, axis='x')
    axes[0].invert_yaxis()
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
    path = folder / results.kernel_file(label, record['seed'])
    if path.is_file():
      with np.load(path, allow_pickle=False) as file:
        pictures[label] = [
            _mosaic(_as_images(file[when], record['image_shape'])[..., :64], 16)
            for when in ('before', 'after')]
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
        bound = np.max(np.abs(tiles), initial=0, where=np.isfinite(tiles))
        bound = bound if bound > 0 else 1.0
        axis.set_xticks([])
        axis.set_yticks([])
        axis.set_title(f'largest |weight| {bound:.2g}', fontsize=8, pad=2)
        axis.set_facecolor('0.6')
        if tiles.shape[2] == 3:
          axis.imshow(np.nan_to_num(0.5 + tiles / (2 * bound), nan=0.6))
        else:
          axis.imshow(tiles[..., 0], cmap='RdBu_r', vmin=-bound, vmax=bound)
    axes[-1, 0].set_xlabel('before training')
    axes[-1, 1].set_xlabel('after training')
  return image[0]
