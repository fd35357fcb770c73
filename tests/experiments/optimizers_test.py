"""Optimizers and schedules against their formulas, in plain numpy."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from experiments import optimizers
from experiments import registry

START = np.array([1.0, -2.0, 0.5])
GRADS = np.array([[0.3, -0.1, 2.0], [-0.2, 0.4, 1.0], [0.1, 0.1, -3.0],
                  [0.0, -1.0, 0.2], [0.5, 0.2, 0.3]])
RATE = 0.1


def _config(**fields):
  return ml_collections.ConfigDict({
      'optimizer': 'sgd(momentum=0.0)', 'schedule': 'constant',
      'learning_rate': RATE, 'weight_decay': 0.0,
      'frobenius_decay': 0.0, 'epochs': 1, **fields})


def _run(steps_per_epoch=5, grads=GRADS, **fields):
  """Returns the parameters after every step."""
  optimizer = optimizers.make(_config(**fields), steps_per_epoch)

  def step(carry, grad):
    params, state = carry
    updates, state = optimizer.update(grad, state, params)
    return (params + updates, state), params + updates

  # Optax counts steps in int32 and multiplies by Python floats.
  with jax.numpy_dtype_promotion('standard'):
    params = jnp.asarray(START, jnp.float32)
    _, out = jax.jit(lambda grads: jax.lax.scan(
        step, (params, optimizer.init(params)), grads))(
            jnp.asarray(grads, jnp.float32))
  return np.asarray(out, np.float64)


def _sgd(grad, memory, momentum=0.9, nesterov=False):
  memory['v'] = grad + momentum * memory.get('v', 0)
  return grad + momentum * memory['v'] if nesterov else memory['v']


def _adam(grad, memory, b1=0.9, b2=0.999, eps=1e-8):
  t = memory['t'] = memory.get('t', 0) + 1
  memory['m'] = b1 * memory.get('m', 0) + (1 - b1) * grad
  memory['v'] = b2 * memory.get('v', 0) + (1 - b2) * grad**2
  mean, square = memory['m'] / (1 - b1**t), memory['v'] / (1 - b2**t)
  return mean / (np.sqrt(square) + eps)


def _adadelta(grad, memory, rho=0.9, eps=1e-6):
  memory['g'] = rho * memory.get('g', 0) + (1 - rho) * grad**2
  step = grad * np.sqrt(memory.get('d', 0) + eps) / np.sqrt(memory['g'] + eps)
  memory['d'] = rho * memory.get('d', 0) + (1 - rho) * step**2
  return step


def _expected(rule, decay=0.0, rates=None, **options):
  params, memory, out = START.copy(), {}, []
  for t, grad in enumerate(GRADS):
    rate = RATE if rates is None else rates[t]
    params = params - rate * rule(grad + decay * params, memory, **options)
    out.append(params)
  return np.array(out)


@pytest.mark.parametrize('decay', [0.0, 0.3])
@pytest.mark.parametrize('expression, rule, options', [
    ('sgd', _sgd, {}),
    ('sgd(momentum=0.9)', _sgd, {}),
    ('sgd(momentum=0.0)', _sgd, {'momentum': 0.0}),
    ('sgd(momentum=0)', _sgd, {'momentum': 0.0}),
    ('sgd(momentum=0.5, nesterov=True)', _sgd,
     {'momentum': 0.5, 'nesterov': True}),
    ('adam', _adam, {}),
    ('adam(b1=0.5, b2=0.9)', _adam, {'b1': 0.5, 'b2': 0.9}),
    ('adadelta', _adadelta, {}),
    ('adadelta(rho=0.5)', _adadelta, {'rho': 0.5}),
])
def test_optimizers(expression, rule, options, decay):
  got = _run(optimizer=expression, weight_decay=decay)
  np.testing.assert_allclose(
      got, _expected(rule, decay, **options), rtol=1e-4, atol=1e-5)


def test_frobenius_decay_is_of_the_product():
  params = {'hidden': {'u': jnp.array([[1.], [2.]]), 'v': jnp.array([[3.]])},
            'bias': jnp.array([4.])}
  optimizer = optimizers.make(_config(frobenius_decay=0.1), 1)
  zeros = jax.tree.map(jnp.zeros_like, params)
  with jax.numpy_dtype_promotion('standard'):
    updates, _ = optimizer.update(zeros, optimizer.init(params), params)
  want = {'hidden': {'u': [[-.09], [-.18]], 'v': [[-.15]]}, 'bias': [-.04]}
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5),
               updates, jax.tree.map(jnp.array, want,
                                     is_leaf=lambda x: isinstance(x, list)))
  with pytest.raises(ValueError, match=r'give one of weight_decay=0\.2'):
    optimizers.make(_config(frobenius_decay=0.1, weight_decay=0.2), 1)


def _rates(steps, **fields):
  """Returns the learning rate of every step."""
  grads = np.ones((steps, len(START)))
  params = _run(grads=grads, **fields)
  return -np.diff(np.concatenate([START[None], params]), axis=0)[:, 0]


def test_constant():
  np.testing.assert_allclose(_rates(7), RATE, rtol=1e-5)


@pytest.mark.parametrize('options, every, factor', [
    ('', 10, 10**-0.5), ('(every=2, factor=0.5)', 2, 0.5),
    ('(every=1)', 1, 10**-0.5)])
def test_step_counts_epochs(options, every, factor):
  steps = 3
  got = _rates(steps * every * 3, steps_per_epoch=steps,
               schedule='step' + options, epochs=every * 3)
  want = RATE * factor ** (np.arange(len(got)) // (steps * every))
  np.testing.assert_allclose(got, want, rtol=1e-3)


def test_cosine_ends_at_zero():
  epochs, steps = 4, 5
  got = _rates(epochs * steps, steps_per_epoch=steps, schedule='cosine',
               epochs=epochs)
  t = np.arange(epochs * steps)
  want = RATE * (1 + np.cos(np.pi * t / (epochs * steps))) / 2
  np.testing.assert_allclose(got, want, atol=1e-6)
  assert got[-1] < 0.01 * RATE


def test_every_optimizer_follows_the_schedule():
  steps = np.arange(len(GRADS))
  rates = RATE * 0.5**steps
  for expression, rule in (
      ('sgd', _sgd), ('adam', _adam), ('adadelta', _adadelta)):
    got = _run(1, optimizer=expression, schedule='step(every=1, factor=0.5)',
               epochs=5)
    np.testing.assert_allclose(
        got, _expected(rule, rates=rates), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('fields, message', [
    ({'optimizer': 'sdg'}, "did you mean 'sgd'"),
    ({'schedule': 'steps'}, "did you mean 'step'"),
    ({'optimizer': 'sgd(learning_rate=1.0)'}, 'learning_rate'),
    ({'schedule': 'step(10)'}, 'is not a name or a call'),
])
def test_mistakes_are_named(fields, message):
  with pytest.raises(ValueError, match=message):
    optimizers.make(_config(**fields), 5)


def test_multistep_multiplies_at_its_epochs():
  schedule = registry.SCHEDULES.build(
      'multistep(at=(2, 3), factor=0.1)', 0.5, 80, 20)
  for step, want in ((0, 0.5), (39, 0.5), (41, 0.05), (61, 0.005)):
    assert float(schedule(step)) == pytest.approx(want)


def test_cosine_warms_up_and_ends():
  schedule = registry.SCHEDULES.build(
      'cosine(warmup=1, final=0.001)', 0.1, 100, 20)
  for step in (0, 7, 19, 20, 33, 60, 99, 100, 120):
    done = min(1.0, (step - 20) / 80)
    want = 0.1 * step / 20 if step < 20 else 0.001 + (
        0.1 - 0.001) * (1 + np.cos(np.pi * done)) / 2
    assert float(schedule(step)) == pytest.approx(want, rel=1e-4, abs=1e-9)


@pytest.mark.parametrize('schedule, message', [
    ('multistep(at=(0,))', 'epochs from 1 on'),
    ('multistep(at=(1,), factor=0.0)', 'factor=0.0 positive'),
    ('cosine(warmup=5)', 'fewer epochs than all'),
    ('cosine(final=1.0)', 'between 0 and the learning rate')])
def test_schedules_that_make_no_sense_are_refused(schedule, message):
  with pytest.raises(ValueError, match=message):
    registry.SCHEDULES.build(schedule, 0.1, 100, 20)
