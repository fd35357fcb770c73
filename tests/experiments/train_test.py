"""Training: the same batches for all, and what one step ought to do."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import augment
from experiments import data
from experiments import initializers
from experiments import registry
from experiments import sweep
from experiments import train
import structinit_jax as si

BATCH = 8


def _recipe(expression='he_normal'):
  return initializers.make(expression)[1]


def _train(trainer, recipe, seeds, epochs=1):
  """Returns the states before and after, and the last measurements."""
  state = trainer.init(recipe, seeds)
  before = jax.tree.map(np.asarray, state.params)
  program, _ = trainer.compile_epoch(recipe, state)
  for epoch in range(epochs):
    state, (loss, accuracy) = trainer.train_epoch(program, state, epoch)
  return before, state, (np.asarray(loss), np.asarray(accuracy))


def _close(a, b, **tolerances):
  jax.tree.map(lambda x, y: np.testing.assert_allclose(
      x, y, **{'rtol': 1e-4, 'atol': 1e-5, **tolerances}), a, b)


def _same(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


def _seed(state, i):
  return jax.tree.map(lambda x: np.asarray(x)[i], state)


@pytest.fixture(scope='module')
def few(digits):
  """256 training and 100 test images."""
  return data.Dataset(
      'few', digits.train_images[:256], digits.train_labels[:256],
      digits.test_images[:100], digits.test_labels[:100], 10, 16, 'digits')


@pytest.fixture(scope='module')
def trainer(make_config, digits):
  return train.Trainer(make_config(), digits)


@pytest.fixture(scope='module')
def decaying(make_config, digits):
  """A trainer that pulls at every weight."""
  config = make_config(
      optimizer='sgd(momentum=0.9, nesterov=True)', weight_decay=0.1)
  return train.Trainer(config, digits)


def test_a_step_a_call_trains_as_a_scan_does(make_config, few):
  found, loops = {}, {}
  for scan in (True, False):
    trainer = train.Trainer(make_config(
        model='shallow_cnn', batch_size=BATCH, scan_steps=scan), few)
    recipe = _recipe()
    state = trainer.init(recipe, [0, 1])
    text = trainer.compile_epoch(recipe, state)[0].as_text()
    loops[scan] = text.count(' while(')
    _, state, measured = _train(trainer, recipe, [0, 1], epochs=2)
    found[scan] = state.params, measured
  _close(found[True], found[False], rtol=1e-3, atol=1e-4)
  assert loops[True] > loops[False]


# ---- Which examples a step sees. A model with one weight a training image
# tells: an image's weights move once an epoch, by as much as the learning
# rate of that step, and the schedule gives every step a rate of its own.

NUM_IMAGES, CLASSES = 60, 3
FACTOR = 0.5


class Probe(nn.Module):
  """Scores an image by weights that belong to it alone."""

  num_classes: int
  dtype: object = None

  @nn.compact
  def __call__(self, x):
    index = x.reshape(len(x), -1).argmax(-1)
    x = jax.nn.one_hot(index, 64)
    return nn.Dense(self.num_classes, use_bias=False, name='stem')(x)


@pytest.fixture(scope='module')
def probe(make_config):
  """A trainer whose weights tell which step saw which image."""
  images = np.eye(NUM_IMAGES, 64).reshape(-1, 8, 8, 1).astype(np.uint8)
  labels = np.zeros(NUM_IMAGES, np.int32)
  dataset = data.Dataset(
      'probe', images, labels, images, labels, CLASSES, 1, 'here')
  config = make_config(
      model='probe', optimizer='sgd(momentum=0.0)', batch_size=BATCH,
      epochs=3, learning_rate=64.0, schedule='cosine')
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(registry.MODELS, 'probe', Probe)
    return train.Trainer(config, dataset)


def _steps(trainer, recipe, seeds, epochs):
  """Returns for every epoch, seed and image the step that saw it, or -1."""
  steps = trainer.steps_per_epoch
  rates = 64 * (1 + np.cos(np.pi * np.arange(3 * steps) / (3 * steps))) / 2
  state = trainer.init(recipe, seeds)
  # Optax's cosine divides a count in int32 by a Python float.
  with jax.numpy_dtype_promotion('standard'):
    program, _ = trainer.compile_epoch(recipe, state)
  out = []
  for epoch in range(epochs):
    before = np.asarray(state.params['stem']['kernel'], np.float64)
    state, _ = trainer.train_epoch(program, state, epoch)
    moved = np.asarray(state.params['stem']['kernel']) - before
    soft = np.exp(before)
    grads = soft / soft.sum(-1, keepdims=True) - np.eye(CLASSES)[0]
    found = -(moved * grads).sum(-1) / (grads**2).sum(-1) * BATCH
    own = rates[epoch * steps:][:steps]
    error = np.abs(found[..., None] - own)
    seen = np.abs(moved).max(-1) > 0
    assert error.min(-1)[seen].max() < 0.05 * np.abs(np.diff(own)).min()
    out.append(np.where(seen, error.argmin(-1), -1)[:, :NUM_IMAGES])
  return np.array(out)


@pytest.fixture(scope='module')
def orders(probe):
  return _steps(probe, _recipe(), [0, 1, 5], 3)


def test_an_epoch_is_whole_batches_without_repetition(probe, orders):
  assert probe.steps_per_epoch == NUM_IMAGES // BATCH == 7
  for order in orders.reshape(-1, NUM_IMAGES):
    counts = [int((order == step).sum()) for step in range(-1, 7)]
    assert counts == [NUM_IMAGES % BATCH, *[BATCH] * 7]


@pytest.mark.parametrize('expression', [
    'normal(stddev=0.1)', 'orthogonal'])
def test_every_initializer_sees_the_same_batches(probe, orders, expression):
  np.testing.assert_array_equal(
      _steps(probe, _recipe(expression), [0, 1, 5], 3), orders)


def test_a_seed_sees_the_same_batches_in_any_company(probe, orders):
  np.testing.assert_array_equal(
      _steps(probe, _recipe(), [5], 3), orders[:, 2:])


def test_epochs_and_seeds_differ(orders):
  flat = [tuple(order) for order in orders.reshape(-1, NUM_IMAGES)]
  assert len(set(flat)) == len(flat) == 9


def test_the_images_left_out_are_others_in_every_epoch(orders):
  left = {tuple(np.flatnonzero(order == -1))
          for order in orders.reshape(-1, NUM_IMAGES)}
  assert len(left) > 6


# ---- Initialisation.


@pytest.mark.parametrize('expression', ['he_normal', 'orthogonal'])
def test_initial_parameters_do_not_depend_on_company(trainer, expression):
  recipe = _recipe(expression)
  together = trainer.init(recipe, [1, 7])
  for i, seed in enumerate((1, 7)):
    alone = trainer.init(recipe, [seed])
    _same(_seed(together.params, i), _seed(alone.params, 0))
    _same(jax.random.key_data(together.key)[i],
          jax.random.key_data(alone.key)[0])


def test_initial_parameters_are_those_of_the_library(trainer):
  recipe = _recipe()
  state = trainer.init(recipe, [3])
  init_fn, _ = recipe.build(trainer.shapes)
  key = jax.random.split(jax.random.key(3))[0]
  want = jax.jit(lambda key: init_fn(key, trainer.shapes))(key)
  _close(_seed(state.params, 0), want, rtol=1e-6, atol=1e-7)


def test_seeds_differ(trainer):
  kernel = np.asarray(trainer.init(_recipe(), [0, 1]).params['stem']['kernel'])
  assert (kernel[0] != kernel[1]).all()


# ---- One step, by hand.


def _logits(params, images, dataset):
  """The model's layers and outputs, in numpy."""
  mean, std = dataset.statistics()
  x = (images / dataset.scale - mean) / np.where(std > 0, std, 1)
  x = x.reshape(len(x), -1)
  hidden = np.maximum(
      x @ params['stem']['kernel'] + params['stem']['bias'], 0)
  return x, hidden, (
      hidden @ params['head']['kernel'] + params['head']['bias'])


