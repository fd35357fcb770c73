"""The network of Zhou's table 1, and its initializers in a run."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import data
from experiments import initializers
from experiments import models
from experiments import registry
from experiments import train
from experiments.configs import default
from experiments.configs.kmeans import table2
import structinit_jax as si

KEY = jax.random.key(0)


def count(model):
  shapes = jax.eval_shape(model.init, KEY, jnp.zeros((1, 32, 32, 3)))['params']
  return sum(leaf.size for leaf in jax.tree.leaves(shapes))


@pytest.mark.parametrize('optimizer', ['sgd', 'adam'])
def test_a_short_table_trains_as_the_full_one(optimizer):
  full, short = (table2.get_config(name)
                 for name in (optimizer, f'{optimizer},short'))
  changed = {name for name in full if full[name] != short[name]}
  assert changed == {
      'title', 'train_size', 'epochs', 'schedule', 'initializers'}
  assert short.epochs * short.train_size == 200 * short.batch_size
  for entry in short.initializers:
    initializers.make(entry)


@pytest.mark.parametrize('wrong', ['rmsprop', 'sgd,long', ''])
def test_other_tables_are_refused(wrong):
  with pytest.raises(ValueError, match='unknown; use sgd or adam, alone or'):
    table2.get_config(wrong)


def test_shapes_are_those_of_table_1():
  model = models.Conv8(10)
  _, state = jax.eval_shape(
      lambda x: model.init_with_output(
          KEY, x, mutable=['params', 'batch_stats', 'intermediates']),
      jnp.zeros((1, 32, 32, 3)))
  sizes = [leaf.shape[1:] for leaf in state['intermediates']['relu']]
  assert sizes == [
      (32, 32, 16), (16, 16, 16), (16, 16, 32), (8, 8, 32), (8, 8, 64),
      (8, 8, 64), (8, 8, 128), (8, 8, 128), (128,), (128,)]


def test_three_times_the_channels_are_three_times_too_many_parameters():
  gated, vanilla = count(models.Conv8(10, gated=True)), count(
      models.Conv8(10, width=48))
  assert (gated, vanilla) == (1_090_522, 3_200_346)
  assert count(models.Conv8(10, width=28)) == 1_117_886
  assert si.layers.gated_features(28) == 16


@pytest.mark.parametrize('name, size, convolutions', [
    ('resnet18', 64, 20), ('vgg16', 32, 13)])
def test_large_models_are_served_as_they_are(name, size, convolutions):
  """Traced, not run: every convolution, at full width."""
  model = registry.MODELS[name](num_classes=10)
  images = jax.random.normal(KEY, (256, size, size, 3))
  shapes = jax.eval_shape(model.init, KEY, images)['params']
  init_fn = si.kmeans.joint(
      model, images, select='(.*/)?(stem|conv_.*|shortcut)/kernel')
  params, aux = jax.eval_shape(
      lambda key: init_fn.init_with_aux(key, shapes), KEY)
  assert params == shapes
  assert len(aux['kmeans']) == convolutions


def test_a_residual_network_is_made():
  model = models.ResNet(10, (1, 1), 8, False)
  images = jax.random.normal(KEY, (16, 8, 8, 3))
  shapes = jax.eval_shape(model.init, KEY, images)['params']
  init_fn = si.kmeans.joint(model, images, iterations=6)
  params, aux = init_fn.init_with_aux(KEY, shapes)
  assert len(aux['kmeans']) == 5
  for name, stats in aux['kmeans'].items():
    assert not stats.dead.any(), name
    assert float(stats.coherence) < 0.95, name
  y = model.apply({'params': params}, images, train=True,
                  mutable=['batch_stats'])[0]
  assert np.isfinite(y).all()


@pytest.fixture(scope='module')
def trainer():
  config = default.get_config()
  config.batch_size = 8
  config.train_size = 48
  config.model = 'shallow_cnn(widths=(4, 4), strides=(2, 1))'
  dataset = data.of_config(config)
  return config, dataset


def params_of(config, dataset, entry):
  _, recipe = initializers.make(entry)
  return train.Trainer(config, dataset).init(recipe, [0, 1]).params


@pytest.mark.parametrize('entry', [
    'kmeans(images=16, iterations=3)', 'lsuv(images=16)'])
def test_no_label_is_read(trainer, entry):
  """Labels that would change whatever looked at them."""
  config, dataset = trainer
  poisoned = dataclasses.replace(
      dataset, train_labels=dataset.train_labels[::-1] * 0 + 7)
  for one, other in zip(*(jax.tree.leaves(params_of(config, d, entry))
                          for d in (dataset, poisoned)), strict=True):
    np.testing.assert_array_equal(one, other)


def test_it_sees_as_many_images_as_it_is_given(trainer):
  config, dataset = trainer
  changed = dataclasses.replace(
      dataset, train_images=np.concatenate([
      dataset.train_images[:16], dataset.train_images[16:][::-1]]))
  entry = 'kmeans(images={}, iterations=3)'

  def stem(dataset, images):
    return params_of(config, dataset, entry.format(images))['stem']['kernel']

  # Statistics of all images scale them: the order of the rest is no matter.
  np.testing.assert_array_equal(stem(dataset, 16), stem(changed, 16))
  assert not np.allclose(stem(dataset, 24), stem(changed, 24))


def test_recipes_that_are_refused():
  with pytest.raises(ValueError, match="body='plain'"):
    initializers.make("kmeans(body='plain')")
  with pytest.raises(ValueError, match='images=0'):
    initializers.make('lsuv(images=0)')
  with pytest.raises(ValueError, match="method='whiten' must be one of"):
    initializers.make("kmeans(method='whiten')")
  with pytest.raises(ValueError, match='steps=300 is an option of method='):
    initializers.make("kmeans(steps=300, select='stem/kernel')")
