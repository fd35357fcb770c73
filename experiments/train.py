"""Training: all seeds of one initializer at once, an epoch a program.

A `Trainer` holds the device-resident data and the compiled programs of one
config. A `State` carries every seed along its leading axis. The order of the
examples, and how each is cropped and flipped, depend on the seed, the epoch and
the step alone, so initializers are compared on the same batches, and a run
resumed at an epoch continues as it would have.
"""

from collections.abc import Callable
from collections.abc import Sequence
import functools
import inspect
import math
import os
import time
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import augment
from experiments import data
from experiments import initializers
from experiments import optimizers
from experiments import registry
import experiments.models as _models  # registers the models
import structinit_jax as si

del _models

__all__ = ['Evaluation', 'State', 'Trainer', 'key_of_seed']

# Folded in where an epoch's number may be.
_AUGMENT_STREAM = np.uint32(2**31)
_PRUNE_STREAM = np.uint32(2**31 + 1)
_SUBSPACE_STREAM = np.uint32(2**31 + 2)
_DTYPES = ('float32', 'bfloat16', 'float16')
_EVAL_BATCH = 512
_MEMORY_SHARE = 0.5  # of a device's memory, for one program


def key_of_seed(seed: int) -> jax.Array:
  """Returns the key that `Trainer.init` gives the initializer of a seed."""
  return jax.random.split(jax.random.key(seed))[0]


class State(NamedTuple):
  """Training state; every leaf has a leading axis over seeds.

  Attributes:
    params: model parameters.
    model_state: the model's other collections (running statistics), or {}.
    opt_state: optimizer state.
    masks: `aux['masks']` of the initializer; removed weights stay 0.
    key: PRNG key of the example order.
  """

  params: Any
  model_state: Any
  opt_state: Any
  masks: Any
  key: jax.Array


class Evaluation(NamedTuple):
  """Test-set measurements; every leaf has a leading axis over seeds.

  Attributes:
    loss: mean cross-entropy, in nats.
    accuracy: fraction correct.
    dead: number of ReLU units silent on the whole test set.
  """

  loss: jax.Array
  accuracy: jax.Array
  dead: jax.Array


