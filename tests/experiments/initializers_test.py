"""The recipes that a config can name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import initializers
from experiments import models
from experiments import registry
import structinit_jax as si

PLAIN = ('glorot_normal', 'glorot_uniform', 'he_normal', 'he_uniform',
         'lecun_normal', 'orthogonal')


def _shapes(model, shape):
  return jax.eval_shape(
      model.init, jax.random.key(0), jnp.zeros((1, *shape)))['params']


@pytest.fixture(scope='module')
def cnn():
  return _shapes(models.ShallowCNN(10, (9, 12), (2, 1)), (8, 8, 1))


@pytest.fixture(scope='module')
def mlp():
  return _shapes(models.MLP(10, (16, 16)), (8, 8, 1))


def _build(expression, shapes):
  init_fn, labels = registry.INITIALIZERS.build(expression).build(shapes)
  make = jax.jit(lambda key: init_fn(key, shapes))
  return make(jax.random.key(0)), labels


def _check_like(params, shapes):
  assert jax.tree.structure(params) == jax.tree.structure(shapes)
  jax.tree.map(lambda p, s: np.testing.assert_equal(
      (p.shape, p.dtype), (s.shape, s.dtype)), params, shapes)


@pytest.mark.parametrize('expression', [
    'he_normal', 'grassmann', 'delta_orthogonal', 'simplex_head',
    "tight_frame(layout='filters')"])
def test_every_recipe_makes_a_cnn(expression, cnn):
  params, labels = _build(expression, cnn)
  _check_like(params, cnn)
  for name, leaf in zip(
      si.leaf_names(params), jax.tree.leaves(params), strict=True):
    assert np.isfinite(leaf).all()
    assert (np.asarray(leaf) == 0).all() == name.endswith('bias')
  assert set(jax.tree.leaves(labels)) == {'train'}


@pytest.mark.parametrize('expression', [*PLAIN, 'normal'])
def test_plain_recipes_serve_an_mlp(expression, mlp):
  init_fn, _ = registry.INITIALIZERS.build(expression).build(mlp)
  _check_like(jax.eval_shape(lambda: init_fn(jax.random.key(0), mlp)), mlp)


@pytest.mark.parametrize('name, variance', [
    ('he_normal', 2 / 64), ('lecun_normal', 1 / 64),
    ('glorot_normal', 2 / (64 + 512)), ('he_uniform', 2 / 64),
    ('glorot_uniform', 2 / (64 + 512)), ('normal(stddev=0.5)', 0.25),
    ('normal', 1e-6)])
def test_names_mean_what_they_say(name, variance):
  rules = dict(registry.INITIALIZERS.build(name).rules)
  kernel = rules['.*kernel'](jax.random.key(0), (64, 512), jnp.float32)
  assert float(np.var(kernel)) == pytest.approx(variance, rel=0.05)
  assert rules['.*bias'] is si.zeros


def test_delta_orthogonal_has_one_tap_and_keeps_norms(cnn):
  params, _ = _build('delta_orthogonal(scale=1.0)', cnn)
  for layer in ('stem', 'conv_1'):
    kernel = np.array(params[layer]['kernel'])
    tap = kernel[1, 1].copy()
    np.testing.assert_allclose(tap @ tap.T, np.eye(len(tap)), atol=1e-5)
    kernel[1, 1] = 0
    assert not kernel.any()
  head = np.asarray(params['head']['kernel'])
  np.testing.assert_allclose(head.T @ head, np.eye(10), atol=1e-5)


def test_grassmann_packs_the_first_layer_only(cnn):
  params, _ = _build('grassmann', cnn)
  rest, _ = _build('he_normal', cnn)
  fibres = np.asarray(params['stem']['kernel']).reshape(9, 9)
  np.testing.assert_allclose(fibres @ fibres.T, np.eye(9), atol=1e-5)
  for layer in set(params) - {'stem'}:
    np.testing.assert_array_equal(
        params[layer]['kernel'], rest[layer]['kernel'])


def test_tight_frame_is_one_in_the_first_layer(cnn):
  params, _ = _build("tight_frame(layout='filters')", cnn)
  filters = np.asarray(params['stem']['kernel']).reshape(9, 9)
  np.testing.assert_allclose(filters @ filters.T, np.eye(9), atol=1e-5)


def test_simplex_head_makes_the_last_layer_only(cnn):
  params, _ = _build("simplex_head(body='glorot_normal')", cnn)
  rest, _ = _build('glorot_normal', cnn)
  head = np.asarray(params['head']['kernel'])
  np.testing.assert_allclose(
      head.T @ head, (10 * np.eye(10) - 1) / 9, atol=1e-5)
  for layer in set(params) - {'head'}:
    np.testing.assert_array_equal(
        params[layer]['kernel'], rest[layer]['kernel'])


def test_dictionary_is_the_first_layer_of_an_mlp(mlp):
  params, _ = _build('dictionary(scale=0.5)', mlp)
  atoms = np.asarray(params['stem']['kernel'])  # 16 of R^64: orthogonal
  np.testing.assert_allclose(atoms.T @ atoms, 0.25 * np.eye(16), atol=1e-5)


def test_where_stem_takes_the_rest_from_the_body(mlp):
  stem, _ = _build("orthogonal(where='stem', body='glorot_normal')", mlp)
  everywhere, _ = _build('orthogonal', mlp)
  rest, _ = _build('glorot_normal', mlp)
  np.testing.assert_array_equal(
      stem['stem']['kernel'], everywhere['stem']['kernel'])
  for layer in set(stem) - {'stem'}:
    np.testing.assert_array_equal(stem[layer]['kernel'], rest[layer]['kernel'])


@pytest.mark.parametrize('expression, frozen', [
    ('grassmann(freeze=True)', 'stem'), ('he_normal(freeze=True)', 'stem'),
    ("orthogonal(where='stem', freeze=True)", 'stem'),
    ('tight_frame(freeze=True)', 'stem'),
    ('simplex_head(freeze=True)', 'head')])
def test_freeze_labels_the_whole_layer_and_nothing_else(
    expression, frozen, cnn):
  _, labels = registry.INITIALIZERS.build(expression).build(cnn)
  for layer, own in labels.items():
    want = 'freeze' if layer == frozen else 'train'
    assert set(own.values()) == {want}


def test_freezing_everything_is_refused(cnn):
  recipe = initializers.Recipe((('.*', si.zeros),), frozen='.*')
  with pytest.raises(ValueError, match='nothing to train'):
    recipe.build(cnn)


def test_freezing_no_leaf_is_refused(cnn):
  recipe = initializers.Recipe((('.*', si.zeros),), frozen='stm/.*')
  with pytest.raises(ValueError, match='stm'):
    recipe.build(cnn)


def test_rules_that_a_model_cannot_use_are_left_out(mlp):
  recipe = initializers.Recipe((
      ('conv.*', si.zeros), ('.*kernel', jax.nn.initializers.ones),
      ('.*', si.zeros), ('late', si.zeros)))
  params = recipe.build(mlp)[0](jax.random.key(0), mlp)
  assert float(params['stem']['kernel'].min()) == 1
  assert float(params['stem']['bias'].max()) == 0


@pytest.mark.parametrize('expression, message', [
    ("he_normal(where='head')", "where='head' must be 'all' or 'stem'"),
    ("he_normal(where='stem', body='he_norml')", "'he_normal'"),
    ("grassmann(body='nothing_like_it')", 'unknown initializer'),
    ("grassmann(layout='tap')", 'layout'),
    ('grassmann(scale=-1.0)', 'scale'),
    ("subspace(dim=3, body='he_norml')", 'body'),
])
def test_bad_options_are_refused(expression, message):
  with pytest.raises(ValueError, match=message):
    initializers.make(expression)


@pytest.mark.parametrize('entry, label, expression', [
    ('he_normal', 'he_normal', 'he_normal'),
    ('a b = he_normal', 'a b', 'he_normal'),
    ('  a   =   he_normal  ', 'a', 'he_normal'),
    ('x = grassmann(freeze=True)', 'x', 'grassmann(freeze=True)'),
    ('normal(1e-3) = normal(stddev=0.001)', 'normal(1e-3)',
     'normal(stddev=0.001)'),
    ('grassmann(freeze=True)',) * 3,
    ('grassmann(freeze = True)',) * 3,
])
def test_labels(entry, label, expression):
  assert registry.split_label(entry) == (label, expression)
  assert initializers.make(entry)[0] == label
