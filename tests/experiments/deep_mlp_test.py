"""The deep perceptrons of the thesis, and the recipes of sparse training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import checkpoint
from experiments import models
from experiments import registry
from experiments import sweep
import structinit_jax as si

KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(1), (3, 4, 4, 1))
OPTIONS = {'num_classes': 5, 'depth': 4, 'widths': (24, 16)}
ACTIVATIONS = {
    'tanh': np.tanh, 'linear': lambda x: x, 'relu': lambda x: np.maximum(x, 0),
    'silu': lambda x: x / (1 + np.exp(-x)),
    'crelu': lambda x: np.maximum(np.concatenate([x, -x], -1), 0)}


def _make(expression, model, key=KEY):
  """Returns the parameters, the masks and the recipe."""
  shapes = jax.eval_shape(model.init, KEY, X)['params']
  recipe = registry.INITIALIZERS.build(expression)
  init_fn, _ = recipe.build(shapes)

  @jax.jit
  def make(key):
    params, aux = init_fn.init_with_aux(key, shapes)
    return params, jax.tree.map(jnp.asarray, aux['masks'])

  return *make(key), recipe


def _unrolled(params, activation, skip=False):
  h = np.asarray(X, np.float64).reshape(3, -1)
  for name in ('stem', 'dense_1'):
    h = activation(h @ params[name]['kernel'] + params[name]['bias'])
  for kernel, bias in zip(*params['hidden'].values(), strict=True):
    h = activation(h @ kernel + bias + (h if skip else 0))
  return h @ params['head']['kernel'] + params['head']['bias']


@pytest.mark.parametrize('activation, skip', [
    *((name, False) for name in ACTIVATIONS), ('tanh', True)])
def test_the_stack_is_its_layers_one_after_another(activation, skip):
  model = models.DeepMLP(**OPTIONS, activation=activation, skip=skip)
  params = model.init(KEY, X)['params']
  params = jax.tree.map(
      lambda x: np.random.default_rng(x.size).normal(0, 0.4, x.shape), params)
  assert params['hidden']['kernel'].shape == (
      3, 32 if activation == 'crelu' else 16, 16)
  y = model.apply({'params': jax.tree.map(jnp.float32, params)}, X)
  np.testing.assert_allclose(y, _unrolled(
      {name: dict(sorted(leaf.items(), reverse=True))
       for name, leaf in params.items()}, ACTIVATIONS[activation], skip),
      rtol=1e-4, atol=1e-5)


def test_mlp_7():
  """Table 3.3: 1024-100, five of 100-100, 100-10."""
  model = models.DeepMLP(10, depth=6, widths=(100,))
  shapes = jax.eval_shape(model.init, KEY, jnp.zeros((1, 32, 32, 1)))['params']
  assert sum(x.size for x in jax.tree.leaves(shapes)) == (
      1024 * 100 + 5 * 100 * 100 + 100 * 10 + 6 * 100 + 10)


@pytest.mark.parametrize('looks_linear', [False, True])
def test_a_stack_of_nonzeros_is_a_masked_stack(looks_linear):
  activation = 'crelu' if looks_linear else 'tanh'
  sparse = models.DeepMLP(**OPTIONS, activation=activation, degree=4)
  dense = models.DeepMLP(**OPTIONS, activation=activation)
  recipe = f'sao(degree=4, looks_linear={looks_linear})'
  params, _, _ = _make(recipe, sparse)
  layer = si.layers.SAOStack(
      3, 16, 4, jnp.tanh, looks_linear=looks_linear)
  hidden = layer.to_dense(params['hidden'])
  _, masks, _ = _make(recipe, dense)
  np.testing.assert_array_equal(
      hidden['kernel'] != 0, masks['hidden']['kernel'])
  np.testing.assert_allclose(
      dense.apply({'params': {**params, 'hidden': hidden}}, X),
      sparse.apply({'params': params}, X), atol=1e-5)


@pytest.mark.parametrize('fields, message', [
    ({'activation': 'gelu'}, "'gelu' is unknown; use one of crelu"),
    ({'depth': 1}, 'depth=1 must be at least 2'),
    ({'widths': ()}, 'at least one layer'),
    ({'skip': True, 'degree': 4}, 'leave degree out'),
    ({'skip': True, 'activation': 'crelu'}, 'keeps the number of features')])
def test_models_that_make_no_sense_are_refused(fields, message):
  with pytest.raises(ValueError, match=message):
    models.DeepMLP(**{**OPTIONS, **fields}).init(KEY, X)


@pytest.mark.parametrize('recipe', [
    'sao(degree=4, gain=1.1)', "sao(density=0.25, kind='random', gain=1.1)",
    "sao(degree=4, kind='thesis', shared=True, gain=1.1)",
    "sao(degree=4, kind='thesis', tied=True, gain=1.1)",
    'sao(degree=4, looks_linear=True, gain=1.1)'])
def test_sao_is_sparse_and_orthogonal_but_for_the_ends(recipe):
  looks_linear = 'looks_linear' in recipe
  model = models.DeepMLP(
      **OPTIONS, activation='crelu' if looks_linear else 'tanh')
  params, masks, _ = _make(recipe, model)
  gain = 1.1 * (2**0.5 if looks_linear else 1)
  kernels = [*params['hidden']['kernel'], params['dense_1']['kernel']]
  for kernel in kernels:
    np.testing.assert_allclose(np.linalg.svd(
        np.float64(kernel), compute_uv=False), gain, rtol=1e-6)
    side = kernel[:len(kernel) // 2] if looks_linear else kernel
    share = 0.25 if 'density' in recipe else 4 / len(side)
    assert (side != 0).mean() == pytest.approx(share)
  np.testing.assert_array_equal(
      params['hidden']['kernel'] != 0, masks['hidden']['kernel'])
  for name in ('stem', 'head'):
    assert (params[name]['kernel'] != 0).all()
    assert masks[name]['kernel'].all()
    np.testing.assert_allclose(np.linalg.svd(
        np.float64(params[name]['kernel']), compute_uv=False), 1.1, rtol=1e-5)
  structures = {np.asarray(x).tobytes() for x in masks['hidden']['kernel']}
  one = 'shared' in recipe or 'kind' not in recipe
  assert len(structures) == (1 if one else 3)


@pytest.mark.parametrize('name', ['lmp', 'gmp', 'lrp', 'eoi'])
def test_pruned_networks_keep_what_was_asked_for(name):
  params, masks, _ = _make(
      f'{name}(density=0.25)', models.DeepMLP(**OPTIONS))
  kernels = {'hidden': params['hidden']['kernel'],
             'dense_1': params['dense_1']['kernel'][None]}
  for layer, kernel in kernels.items():
    np.testing.assert_array_equal(
        (kernel != 0).reshape(masks[layer]['kernel'].shape),
        masks[layer]['kernel'])
  kept = {name: (x != 0).sum((-2, -1)).tolist() for name, x in kernels.items()}
  if name in ('lmp', 'lrp'):
    assert kept == {'hidden': [64] * 3, 'dense_1': [96]}
  else:
    total = sum(kept['hidden'] + kept['dense_1'])
    assert total == 288 if name == 'gmp' else abs(total - 288) <= 4 * 8
  assert (params['stem']['kernel'] != 0).all()


def test_mirrored_rotations_are_a_matrix_and_its_negative():
  model = models.DeepMLP(**OPTIONS, activation='crelu')
  params, masks, _ = _make('eoi(density=0.25, looks_linear=True)', model)
  for layer in ('hidden', 'dense_1'):
    kernel = params[layer]['kernel']
    q, minus = jnp.split(kernel, 2, -2)
    np.testing.assert_array_equal(q, -minus)
    np.testing.assert_array_equal(kernel != 0, masks[layer]['kernel'])
    np.testing.assert_allclose(
        np.linalg.svd(np.float64(q), compute_uv=False), 1, rtol=1e-5)


def test_the_rivals_of_sao_have_its_mask():
  model = models.DeepMLP(**OPTIONS)
  _, masks, _ = _make("sao(degree=4, kind='random')", model)
  for recipe in ('rg', 'rg_normal', 'rg_uniform'):
    _, own, _ = _make(f"{recipe}(degree=4, kind='random')", model)
    jax.tree.map(np.testing.assert_array_equal, own, masks)
  raw, _, _ = _make('rg_normal(degree=4)', model)
  fair, _, _ = _make("rg_normal(degree=4, scale='fan_in')", model)
  np.testing.assert_allclose(
      raw['hidden']['kernel'], 2 * fair['hidden']['kernel'], rtol=1e-6)


@pytest.mark.parametrize('expression, kept', [
    ('lmp(density=0.25, trained=True)', 288),
    ('gmp(density=0.25, trained=True)', 288),
    ('lrp(density=0.25, trained=True)', 288),
    ('rg(degree=4, trained=True)', 256)])
def test_pruning_after_training_starts_dense(expression, kept):
  params, masks, recipe = _make(expression, models.DeepMLP(**OPTIONS))
  assert all(x.all() for x in jax.tree.leaves(masks))
  later = recipe.masks(KEY, params)
  for name in ('stem', 'head'):
    assert np.all(later[name]['kernel'])
  assert sum(int(later[name]['kernel'].sum())
             for name in ('hidden', 'dense_1')) == kept


def test_a_model_pruned_after_training_is_trained_on(make_config, tmp_path):
  """Twice the epochs; removed weights are 0 at the end, others are not."""
  records = sweep.compare(make_config(
      model='deep_mlp(depth=3, widths=(16,))', epochs=2, seeds=1,
      learning_rate=0.1, weight_decay=1e-4, baseline='dense',
      initializers=(
          'dense = sao(density=1.0)', 'T = lmp(density=0.25, trained=True)',
          'S = lmp(density=0.25)')), tmp_path)
  lengths = {r['initializer']: len(r['curves']['test_loss']) for r in records}
  assert lengths == {'dense': 3, 'T': 5, 'S': 3}
  own = {r['initializer']: r for r in records}
  for label in ('S', 'T'):
    kernel = checkpoint.load_params(
        tmp_path / own[label]['params'])['hidden']['kernel'][0]
    assert (kernel != 0).sum((1, 2)).tolist() == [64, 64]
  # Until it is pruned, it is the dense network.
  np.testing.assert_allclose(
      own['T']['curves']['test_loss'][:3], own['dense']['curves']['test_loss'],
      rtol=1e-4)


def test_ten_thousand_layers_are_an_isometry_of_what_comes_in():
  """One program, whatever the depth; h -> [relu(h), relu(-h)] keeps norms."""
  model = models.DeepMLP(
      5, depth=10_000, widths=(16,), activation='crelu', degree=4)
  params, _, _ = _make('sao(degree=4, looks_linear=True)', model)
  stack = si.layers.SAOStack(
      9999, 16, 4, si.layers.crelu, looks_linear=True)
  h = si.layers.crelu(jax.random.normal(KEY, (8, 16)))
  y = jax.jit(stack.apply)({'params': params['hidden']}, h)
  np.testing.assert_allclose(
      jnp.linalg.norm(y, axis=1), jnp.linalg.norm(h, axis=1), rtol=1e-3)
