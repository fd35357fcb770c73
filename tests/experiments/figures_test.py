"""The figures: what is drawn is what was measured, and nothing overlaps."""

import contextlib
import itertools
import math

from matplotlib import text as mpl_text
import numpy as np
import pytest
import scipy.linalg
import scipy.stats

from experiments import figures
from experiments import results
from experiments import summary
import structinit_jax as si

RNG = np.random.default_rng(0)
LABELS = ('he_normal', 'glorot_normal', 'orthogonal, first layer', 'grassmann',
          'grassmann, Kaiming-scaled', 'a very long label, with options (x=1)',
          'g', 'h', 'normal(1e-3)', 'cost $x^$', 'k', 'l')


def make_groups(count, seeds=3, epochs=4):
  groups = {}
  for i, label in enumerate(LABELS[:count]):
    groups[label] = []
    for seed in range(seeds):
      accuracy = 1 - 0.9 * np.exp(
          -0.3 * np.arange(epochs + 1) * RNG.uniform(1, 3))
      loss = (2.3 * (1 - accuracy)**count).tolist()
      groups[label].append({
          'seed': seed, 'status': 'ok', 'image_shape': [8, 8, 1],
          'first_epoch_accuracy': accuracy[1] * (0.1 if i == 8 else 1),
          'final_accuracy': accuracy[-1],
          'curves': {'test_accuracy': accuracy.tolist(), 'test_loss': loss,
                     'train_loss': [None, *loss[1:]]}})
  return groups


def make_run(folder, groups, shape=(3, 3, 1, 8)):
  """Keeps random kernels, of another scale for every initializer."""
  runs = results.RunDirectory(folder, {})
  for i, (label, group) in enumerate(groups.items()):
    for record in group:
      before, after = RNG.standard_normal((2, *shape)) * 4.0**-i
      runs.write_kernels(label, record['seed'], before, after)
  runs.close()
  return summary.measure_kernels(folder, groups)


@pytest.fixture
def drawn(monkeypatch):
  """The figures that were drawn, in order."""
  canvases = []
  make = figures._figure

  @contextlib.contextmanager
  def keep(width, height):
    with make(width, height) as (figure, image):
      canvases.append(figure)
      yield figure, image

  monkeypatch.setattr(figures, '_figure', keep)
  return canvases


def is_png(image):
  return image.startswith(b'\x89PNG\r\n')


# ---- Readable.


def texts(figure, monkeypatch):
  """Returns the boxes of all texts that a figure draws."""
  boxes = []
  draw = mpl_text.Text.draw

  def record(self, renderer):
    if self.get_visible() and self.get_text().strip():
      boxes.append((self.get_text(), self.get_window_extent(renderer)))
    draw(self, renderer)

  with monkeypatch.context() as patched:
    patched.setattr(mpl_text.Text, 'draw', record)
    figure.canvas.draw()
  return boxes


@pytest.mark.parametrize('count', [1, 2, 7, 12])
def test_no_label_overlaps_another_or_is_cut(
    count, drawn, monkeypatch, tmp_path):
  groups = make_groups(count)
  kernels = make_run(tmp_path, groups)
  figures.learning_curves(groups, LABELS[0])
  figures.strip_plot(groups)
  figures.kernel_distributions(kernels, LABELS[0])
  figures.kernel_pictures(tmp_path, groups)
  figures.distance_matrices(kernels)
  figures.packing_pictures()
  assert len(drawn) == 6
  for figure in drawn:
    boxes = texts(figure, monkeypatch)
    assert boxes
    for name, box in boxes:
      assert min(box.x0, box.y0) >= 0, name
      assert box.x1 <= figure.bbox.x1, name
      assert box.y1 <= figure.bbox.y1, name
    for (one, a), (other, b) in itertools.combinations(boxes, 2):
      width = min(a.x1, b.x1) - max(a.x0, b.x0)
      height = min(a.y1, b.y1) - max(a.y0, b.y0)
      assert min(width, height) < 2, (one, other)  # pixels


# ---- Learning curves.


def test_every_panel_has_its_mean_and_band_and_all_others(drawn):
  groups = make_groups(3)
  assert is_png(figures.learning_curves(groups, LABELS[1]))
  errors, losses, training = (part.axes for part in drawn[0].subfigs)
  means = {}
  for label, group in groups.items():
    curves = np.array([r['curves']['test_accuracy'] for r in group])
    means[label] = 100 * (1 - curves).mean(0)
  for axis, (label, group) in zip(errors, groups.items(), strict=True):
    *others, baseline, own = [line.get_ydata() for line in axis.lines]
    np.testing.assert_allclose(own, means[label])
    np.testing.assert_allclose(baseline, means[LABELS[1]])
    np.testing.assert_allclose(others, list(means.values()))
    epoch_2 = [100 * (1 - r['curves']['test_accuracy'][2]) for r in group]
    want = scipy.stats.ttest_1samp(epoch_2, 0).confidence_interval(0.95)
    band = axis.collections[0].get_paths()[0].vertices
    at_2 = band[band[:, 0] == 2, 1]
    low = max(want.low, np.mean(epoch_2) / 10)
    np.testing.assert_allclose([at_2.min(), at_2.max()], [low, want.high])
  assert [len(line.get_xdata()) for line in losses[0].lines] == [5] * 5
  assert [line.get_xdata()[0] for line in training[0].lines] == [1] * 5


