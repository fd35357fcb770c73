"""Checkpoints give back what they were given."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import checkpoint
from experiments import initializers
from experiments import results
from experiments import sweep
from experiments import train


@pytest.fixture(scope='module')
def state(make_config, digits):
  """A state after an epoch, on eight devices, with a mask."""
  trainer = train.Trainer(make_config(), digits)
  _, recipe = initializers.make('he_normal')
  state = trainer.init(recipe, [0, 1])
  program, _ = trainer.compile_epoch(recipe, state)
  state, _ = trainer.train_epoch(program, state, 0)
  masks = dict(state.masks)
  kernel = state.params['stem']['kernel']
  masks['stem'] = {**masks['stem'], 'kernel': kernel > 0}
  return state._replace(masks=masks)


def _same(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    assert x.dtype == y.dtype
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
      x, y = jax.random.key_data(x), jax.random.key_data(y)
    np.testing.assert_array_equal(x, y)


HISTORY = {'curves': [{'train_loss': None, 'test_loss': [0.1 + 0.2, None]}],
           'seconds': 1.25}


def test_a_state_comes_back(state, tmp_path):
  saved = checkpoint.RunCheckpoint(tmp_path / 'a' / 'b')
  saved.save(1, state, HISTORY)
  again = checkpoint.RunCheckpoint(tmp_path / 'a' / 'b')
  epoch, restored, history = again.restore(state)
  assert (epoch, history) == (1, HISTORY)
  assert isinstance(restored, train.State)
  _same(restored, state)
  for x, y in zip(
      jax.tree.leaves(restored), jax.tree.leaves(state), strict=True):
    assert x.sharding.is_equivalent_to(y.sharding, x.ndim)
  for one in (saved, again):
    one.delete()
  assert not (tmp_path / 'a' / 'b').exists()


def test_the_last_state_is_kept(state, tmp_path):
  saved = checkpoint.RunCheckpoint(tmp_path / 'run')
  zeros = state._replace(params=jax.tree.map(jnp.zeros_like, state.params))
  saved.save(1, state, HISTORY)
  saved.save(4, zeros, {})
  epoch, restored, history = saved.restore(state)
  assert (epoch, history) == (4, {})
  _same(restored, zeros)
  steps = [p.name for p in (tmp_path / 'run').iterdir() if p.name.isdigit()]
  assert steps == ['4']
  saved.delete()


def test_nothing_saved_is_nothing_restored(state, tmp_path):
  saved = checkpoint.RunCheckpoint(tmp_path / 'none')
  assert saved.restore(state) is None
  assert not (tmp_path / 'none').exists()
  saved.delete()
  (tmp_path / 'empty').mkdir()
  saved = checkpoint.RunCheckpoint(tmp_path / 'empty')
  assert saved.restore(state) is None
  saved.delete()


def test_a_save_that_broke_off_does_not_count(state, tmp_path):
  saved = checkpoint.RunCheckpoint(tmp_path / 'run')
  saved.save(1, state, HISTORY)
  broken = tmp_path / 'run' / '2.orbax-checkpoint-tmp-0'
  (broken / 'state').mkdir(parents=True)
  again = checkpoint.RunCheckpoint(tmp_path / 'run')
  epoch, restored, _ = again.restore(state)
  assert epoch == 1
  _same(restored, state)
  again.save(2, state, {})
  assert again.restore(state)[0] == 2
  for one in (saved, again):
    one.delete()
  assert not (tmp_path / 'run').exists()


def test_a_relative_path_will_do(state, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  saved = checkpoint.RunCheckpoint(tmp_path.__class__('here'))
  saved.save(1, state, {})
  assert saved.restore(state)[0] == 1
  saved.delete()
  checkpoint.save_params(tmp_path.__class__('params'), state.params)
  _same(checkpoint.load_params(tmp_path.__class__('params')),
        jax.tree.map(np.asarray, state.params))


def test_params_come_back_as_numpy(state, tmp_path):
  checkpoint.save_params(tmp_path / 'params', state.params)
  loaded = checkpoint.load_params(tmp_path / 'params')
  assert all(type(leaf) is np.ndarray for leaf in jax.tree.leaves(loaded))
  _same(loaded, jax.tree.map(np.asarray, state.params))


def test_params_are_replaced(state, tmp_path):
  checkpoint.save_params(tmp_path / 'params', state.params)
  twice = jax.tree.map(lambda x: 2 * x, state.params)
  checkpoint.save_params(tmp_path / 'params', twice)
  _same(checkpoint.load_params(tmp_path / 'params'),
        jax.tree.map(np.asarray, twice))


def test_every_record_finds_its_params(make_config, digits, tmp_path):
  config = make_config(
      seeds=3, initializers=('a/b = he_normal',), baseline='a/b')
  records = sweep.compare(config, tmp_path)
  assert [(r['seed'], r['params_index']) for r in records] == [
      (0, 0), (1, 1), (2, 0)]
  mean, std = digits.statistics()
  x = (digits.test_images / 16 - mean) / np.where(std > 0, std, 1)
  x = x.reshape(len(x), -1)
  for record in records:
    params = jax.tree.map(
        lambda leaf, i=record['params_index']: leaf[i],
        checkpoint.load_params(tmp_path / record['params']))
    name = results.kernel_file('a/b', record['seed'])
    with np.load(tmp_path / name) as kernels:
      np.testing.assert_array_equal(
          params['stem']['kernel'], kernels['after'])
    hidden = np.maximum(
        x @ params['stem']['kernel'] + params['stem']['bias'], 0)
    logits = hidden @ params['head']['kernel'] + params['head']['bias']
    accuracy = (logits.argmax(-1) == digits.test_labels).mean()
    assert accuracy == pytest.approx(record['final_accuracy'], abs=0.003)