def _loss(logits, labels):
  top = logits.max(-1, keepdims=True)
  logs = logits - top - np.log(np.exp(logits - top).sum(-1, keepdims=True))
  return -logs[np.arange(len(labels)), labels].mean()


def test_one_step_is_gradient_descent(make_config, few):
  rate, decay = 0.5, 0.1
  config = make_config(
      optimizer='sgd(momentum=0.0)', batch_size=256, learning_rate=rate,
      weight_decay=decay)
  before, state, (loss, accuracy) = _train(
      train.Trainer(config, few), _recipe(), [0, 1])
  for i in range(2):
    params = _seed(before, i)
    x, hidden, logits = _logits(params, few.train_images, few)
    labels = few.train_labels
    assert loss[i] == pytest.approx(_loss(logits, labels), rel=1e-5)
    assert accuracy[i] == pytest.approx((logits.argmax(-1) == labels).mean())
    soft = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    error = (soft - np.eye(10)[labels]) / len(labels)
    back = error @ params['head']['kernel'].T * (hidden > 0)
    grads = {'stem': {'kernel': x.T @ back, 'bias': back.sum(0)},
             'head': {'kernel': hidden.T @ error, 'bias': error.sum(0)}}
    want = jax.tree.map(
        lambda p, g: p - rate * (g + decay * p), params, grads)
    _close(_seed(state.params, i), want)