def test_an_initializer_that_diverged_is_said(drawn):
  groups = make_groups(2)
  for record in groups[LABELS[1]]:
    record['status'] = 'diverged'
  figures.learning_curves(groups, LABELS[0])
  first, second = drawn[0].subfigs[0].axes
  assert [text.get_text() for text in second.texts] == ['diverged']
  assert not first.texts


# ---- Kernels.


def test_distributions_are_where_the_filters_are(drawn, tmp_path):
  """Filters with entries (1, -1) c and (3, 1) c: closed forms."""
  groups = make_groups(2)
  runs = results.RunDirectory(tmp_path, {})
  scales = dict(zip(groups, (1., 0.01), strict=True))
  for label, group in groups.items():
    for record in group:
      before = np.repeat([[[1.]], [[-1.]]], 5, axis=2) * scales[label]
      after = np.repeat([[[3.]], [[1.]]], 5, axis=2) * scales[label]
      runs.write_kernels(label, record['seed'], before, after)
  runs.close()
  kernels = summary.measure_kernels(tmp_path, groups)
  assert is_png(figures.kernel_distributions(kernels, LABELS[0]))
  want = {'mean': (0, 2, 1), 'variance': (1, 1, 2),  # before, after, power
          'norm': (math.sqrt(2), math.sqrt(10), 1)}
  for axis, (name, (before, after, power)) in zip(
      drawn[0].axes, want.items(), strict=True):
    assert name in axis.get_xlabel()
    stairs = [patch.get_data() for patch in axis.patches]
    assert len(stairs) == 4
    for i, scale in enumerate(scales.values()):
      for steps, value, sign in ((stairs[2 * i], before, -1),
                                 (stairs[2 * i + 1], after, 1)):
        bin_, = np.flatnonzero(steps.values != i)
        assert np.sign(steps.values[bin_] - i) == sign
        low, high = steps.edges[bin_:bin_ + 2]
        assert low * (1 - 1e-6) - 1e-6 <= value * scale**power
        assert value * scale**power <= high * (1 + 1e-6) + 1e-6
    median, = axis.lines
    np.testing.assert_allclose(median.get_xdata(), before, atol=1e-6)


def test_kernels_that_vanish_or_diverge_are_drawn(drawn, tmp_path):
  groups = make_groups(3, seeds=1)
  runs = results.RunDirectory(tmp_path, {})
  kernel = RNG.standard_normal((2, 2, 1, 4))
  for label, after in zip(
      groups, (kernel * 0, kernel * np.nan, kernel * [1, 0, 1e-30, 1]),
      strict=True):
    runs.write_kernels(label, 0, kernel, after)
  runs.close()
  kernels = summary.measure_kernels(tmp_path, groups)
  assert is_png(figures.kernel_distributions(kernels))
  assert is_png(figures.distance_matrices(kernels))
  assert is_png(figures.kernel_pictures(tmp_path, groups))
  said = [axis.get_xlabel() for axis in drawn[1].axes if axis.images]
  assert said[3] == 'smallest 0.000'
  assert said[4] == 'diverged'
  nothing = {label: [(pair[1], pair[1]) for pair in seeds]
             for label, seeds in list(kernels.items())[:2]}
  assert is_png(figures.kernel_distributions(nothing, LABELS[0]))
  assert is_png(figures.distance_matrices(nothing))