class Trainer:
  """Trains the seeds of an initializer on one data set with one config.

  Attributes:
    shapes: the full model's parameters as `jax.ShapeDtypeStruct`.
    num_units: how many ReLU units the model has (channels count once).
    steps_per_epoch: optimizer steps in an epoch; examples that do not fill a
      batch are left out, others in every epoch.
  """

  def __init__(self, config: Any, dataset: data.Dataset):
    """Puts the data on the devices.

    Args:
      config: see `experiments/configs/default.py`.
      dataset: the data.

    Raises:
      ValueError: for an unknown name, or a batch size that does not fit the
        data or the devices.
    """
    if config.dtype not in _DTYPES:
      raise ValueError(
          f'dtype {config.dtype!r} is unknown; use one of {_DTYPES}')
    if not 0 <= config.label_smoothing < 1:
      raise ValueError(
          f'label_smoothing={config.label_smoothing} must be at least 0 and '
          'below 1')
    self._augment = augment.make(config.augment)
    devices = jax.local_devices()
    batch = config.batch_size
    if not 1 <= batch <= len(dataset.train_images):
      raise ValueError(
          f'batch_size {batch} must lie between 1 and the '
          f'{len(dataset.train_images)} training images')
    if batch % len(devices):
      low = batch // len(devices) * len(devices)
      near = f'{low} and ' if low else ''
      raise ValueError(
          f'batch_size {batch} does not divide over {len(devices)} devices; '
          f'nearest that does: {near}{low + len(devices)}')
    mesh = jax.make_mesh(
        (len(devices),), ('batch',), devices=devices,
        axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec
    self._replicated = jax.sharding.NamedSharding(mesh, spec())
    self._by_example = jax.sharding.NamedSharding(mesh, spec(None, 'batch'))

    self._config = config
    self._model = registry.MODELS.build(
        config.model, num_classes=dataset.num_classes,
        dtype=jnp.dtype(config.dtype))
    self._takes_train = 'train' in inspect.signature(
        self._model.__call__).parameters
    self.steps_per_epoch = len(dataset.train_images) // batch
    self._optimizer = optimizers.make(config, self.steps_per_epoch)
    mean, std = dataset.statistics()
    self._offset = mean * dataset.scale
    # A channel that never varies keeps its scale.
    self._scale = np.where(std > 0, std, np.float32(1)) * dataset.scale
    put = functools.partial(jax.device_put, device=self._replicated)
    self._train = put((dataset.train_images, dataset.train_labels))
    self._test = put(_batches(dataset, len(devices)))

    shape = dataset.train_images.shape[1:]
    self._image = jnp.zeros((1, *shape), jnp.uint8)
    try:
      variables = jax.eval_shape(self._init_model, jax.random.key(0))
    except (ArithmeticError, TypeError, ValueError) as error:
      raise ValueError(
          f'model {config.model!r} cannot take images of shape '
          f'{shape}: {error}') from error
    self.shapes = variables.pop('params')
    self._collections = [*variables]
    if 'kernel' not in self.shapes.get('stem', {}):
      raise ValueError(
          f'model {config.model!r} has no leaf stem/kernel: name its first '
          "layer 'stem'. Its leaves are "
          f'{", ".join(si.leaf_names(self.shapes))}')
    _, sown = jax.eval_shape(
        lambda params, model_state: self._apply(
            params, model_state, self._normalise(self._image),
            mutable=['intermediates']),
        self.shapes, variables)
    self.num_units = sum(leaf.shape[-1] for leaf in jax.tree.leaves(sown))
    self._steps_per_call = self.steps_per_epoch if config.scan_steps else 1
    self._compiled: dict[Any, tuple[Any, float]] = {}

  def _init_model(self, key: jax.Array) -> dict[str, Any]:
    return self._model.init(key, self._normalise(self._image))

  def _apply(
      self, params: Any, model_state: Any, x: jax.Array, *, mutable: list[str],
      train: bool = False,
  ) -> tuple[jax.Array, Any]:
    mode = {'train': train} if self._takes_train else {}
    apply = si.layers.factored(self._model.apply)
    return apply({'params': params, **model_state}, x, mutable=mutable, **mode)

  def _normalise(self, images: jax.Array) -> jax.Array:
    by_channel = (*[1] * (images.ndim - 1), -1)
    offset, scale = (
        x.reshape(by_channel) for x in (self._offset, self._scale))
    return (images.astype(jnp.float32) - offset) / scale

  def _make_optimizer(
      self, recipe: initializers.Recipe, key: jax.Array
  ) -> optax.GradientTransformation:
    """Returns the optimizer; the key is for what its `init` draws."""
    optimizer = self._optimizer
    if recipe.subspace is not None:
      optimizer = si.subspace.within(key, optimizer, **recipe.subspace)
    _, labels = recipe.build(recipe.shapes(self.shapes))
    return optax.partition(
        {initializers.TRAIN: optimizer,
         initializers.FREEZE: optax.set_to_zero()}, labels)

  def init(self, recipe: initializers.Recipe, seeds: Sequence[int]) -> State:
    """Initialises one model a seed.

    Args:
      recipe: the initializer.
      seeds: one integer a model.

    Returns:
      The state before the first epoch.
    """
    shapes = recipe.shapes(self.shapes)
    init_fn, _ = recipe.build(shapes)
    if recipe.look is not None:
      images = self._train[0][:recipe.images]
      init_fn = recipe.look(self._model, self._normalise(images), rest=init_fn)

    def one(key: jax.Array) -> State:
      init_key, order_key = jax.random.split(key)
      optimizer = self._make_optimizer(
          recipe, jax.random.fold_in(init_key, _SUBSPACE_STREAM))
      params, aux = init_fn.init_with_aux(init_key, shapes)
      masks = jax.tree.map(jnp.asarray, aux['masks'])
      if recipe.prune:  # room for those to come
        masks = jax.tree.map(
            lambda x, mask: jnp.broadcast_to(mask, x.shape), params, masks)
      model_state = {}
      if self._collections:  # the parameters made beside are dropped
        model_state = self._init_model(init_key)
        del model_state['params']
      return State(
          params, model_state, optimizer.init(params), masks, order_key)

    # One seed after another: a seed's parameters do not depend on which
    # others there are.
    make = jax.jit(functools.partial(jax.lax.map, one),
                   out_shardings=self._replicated)
    return make(jnp.stack([jax.random.key(seed) for seed in seeds]))

  def prune(self, recipe: initializers.Recipe, state: State) -> State:
    """Prunes trained models and starts their optimizer anew.

    Args:
      recipe: with `prune`.
      state: the state of trained models.

    Returns:
      The state before the first epoch of the pruned models.
    """

    def one(state: State) -> State:
      optimizer = self._make_optimizer(
          recipe, jax.random.fold_in(state.key, _SUBSPACE_STREAM))
      masks = recipe.masks(
          jax.random.fold_in(state.key, _PRUNE_STREAM), state.params)
      masks = jax.tree.map(
          lambda x, mask: jnp.broadcast_to(mask, x.shape), state.params, masks)
      params = si.masks.apply(state.params, masks)
      return state._replace(
          params=params, masks=masks, opt_state=optimizer.init(params))

    make = jax.jit(functools.partial(jax.lax.map, one),
                   out_shardings=self._replicated)
    return make(state)

  @functools.cached_property
  def _orders(self) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """`(keys, epoch) -> ` which examples, integers (steps, seeds, batch)."""
    batch, steps = self._config.batch_size, self.steps_per_epoch
    count = len(self._train[0])

    def order(key: jax.Array, epoch: jax.Array) -> jax.Array:
      examples = jax.random.permutation(jax.random.fold_in(key, epoch), count)
      return examples[:steps * batch].reshape(steps, batch)

    return jax.jit(jax.vmap(order, (0, None), out_axes=1),
                   out_shardings=self._replicated)

  def _steps(
      self, optimizer: optax.GradientTransformation, state: State,
      epoch: jax.Array, first: jax.Array, orders: jax.Array, images: jax.Array,
      labels: jax.Array,
  ) -> tuple[State, tuple[jax.Array, jax.Array]]:
    """Takes the steps of a call, from step `first` of the epoch on."""

    def loss_fn(params: Any, model_state: Any, x: Any, y: Any) -> Any:
      logits, model_state = self._apply(
          params, model_state, x, mutable=self._collections, train=True)
      logits = logits.astype(jnp.float32)
      losses = _cross_entropy(logits, y, self._config.label_smoothing)
      labels = y.first if isinstance(y, augment.Labels) else y
      accuracy = (logits.argmax(-1) == labels).mean()
      return losses.mean(), (accuracy, model_state)

    def update(carry: Any, masks: Any, x: Any, y: Any) -> Any:
      params, model_state, opt_state = carry
      (loss, (accuracy, model_state)), grads = jax.value_and_grad(
          loss_fn, has_aux=True)(params, model_state, x, y)
      updates, opt_state = optimizer.update(grads, opt_state, params)
      updates, _ = si.masks.keep_masked(masks).update(
          updates, optax.EmptyState(), params)
      params = optax.apply_updates(params, updates)
      return (params, model_state, opt_state), (loss, accuracy)

    def change(
        key: jax.Array, index: jax.Array, x: jax.Array, y: jax.Array
    ) -> tuple[jax.Array, Any]:
      if self._augment is None:
        return x, y
      key = jax.random.fold_in(key, _AUGMENT_STREAM)
      key = jax.random.fold_in(jax.random.fold_in(key, epoch), index)
      return self._augment(key, x, y)

    def step(carry: Any, index: jax.Array) -> Any:
      examples = orders[index]
      x = jax.lax.with_sharding_constraint(images[examples], self._by_example)
      y = jax.lax.with_sharding_constraint(labels[examples], self._by_example)
      x, y = jax.vmap(change, (0, None, 0, 0))(state.key, index, x, y)
      return jax.vmap(update)(carry, state.masks, self._normalise(x), y)

    carry = state.params, state.model_state, state.opt_state
    if self._config.scan_steps:
      carry, measured = jax.lax.scan(
          step, carry, first + jnp.arange(self._steps_per_call))
    else:
      carry, measured = step(carry, first)
      measured = jax.tree.map(lambda x: x[None], measured)
    params, model_state, opt_state = carry
    return state._replace(
        params=params, model_state=model_state, opt_state=opt_state), measured

  def compile_epoch(
      self, recipe: initializers.Recipe, state: State
  ) -> tuple[jax.stages.Compiled, float]:
    """Compiles steps of training for this many seeds, once.

    Args:
      recipe: the initializer (what it freezes is part of the program).
      state: a state; only its shapes matter.

    Returns:
      The program, for `train_epoch`, and the seconds it took to compile.
    """
    leaves, treedef = jax.tree.flatten(state)
    key = (recipe.frozen, str(recipe.subspace), treedef,
           *((x.shape, x.dtype) for x in leaves))
    if key not in self._compiled:
      start = time.perf_counter()
      optimizer = self._make_optimizer(recipe, jax.random.key(0))
      program = jax.jit(
          functools.partial(self._steps, optimizer), donate_argnums=0,
          in_shardings=self._replicated, out_shardings=self._replicated)
      zero = np.int32(0)
      orders = jax.eval_shape(self._orders, state.key, zero)
      compiled = program.lower(
          state, zero, zero, orders, *self._train).compile()
      self._compiled[key] = compiled, time.perf_counter() - start
    return self._compiled[key]

  def train_epoch(
      self, program: jax.stages.Compiled, state: State, epoch: int
  ) -> tuple[State, tuple[jax.Array, jax.Array]]:
    """Trains every seed for one epoch.

    Args:
      program: from `compile_epoch`.
      state: the state; its buffers are reused, so it is gone afterwards.
      epoch: index of the epoch, from 0.

    Returns:
      The next state, and the mean training `(loss, accuracy)` of every seed.
    """
    now: Any = np.int32(epoch)
    orders = self._orders(state.key, now)
    measured = []
    for first in range(0, self.steps_per_epoch, self._steps_per_call):
      state, some = program(
          state, now, np.int32(first), orders, *self._train)
      # On a CPU, collectives of several programs in flight block each other.
      measured.append(jax.block_until_ready(some))
    loss, accuracy = (
        jnp.concatenate(x).mean(0) for x in zip(*measured, strict=True))
    return state, (loss, accuracy)

  def seeds_that_fit(self, recipe: initializers.Recipe, wanted: int) -> int:
    """Returns how many seeds to train at once, by the program's memory use.

    Args:
      recipe: the initializer.
      wanted: at most this many.

    Returns:
      `wanted`, halved until the compiled epoch fits half a device's memory.
    """
    limit = _MEMORY_SHARE * _device_memory()
    while wanted > 1:
      state = jax.eval_shape(lambda n=wanted: self.init(recipe, range(n)))
      memory = self.compile_epoch(recipe, state)[0].memory_analysis()
      if memory is None or (memory.temp_size_in_bytes
                            + memory.argument_size_in_bytes) <= limit:
        break
      wanted = math.ceil(wanted / 2)
    return wanted

  @functools.cached_property
  def _evaluate(self) -> Callable[..., Evaluation]:

    def one_batch(
        params: Any, model_state: Any, batch: Any) -> tuple[Any, Any]:
      images, labels, weights = batch
      logits, variables = self._apply(
          params, model_state, self._normalise(images),
          mutable=['intermediates'])
      logits = logits.astype(jnp.float32)
      losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
      correct = logits.argmax(-1) == labels
      # Padding repeats real examples, so it silences and wakes no unit.
      dead = jax.tree.map(
          si.diagnostics.dead_units, variables.get('intermediates', {}))
      return (weights @ losses, weights @ correct.astype(jnp.float32)), dead

    def one_seed(params: Any, model_state: Any, batches: Any) -> Evaluation:
      (loss, correct), dead = jax.lax.map(
          functools.partial(one_batch, params, model_state), batches)
      total = batches[2].sum()
      dead = [leaf.all(0).sum() for leaf in jax.tree.leaves(dead)]
      return Evaluation(loss.sum() / total, correct.sum() / total,
                        sum(dead, jnp.int32(0)))

    return jax.jit(jax.vmap(one_seed, (0, 0, None)),
                   out_shardings=self._replicated)

  def evaluate(self, state: State) -> Evaluation:
    """Measures every seed on the test set.

    Args:
      state: a training state.

    Returns:
      An Evaluation.
    """
    return self._evaluate(state.params, state.model_state, self._test)


def _cross_entropy(
    logits: jax.Array, labels: Any, smoothing: float) -> jax.Array:
  """Returns the loss of every example, in nats.

  Args:
    logits: array (batch, classes).
    labels: integers (batch,), or what an augmentation makes of them.
    smoothing: the share of the uniform distribution in what is wanted.

  Returns:
    Array (batch,).
  """
  loss = optax.softmax_cross_entropy_with_integer_labels
  if isinstance(labels, augment.Labels):
    found = (labels.weight * loss(logits, labels.first)
             + (1 - labels.weight) * loss(logits, labels.second))
  else:
    found = loss(logits, labels)
  if smoothing:
    uniform = -jax.nn.log_softmax(logits).mean(-1)
    found = (1 - smoothing) * found + smoothing * uniform
  return found


def _batches(dataset: data.Dataset, num_devices: int) -> tuple[Any, ...]:
  """Cuts the test set into equal batches; repeated examples get weight 0."""
  total = len(dataset.test_images)
  size = min(_EVAL_BATCH, total)
  size = math.ceil(size / num_devices) * num_devices
  count = math.ceil(total / size)
  index = jnp.arange(count * size)
  weights = (index < total).astype(jnp.float32).reshape(count, size)
  rows = (index % total).reshape(count, size)
  return dataset.test_images[rows], dataset.test_labels[rows], weights


def _device_memory() -> int:
  """Returns the bytes one device can use."""
  device = jax.local_devices()[0]
  stats = device.memory_stats() if device.platform != 'cpu' else None
  if stats and 'bytes_limit' in stats:
    return stats['bytes_limit']
  return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
