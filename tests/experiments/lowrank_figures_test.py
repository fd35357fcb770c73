"""The excess of a run's starts is that of the starts it trained."""

import json

import jax
import numpy as np
import pytest

from experiments import data
from experiments import initializers
from experiments import lowrank_figures
from experiments import results
from experiments import summary
from experiments import sweep
from experiments import train

OPTIONS = {
    'drawn': "method='baseline'", 'SVD': "method='spectral'",
    'Adam': "method='adam_warm', steps=300, batch=256",
    'exact': "method='exact'"}


@pytest.fixture(scope='module')
def config(make_config):
  return make_config(
      model='mlp(widths=(24, 24))', baseline='exact', initializers=tuple(
          f"{name} = lfai({given}, rank_scale=0.2, body='he_normal')"
          for name, given in OPTIONS.items()))


@pytest.mark.optimized
def test_the_starts_are_made_again(config):
  trainer = train.Trainer(config, data.load('digits'))
  recipe = initializers.make(config.initializers[1])[1]
  shapes = recipe.shapes(trainer.shapes)
  state = trainer.init(recipe, [3, 5])
  again = recipe.build(shapes)[0](train.key_of_seed(5), shapes)
  jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a[1], b, atol=1e-6),
      state.params, again)


def test_the_table_and_the_picture(config, tmp_path):
  sweep.compare(config, tmp_path)
  lowrank_figures.main([str(tmp_path)])
  rows = json.loads((tmp_path / 'figure2.json').read_text())
  by_name = {row['initializer']: row for row in rows}
  assert list(by_name) == list(OPTIONS)
  # Of these the exact one is the least in every layer, so its excess is 0.
  assert by_name['exact']['excess %'] < 1e-3
  assert 0 < by_name['Adam']['excess %'] < by_name['SVD']['excess %']
  assert by_name['SVD']['excess %'] < by_name['drawn']['excess %']
  assert all(row['runs'] == config.seeds for row in rows)
  finals = [100 * record['final_accuracy']
            for record in results.read_records(tmp_path)
            if record['initializer'] == 'exact']
  exact = by_name['exact']
  assert (exact['final %'], exact['final ± %']) == summary.interval(finals)
  assert (tmp_path / 'figure2.png').read_bytes().startswith(b'\x89PNG')
  assert (tmp_path / 'figure2.md').read_text().count('\n') == 2 + len(OPTIONS)


def test_other_kernels_are_refused(config):
  shapes = train.Trainer(config, data.load('digits')).shapes
  recipes = dict(initializers.make(entry) for entry in (
      "a = lfai(body='he_normal')", "b = lfai(body='lecun_normal')"))
  with pytest.raises(ValueError, match="initializer 'b' starts from another"):
    lowrank_figures.excesses(recipes, shapes, 0)


def test_a_folder_that_is_no_run(tmp_path):
  with pytest.raises(SystemExit, match='not a run directory'):
    lowrank_figures.main([str(tmp_path)])