def test_the_matrices_are_the_distances(drawn, tmp_path):
  groups = make_groups(7, seeds=2)
  kernels = make_run(tmp_path, groups, (2, 2, 2, 5))
  assert is_png(figures.distance_matrices(kernels))
  *_, bar = drawn[0].axes
  panels = {}
  for axis in drawn[0].axes:
    for image in axis.images:
      panels[axis.get_subplotspec().num1] = axis, image
  columns = 4
  assert len(panels) == 14
  for i, label in enumerate(groups):
    pair = results.read_kernels(tmp_path, label, 0)
    for when, kernel in enumerate(pair):
      axis, image = panels[
          (i // columns * 2 + when) * columns + i % columns]
      got = image.get_array().filled(np.nan)
      blocks = kernel.reshape(4, 2, 5)
      pairs = {(a, b): np.linalg.norm(np.sin(scipy.linalg.subspace_angles(
          blocks[a].T, blocks[b].T)))
          for a, b in itertools.permutations(range(4), 2)}
      for index, want in pairs.items():
        np.testing.assert_allclose(got[index], want, atol=1e-5)
      assert np.isnan(np.diag(got)).all()
      assert axis.get_xlabel() == f'smallest {min(pairs.values()):.3f}'
  bound = si.grassmann.upper_bound(5, 2, 4)
  assert any(np.allclose(line.get_ydata(), bound) for line in bar.lines)


@pytest.mark.parametrize('shape, matrices', [
    ((64, 8), False), ((1, 1, 3, 8), False), ((5, 1, 8), True)])
def test_matrices_need_taps(shape, matrices, tmp_path):
  groups = make_groups(2)
  kernels = make_run(tmp_path, groups, shape)
  assert is_png(figures.kernel_distributions(kernels))
  image = figures.distance_matrices(kernels)
  assert is_png(image) if matrices else image is None


def test_without_kernels_there_are_no_pictures(tmp_path):
  groups = make_groups(2)
  kernels = summary.measure_kernels(tmp_path, groups)
  assert kernels == {}
  assert figures.kernel_distributions(kernels) is None
  assert figures.distance_matrices(kernels) is None
  assert figures.kernel_pictures(tmp_path, groups) is None


def test_three_channels_are_colours(drawn, tmp_path):
  """White between the filters; zero is grey, the largest weight 1 or 0."""
  groups = make_groups(1, seeds=1)
  runs = results.RunDirectory(tmp_path, {})
  kernel = np.zeros((2, 2, 3, 2))
  kernel[0, 0, 0, 0], kernel[1, 1, 2, 1] = 0.5, -0.5
  runs.write_kernels(LABELS[0], 0, kernel, kernel)
  runs.close()
  figures.kernel_pictures(tmp_path, groups)
  image = np.asarray(drawn[0].axes[0].images[0].get_array())
  np.testing.assert_array_equal(image[0, 0], [1, 0.5, 0.5])
  np.testing.assert_array_equal(image[1, 4], [0.5, 0.5, 0])
  np.testing.assert_array_equal(image[:, 2], np.ones((2, 3)))


# ---- Figure 4.


def test_filters_are_drawn_as_strong_as_they_can_be(drawn):
  kernel = np.zeros((3, 4, 3, 2))
  kernel[1, 2, 0, 0] = -1e-3
  assert is_png(figures.filter_pictures({'one': kernel, 'two': kernel + 1}))
  tiles = drawn[0].axes[0].images[0].get_array()
  assert tiles.shape == (3, 9, 3)
  np.testing.assert_allclose(tiles[1, 2], [0, 0.5, 0.5])
  np.testing.assert_allclose(tiles[:, 5:], 0.5)  # of nothing, grey


def test_packing_pictures_are_optimal_packings(drawn):
  assert is_png(figures.packing_pictures())
  lines, planes = drawn[0].axes
  directions = np.array([line.get_data_3d() for line in lines.lines])
  directions = directions[..., 1] - directions[..., 0]
  assert directions.shape == (5, 3)
  np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 2, rtol=1e-5)
  cosines = np.abs(np.triu(directions @ directions.T / 4, 1))
  # The best five lines are five of the icosahedron's six diagonals.
  np.testing.assert_allclose(cosines.max(), 1 / math.sqrt(5), atol=1e-5)
  assert '63.4°' in lines.get_title()
  assert '90.0°' in planes.get_title()


def test_a_disc_is_the_unit_disc_of_its_plane():
  frame = np.linalg.qr(RNG.standard_normal((3, 2)))[0]
  pieces = figures._disc(frame)
  normal = np.cross(*frame.T)
  np.testing.assert_allclose(pieces @ normal, 0, atol=1e-12)
  radii = np.linalg.norm(pieces, axis=-1)
  np.testing.assert_allclose([radii.min(), radii.max()], [0, 1], atol=1e-12)
  a, b, c, d = np.moveaxis(pieces, 1, 0)
  area = np.linalg.norm(np.cross(c - a, d - b), axis=-1).sum() / 2
  np.testing.assert_allclose(area, 24 * math.sin(2 * math.pi / 48), rtol=1e-12)


def test_the_command_draws_figure_4(monkeypatch, tmp_path, capsys):
  out = tmp_path / 'new' / 'folder'
  monkeypatch.setattr('sys.argv', ['figures', '--out', str(out)])
  figures.main()
  assert is_png((out / 'packings.png').read_bytes())
  assert 'packings.png' in capsys.readouterr().out


def test_a_file_is_no_folder(monkeypatch, tmp_path):
  (tmp_path / 'file').touch()
  monkeypatch.setattr('sys.argv', ['figures', '--out', str(tmp_path / 'file')])
  with pytest.raises(SystemExit, match='is no folder'):
    figures.main()