# ---- Seeds together, seeds alone, devices.


@pytest.fixture(scope='module')
def trained(trainer):
  """Two seeds after two epochs, with their measurements."""
  _, state, numbers = _train(trainer, _recipe(), [0, 1], 2)
  return state, numbers, trainer.evaluate(state)


def test_seeds_train_together_as_they_do_alone(trainer, trained):
  state, (loss, accuracy), test = trained
  for i in (0, 1):
    _, alone, numbers = _train(trainer, _recipe(), [i], 2)
    _close(_seed(state.params, i), _seed(alone.params, 0))
    _close((loss[i], accuracy[i]), (numbers[0][0], numbers[1][0]))
    _close(_seed(test, i), _seed(trainer.evaluate(alone), 0))


def test_eight_devices_train_as_one_does(
    monkeypatch, make_config, digits, trained):
  assert len(jax.local_devices()) == 8
  kernel = trained[0].params['stem']['kernel']
  assert len(kernel.sharding.device_set) == 8
  only = jax.local_devices()[:1]
  monkeypatch.setattr(jax, 'local_devices', lambda *args, **kwargs: only)
  single = train.Trainer(make_config(), digits)
  _, state, numbers = _train(single, _recipe(), [0, 1], 2)
  assert state.params['stem']['kernel'].sharding.device_set == set(only)
  _close(trained[0].params, state.params)
  _close(trained[1], numbers)
  _close(trained[2], single.evaluate(state))
  _same(jax.random.key_data(trained[0].key), jax.random.key_data(state.key))


def test_training_helps(trainer, trained):
  first = trainer.evaluate(trainer.init(_recipe(), [0, 1]))
  assert (trained[2].loss < first.loss).all()
  assert (trained[2].accuracy > first.accuracy).all()


def test_training_twice_gives_the_same_bits(trainer, trained):
  _, state, numbers = _train(trainer, _recipe(), [0, 1], 2)
  _same(state.params, trained[0].params)
  _same(numbers, trained[1])


# ---- Frozen leaves and masks.


def test_a_frozen_stem_stays_and_all_else_moves(decaying):
  # In between, a stem that moves: the states look alike, the programs differ.
  for expression, frozen in (
      ('he_normal(freeze=True)', True), ('he_normal', False),
      ("glorot_normal(where='stem', freeze=True)", True)):
    before, state, _ = _train(decaying, _recipe(expression), [0, 1])
    for layer in ('stem', 'head'):
      for leaf in ('kernel', 'bias'):
        moved = before[layer][leaf] != np.asarray(state.params[layer][leaf])
        if frozen and layer == 'stem':
          assert not moved.any()
        else:
          assert moved.any(axis=tuple(range(1, moved.ndim))).all()


