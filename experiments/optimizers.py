"""Optimizers and learning-rate schedules, as the papers use them.

Weight decay is the L2 penalty of the papers (and of PyTorch's optimizers):
`weight_decay * params` joins the gradient before the optimizer sees it.
"""

from typing import Any

import optax

from experiments import registry

__all__ = ['make']


def _sgd(learning_rate: Any, momentum: float = 0.9,
         nesterov: bool = False) -> optax.GradientTransformation:
  return optax.sgd(learning_rate, momentum=momentum or None, nesterov=nesterov)


def _constant(peak: float, total: int, epoch: int) -> optax.Schedule:
  del total, epoch
  return optax.constant_schedule(peak)


def _step(peak: float, total: int, epoch: int, every: int = 10,
          factor: float = 10**-0.5) -> optax.Schedule:
  del total
  if every < 1 or not 0 < factor < float('inf'):
    raise ValueError(
        f'schedule step: every={every} must be at least 1 (epoch) and '
        f'factor={factor} positive')
  return optax.exponential_decay(
      peak, transition_steps=every * epoch, decay_rate=factor, staircase=True)


def _cosine(peak: float, total: int, epoch: int) -> optax.Schedule:
  del epoch
  return optax.cosine_decay_schedule(peak, total)


registry.OPTIMIZERS['sgd'] = _sgd
registry.OPTIMIZERS['adam'] = optax.adam
registry.OPTIMIZERS['adadelta'] = optax.adadelta
registry.SCHEDULES['constant'] = _constant
registry.SCHEDULES['step'] = _step
registry.SCHEDULES['cosine'] = _cosine


def make(
    config: Any, steps_per_epoch: int) -> optax.GradientTransformation:
  """Builds the optimizer that a config names.

  Args:
    config: with `optimizer`, `schedule`, `learning_rate`, `weight_decay` and
      `epochs`.
    steps_per_epoch: optimizer steps in an epoch.

  Returns:
    A gradient transformation.
  """
  schedule = registry.SCHEDULES.build(
      config.schedule, config.learning_rate, steps_per_epoch * config.epochs,
      steps_per_epoch)
  optimizer = registry.OPTIMIZERS.build(config.optimizer, schedule)
  if config.weight_decay:
    optimizer = optax.chain(
        optax.add_decayed_weights(config.weight_decay), optimizer)
  return optimizer
