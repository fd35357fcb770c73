"""Optimizers and learning-rate schedules, as the papers use them.

Weight decay is the L2 penalty of the papers (and of PyTorch's optimizers):
`weight_decay * params` joins the gradient before the optimizer sees it.
`frobenius_decay` is the same, but that of two factors is their product's.
"""

from collections.abc import Sequence
from typing import Any

import optax

from experiments import registry
import structinit_jax as si

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


def _multistep(peak: float, total: int, epoch: int, at: Sequence[int],
               factor: float = 0.1) -> optax.Schedule:
  del total
  if not 0 < factor < float('inf') or min(at, default=1) < 1:
    raise ValueError(
        f'schedule multistep: at={at} must be epochs from 1 on and '
        f'factor={factor} positive')
  return optax.piecewise_constant_schedule(
      peak, {when * epoch: factor for when in at})


def _cosine(peak: float, total: int, epoch: int, warmup: int = 0,
            final: float = 0.0) -> optax.Schedule:
  if not 0 <= warmup * epoch < total or not 0 <= final <= peak:
    raise ValueError(
        f'schedule cosine: warmup={warmup} must be fewer epochs than all, and '
        f'final={final} lie between 0 and the learning rate {peak}')
  start = warmup * epoch
  cosine = optax.cosine_decay_schedule(
      peak, total - start, final / peak if peak else 0.0)
  if not start:
    return cosine
  return optax.join_schedules(
      [optax.linear_schedule(0.0, peak, start), cosine], [start])


registry.OPTIMIZERS['sgd'] = _sgd
registry.OPTIMIZERS['adam'] = optax.adam
registry.OPTIMIZERS['adadelta'] = optax.adadelta
registry.SCHEDULES['constant'] = _constant
registry.SCHEDULES['step'] = _step
registry.SCHEDULES['multistep'] = _multistep
registry.SCHEDULES['cosine'] = _cosine


def make(
    config: Any, steps_per_epoch: int) -> optax.GradientTransformation:
  """Builds the optimizer that a config names.

  Args:
    config: with `optimizer`, `schedule`, `learning_rate`, `weight_decay`,
      `frobenius_decay` and `epochs`.
    steps_per_epoch: optimizer steps in an epoch.

  Returns:
    A gradient transformation.
  """
  schedule = registry.SCHEDULES.build(
      config.schedule, config.learning_rate, steps_per_epoch * config.epochs,
      steps_per_epoch)
  optimizer = registry.OPTIMIZERS.build(config.optimizer, schedule)
  if config.frobenius_decay:
    if config.weight_decay:
      raise ValueError(
          f'give one of weight_decay={config.weight_decay} and '
          f'frobenius_decay={config.frobenius_decay}')
    return optax.chain(si.lowrank.frobenius_decay(
        config.frobenius_decay, rest=config.frobenius_decay), optimizer)
  if config.weight_decay:
    optimizer = optax.chain(
        optax.add_decayed_weights(config.weight_decay), optimizer)
  return optimizer