class Sparse:
  """He-normal kernels of which a random part is removed for good."""

  def _mask(self, key, shape):
    return jax.random.bernoulli(jax.random.fold_in(key, 1), 0.4, shape)

  def __call__(self, key, shape, dtype=None, out_sharding=None):
    del out_sharding
    kernel = jax.nn.initializers.he_normal()(key, shape, dtype)
    return jnp.where(self._mask(key, shape), kernel, jnp.zeros((), dtype))

  def aux(self, key, shape):
    return {'mask': self._mask(key, shape)}


SPARSE = initializers.Recipe((('stem/kernel', Sparse()), *_recipe().rules))


def _check_sparse(before, state):
  mask = np.asarray(state.masks['stem']['kernel'])
  assert mask.dtype == bool
  assert mask.shape == before['stem']['kernel'].shape
  assert 0.3 < mask.mean() < 0.5
  assert (mask[0] != mask[1]).any()  # a mask a seed
  np.testing.assert_array_equal(mask, before['stem']['kernel'] != 0)
  np.testing.assert_array_equal(
      mask, np.asarray(state.params['stem']['kernel']) != 0)
  for layer, leaf in (('stem', 'bias'), ('head', 'kernel'), ('head', 'bias')):
    np.testing.assert_array_equal(state.masks[layer][leaf], [True, True])
    assert (before[layer][leaf] != np.asarray(state.params[layer][leaf])).any()


def test_removed_weights_stay_removed(make_config, digits):
  config = make_config(
      optimizer='sgd(momentum=0.9, nesterov=True)', weight_decay=0.1)
  before, state, _ = _train(train.Trainer(config, digits), SPARSE, [0, 1], 2)
  _check_sparse(before, state)


def test_a_trainer_serves_masked_after_dense_recipes(decaying):
  _train(decaying, _recipe(), [0, 1])
  before, state, _ = _train(decaying, SPARSE, [0, 1])
  _check_sparse(before, state)


def test_dense_recipes_have_no_masks(trainer):
  masks = trainer.init(_recipe(), [0, 1]).masks
  assert jax.tree.structure(masks) == jax.tree.structure(trainer.shapes)
  for mask in jax.tree.leaves(masks):
    np.testing.assert_array_equal(mask, [True, True])


# ---- Collections beside the parameters.

EPSILON = 1e-5


class Normalised(nn.Module):
  """A hidden layer normalised over the batch."""

  num_classes: int
  dtype: object = None

  @nn.compact
  def __call__(self, x, train=False):
    x = nn.Dense(4, name='stem')(x.reshape(len(x), -1))
    x = nn.BatchNorm(not train, momentum=0.9, epsilon=EPSILON)(x)
    x = nn.relu(x)
    self.sow('intermediates', 'relu', x)
    return nn.Dense(self.num_classes, name='head')(x)


@pytest.fixture(scope='module')
def normalised(make_config, few):
  """A trainer whose steps see all of the 256 images."""
  config = make_config(
      model='normalised', optimizer='sgd(momentum=0.0)', batch_size=256,
      learning_rate=0.5)
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(registry.MODELS, 'normalised', Normalised)
    return train.Trainer(config, few)


def _hidden(params, images, dataset):
  """What the first layer gives, in numpy."""
  mean, std = dataset.statistics()
  x = (images / dataset.scale - mean) / np.where(std > 0, std, 1)
  return (x.reshape(len(x), -1) @ np.asarray(params['stem']['kernel'], float)
          + params['stem']['bias'])


def _rest(params, hidden, mean, var):
  """The logits and the outputs of the ReLUs."""
  norm = params['BatchNorm_0']
  units = (hidden - mean) / np.sqrt(var + EPSILON)
  units = np.maximum(units * norm['scale'] + norm['bias'], 0)
  return units @ params['head']['kernel'] + params['head']['bias'], units


def test_a_step_normalises_by_its_batch_and_remembers_it(normalised, few):
  before, state, (loss, accuracy) = _train(normalised, _recipe(), [0, 1])
  for i in range(2):
    params = _seed(before, i)
    hidden = _hidden(params, few.train_images, few)
    mean, var = hidden.mean(0), hidden.var(0)
    logits, _ = _rest(params, hidden, mean, var)
    assert loss[i] == pytest.approx(_loss(logits, few.train_labels), rel=1e-4)
    assert accuracy[i] == pytest.approx(
        (logits.argmax(-1) == few.train_labels).mean())
    stats = _seed(state.model_state, i)['batch_stats']['BatchNorm_0']
    _close(stats, {'mean': 0.1 * mean, 'var': 0.9 + 0.1 * var})


@pytest.mark.parametrize('epochs', [0, 3])
def test_evaluation_normalises_by_what_is_remembered(normalised, few, epochs):
  state = normalised.init(_recipe(), [0, 1])
  program, _ = normalised.compile_epoch(_recipe(), state)
  for epoch in range(epochs):
    state, _ = normalised.train_epoch(program, state, epoch)
  got = normalised.evaluate(state)
  for i in range(2):
    params = _seed(state.params, i)
    stats = _seed(state.model_state, i)['batch_stats']['BatchNorm_0']
    if not epochs:
      _same(stats, {'mean': np.zeros(4), 'var': np.ones(4)})
    logits, units = _rest(
        params, _hidden(params, few.test_images, few), **stats)
    assert float(got.loss[i]) == pytest.approx(
        _loss(logits, few.test_labels), rel=1e-4)
    assert int(got.dead[i]) == (units <= 0).all(0).sum()
  assert normalised.num_units == 4


def test_models_without_have_none(trainer):
  assert trainer.init(_recipe(), [0, 1]).model_state == {}


# ---- Augmentation.

PIXELS, STEPS = 8, 3


class Recorder(nn.Module):
  """Keeps the images that it is trained on, in the order of the steps."""

  num_classes: int
  dtype: object = None

  @nn.compact
  def __call__(self, x, train=False):
    shape = (STEPS, BATCH, PIXELS, PIXELS, 1)
    images = self.variable('seen', 'images', jnp.zeros, shape)
    count = self.variable('seen', 'count', lambda: jnp.int32(0))
    if train:
      images.value = images.value.at[count.value % STEPS].set(x)
      count.value += 1
    x = x.reshape(len(x), -1)
    return nn.Dense(self.num_classes, name='stem')(x)


@pytest.fixture(scope='module')
def noise():
  """Images of which no two look alike, however shifted; none is black."""
  rng = np.random.default_rng(0)
  images = rng.integers(
      1, 256, (STEPS * BATCH, PIXELS, PIXELS, 1)).astype(np.uint8)
  labels = np.zeros(len(images), np.int32)
  return data.Dataset('noise', images, labels, images, labels, 2, 255, 'here')


@pytest.fixture(scope='module')
def record(make_config, noise):
  """Returns the images seen in two epochs: (epoch, seed, step, batch, ...)."""

  def run(augment='crop_flip', expression='he_normal', seeds=(0, 5)):
    config = make_config(model='recorder', batch_size=BATCH, augment=augment)
    with pytest.MonkeyPatch.context() as patch:
      patch.setitem(registry.MODELS, 'recorder', Recorder)
      trainer = train.Trainer(config, noise)
    state = trainer.init(_recipe(expression), seeds)
    program, _ = trainer.compile_epoch(_recipe(expression), state)
    mean, std = noise.statistics()
    out = []
    for epoch in range(2):
      state, _ = trainer.train_epoch(program, state, epoch)
      seen = np.asarray(state.model_state['seen']['images'], np.float64)
      out.append(np.rint((seen * std + mean) * 255).astype(int))
    return np.array(out)

  return run


@pytest.fixture(scope='module')
def plain(record):
  return record('none')


@pytest.fixture(scope='module')
def moved(record):
  return record()


def _moves(image):
  """Every shift and mirror image that there may be, by what was done."""
  padded = np.pad(image[..., 0], 4)
  return {(i, j, mirror): padded[i:i + PIXELS, j:j + PIXELS][:, ::mirror]
          for i in range(9) for j in range(9) for mirror in (1, -1)}


def _find(image, original):
  found = [move for move, candidate in _moves(original).items()
           if (candidate == image[..., 0]).all()]
  assert len(found) == 1
  return found[0]


def _found(moved, plain):
  shape = moved.shape[:4]
  flat = (x.reshape(-1, PIXELS, PIXELS, 1) for x in (moved, plain))
  return np.array([_find(*pair) for pair in zip(*flat, strict=True)]).reshape(
      *shape, 3)


def test_without_augmentation_images_stay_as_they_are(plain, noise):
  want = sorted(image.tobytes() for image in noise.train_images)
  for seen in plain.reshape(-1, STEPS * BATCH, PIXELS, PIXELS, 1):
    assert sorted(x.astype(np.uint8).tobytes() for x in seen) == want


def test_every_image_is_shifted_or_mirrored(moved, plain):
  moves = _found(moved, plain).reshape(-1, 3)
  assert len(np.unique(moves, axis=0)) > 40
  assert set(moves[:, 2]) == {-1, 1}
  assert set(moves[:, 0]) == set(moves[:, 1]) == set(range(9))


def test_every_step_epoch_and_seed_moves_differently(moved, plain):
  moves = _found(moved, plain).reshape(-1, BATCH * 3)
  assert len(np.unique(moves, axis=0)) == len(moves) == 2 * 2 * STEPS


def test_every_initializer_sees_the_same_moves(record, moved):
  np.testing.assert_array_equal(record(expression='orthogonal'), moved)


def test_a_seed_sees_the_same_moves_in_any_company(record, moved):
  np.testing.assert_array_equal(record(seeds=(5,)), moved[:, 1:])


def test_one_device_sees_the_same_moves_as_eight(monkeypatch, record, moved):
  only = jax.local_devices()[:1]
  monkeypatch.setattr(jax, 'local_devices', lambda *args, **kwargs: only)
  np.testing.assert_array_equal(record(), moved)


# ---- Dtypes.


@pytest.mark.parametrize('model', [
    'mlp(widths=(8,))', 'shallow_cnn(widths=(4,), strides=(2,))'])
def test_bfloat16_computes_and_float32_keeps(make_config, digits, model):
  states, numbers = [], []
  for dtype in ('float32', 'bfloat16'):
    trainer = train.Trainer(make_config(model=model, dtype=dtype), digits)
    _, state, trained = _train(trainer, _recipe(), [0, 1])
    for leaf in jax.tree.leaves((state.params, state.opt_state)):
      assert leaf.dtype in (jnp.float32, jnp.int32, jnp.bool_)
    states.append(state.params)
    numbers.append((*trained, *trainer.evaluate(state)[:2]))
    assert all(number.dtype == jnp.float32 for number in numbers[-1])
  _close(*numbers, rtol=0.1, atol=0.05)
  _close(*states, rtol=0.2, atol=0.02)
  kernels = [np.asarray(params['head']['kernel']) for params in states]
  assert (kernels[0] != kernels[1]).mean() > 0.5


# ---- Evaluation.


def _activations(model, params, images):
  """Returns logits and the outputs of every ReLU."""
  logits, variables = model.apply(
      {'params': params}, images, mutable=['intermediates'])
  return np.asarray(logits), [
      np.asarray(x) for x in jax.tree.leaves(variables['intermediates'])]


@pytest.mark.parametrize('model, batch', [
    ('mlp(widths=(8,))', 512), ('mlp(widths=(8,))', 32),
    ('shallow_cnn(widths=(4, 6), strides=(2, 1))', 32)])
def test_evaluation(monkeypatch, make_config, few, model, batch):
  # 100 test images: one padded batch, or four of which one is padded.
  monkeypatch.setattr(train, '_EVAL_BATCH', batch)
  trainer = train.Trainer(make_config(model=model), few)
  state = trainer.init(_recipe(), [0, 1])
  # One unit of the stem never fires, one seldom, one always.
  bias = np.zeros((2, state.params['stem']['bias'].shape[1]), np.float32)
  bias[:, 0], bias[0, 1], bias[:, 2] = -1e3, -8, 1e3
  state = state._replace(params={
      **state.params, 'stem': {**state.params['stem'], 'bias': bias}})
  got = trainer.evaluate(state)
  assert got.loss.shape == got.accuracy.shape == got.dead.shape == (2,)

  mean, std = few.statistics()
  images = ((few.test_images / 16 - mean) / np.where(std > 0, std, 1)).astype(
      np.float32)
  flax_model = registry.MODELS.build(model, num_classes=10)
  for i in range(2):
    logits, units = _activations(flax_model, _seed(state.params, i), images)
    dead = sum(int((x.reshape(-1, x.shape[-1]) <= 0).all(0).sum())
               for x in units)
    assert dead > 0
    assert int(got.dead[i]) == dead
    assert float(got.loss[i]) == pytest.approx(
        _loss(logits.astype(np.float64), few.test_labels), rel=1e-4)
    correct = (logits.argmax(-1) == few.test_labels).mean()
    assert float(got.accuracy[i]) == pytest.approx(correct, abs=1e-6)
  assert trainer.num_units == sum(x.shape[-1] for x in units)


def test_a_model_without_relu_has_no_dead_units(probe):
  got = probe.evaluate(probe.init(_recipe(), [0, 1]))
  assert probe.num_units == 0
  assert got.dead.tolist() == [0, 0]


# ---- What does not fit.


@pytest.mark.parametrize('batch, parts', [
    (0, ['batch_size 0', '1 and the 256']),
    (-8, ['batch_size -8', '1 and the 256']),
    (264, ['batch_size 264', '1 and the 256']),
    (12, ['batch_size 12', '8 devices', '8 and 16']),
    (255, ['batch_size 255', '8 devices', '248 and 256']),
    (4, ['batch_size 4', '8 devices']),
])
def test_bad_batch_sizes(make_config, few, batch, parts):
  with pytest.raises(ValueError) as caught:
    train.Trainer(make_config(batch_size=batch), few)
  for part in parts:
    assert part in str(caught.value)
  assert '8 and 8' not in str(caught.value)


def test_bad_models_and_optimizers_are_named(make_config, few):
  with pytest.raises(ValueError, match="did you mean 'mlp'"):
    train.Trainer(make_config(model='mpl'), few)
  with pytest.raises(ValueError, match='sgd'):
    train.Trainer(make_config(optimizer='sgdd'), few)
  with pytest.raises(
      ValueError, match=r"unknown augmentation 'crop'.*crop_flip"):
    train.Trainer(make_config(augment='crop'), few)
  with pytest.raises(ValueError, match=r'label_smoothing=1\.0 must be'):
    train.Trainer(make_config(label_smoothing=1.0), few)


def test_the_loss_of_mixed_and_smoothed_labels():
  """Against the cross-entropy with the distribution that is wanted."""
  rng = np.random.default_rng(0)
  logits = rng.normal(size=(6, 4)).astype(np.float32)
  first, second = rng.integers(0, 4, (2, 6))
  weight = rng.uniform(size=6).astype(np.float32)
  log = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  hot = np.eye(4)
  for labels, wanted in (
      (jnp.asarray(first), hot[first]),
      (augment.Labels(*map(jnp.asarray, (first, second, weight))),
       weight[:, None] * hot[first] + (1 - weight[:, None]) * hot[second])):
    for smoothing in (0.0, 0.1):
      got = train._cross_entropy(jnp.asarray(logits), labels, smoothing)
      smoothed = (1 - smoothing) * wanted + smoothing / 4
      np.testing.assert_allclose(got, -(smoothed * log).sum(-1), rtol=1e-5)


@pytest.mark.parametrize('wanted', [1, 2])
def test_all_seeds_fit_a_large_memory(monkeypatch, trainer, wanted):
  monkeypatch.setattr(train, '_device_memory', lambda: 2**60)
  assert trainer.seeds_that_fit(_recipe(), wanted) == wanted


@pytest.mark.parametrize('wanted', [1, 3])
def test_one_seed_is_trained_whatever_the_memory(monkeypatch, trainer, wanted):
  monkeypatch.setattr(train, '_device_memory', lambda: 1)
  assert trainer.seeds_that_fit(_recipe(), wanted) == 1


def test_seeds_are_halved_until_they_fit(monkeypatch, trainer):
  def used(seeds):
    state = jax.eval_shape(lambda: trainer.init(_recipe(), range(seeds)))
    memory = trainer.compile_epoch(_recipe(), state)[0].memory_analysis()
    return memory.temp_size_in_bytes + memory.argument_size_in_bytes

  assert used(2) < used(3)
  for limit, want in ((used(3), 3), (used(3) - 1, 2), (used(2) - 1, 1)):
    monkeypatch.setattr(
        train, '_device_memory', lambda x=limit: x / train._MEMORY_SHARE)
    assert trainer.seeds_that_fit(_recipe(), 3) == want


def test_memory_is_known():
  assert train._device_memory() > 2**28
  assert math.isfinite(train._device_memory())


def test_a_program_is_compiled_once(trainer):
  state = trainer.init(_recipe(), [0, 1])
  first = trainer.compile_epoch(_recipe(), state)
  assert trainer.compile_epoch(_recipe('glorot_normal'), state) is first


def test_masks_mirror_the_parameters(trainer):
  state = trainer.init(SPARSE, [0])
  assert si.leaf_names(state.masks) == si.leaf_names(state.params)


# ---- Subspaces.


def test_training_stays_in_the_subspace_of_its_seed(make_config, digits):
  """What changes is P P^T of it, with a P of every seed's own."""
  trainer = train.Trainer(
      make_config(model='mlp(widths=(8,))', learning_rate=0.1), digits)
  _, recipe = initializers.make('subspace(dim=40, column_norm=2.0)')
  seeds = (3, 5)
  state = trainer.init(recipe, seeds)
  before = jax.tree.map(np.asarray, state.params)
  program, _ = trainer.compile_epoch(recipe, state)
  state, _ = trainer.train_epoch(program, state, 0)
  spans = []
  for i, seed in enumerate(seeds):
    key = jax.random.fold_in(
        train.key_of_seed(seed), train._SUBSPACE_STREAM)
    start = _seed(before, i)
    subspace = si.subspace.reparameterize(key, start, 40)
    moved = jax.tree.map(np.subtract, _seed(state.params, i), start)
    w = subspace.project(moved)
    back = jax.tree.map(np.subtract, subspace.expand(w), start)
    for got, want in zip(jax.tree.leaves(back), jax.tree.leaves(moved),
                         strict=True):
      np.testing.assert_allclose(got, want, atol=2e-6)
    assert np.linalg.norm(w['projected']['all']) > 0.1
    spans.append(w['projected']['all'])
  assert abs(spans[0] - spans[1]).min() > 0


def test_an_initializer_that_does_not_fit_is_refused_at_once(
    make_config, tmp_path):
  config = make_config(
      initializers=('he_normal', 'few = subspace(dim=1000000000)'))
  with pytest.raises(ValueError, match="initializer 'few': dim=1000000000"):
    sweep.compare(config, tmp_path)
  assert not (tmp_path / 'results.jsonl').exists()
