"""Subspace training: membership, roles, equivalence, bits everywhere."""

import dataclasses
import functools
import hashlib
import json
import math
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec
import numpy as np
import optax
import pytest

import structinit_jax as si
from structinit_jax.subspace import plans

KEY = jax.random.key(8)
SHAPES = {'stem': {'kernel': (3, 3, 2, 8), 'bias': (8,)},
          'head': {'kernel': (40, 16), 'bias': (16,)}}
SIZE = 144 + 8 + 640 + 16
EXACT = ['hadamard', 'very_sparse', 'srht', 'fastfood']


def tree_of(dtype=jnp.float32, seed=0):
  return jax.tree.map(
      lambda shape: jax.random.normal(
          jax.random.fold_in(jax.random.key(seed), math.prod(shape)), shape,
          dtype), SHAPES, is_leaf=lambda x: isinstance(x, tuple))


def flat(tree):
  return np.concatenate([np.asarray(x, np.float64).reshape(-1)
                         for x in jax.tree.leaves(tree)])


def drawn(subspace, seed=1):
  """Random coordinates."""
  leaves, treedef = jax.tree.flatten(subspace.w)
  return treedef.unflatten([
      jax.random.normal(jax.random.key(seed + i), x.shape, x.dtype)
      for i, x in enumerate(leaves)])


def equal(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    assert x.dtype == y.dtype
    np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


def test_parameters_are_origin_plus_p_w():
  params = tree_of()
  subspace = si.subspace.reparameterize(KEY, params, 30)
  equal(subspace.expand(), params)
  w = drawn(subspace)
  moved = flat(subspace.expand(w)) - flat(params)
  (projection,) = subspace.plan.projections(KEY)
  matrix = np.asarray(projection.to_dense(), np.float64)
  coordinates = np.asarray(w['projected']['all'], np.float64)
  np.testing.assert_allclose(moved, matrix @ coordinates, atol=1e-6)
  # So it is in the span of P, and w can be read off it.
  np.testing.assert_allclose(matrix.T @ moved, coordinates, atol=2e-6)


def test_gradients_are_projected():
  params = tree_of()
  subspace = si.subspace.reparameterize(KEY, params, 25, column_norm=3.0)

  def loss(params):
    return sum(jnp.sum(jnp.sin(x)) for x in jax.tree.leaves(params))

  w = drawn(subspace)
  want = jax.grad(lambda w: loss(subspace.expand(w)))(w)
  got = subspace.project(jax.grad(loss)(subspace.expand(w)))
  np.testing.assert_allclose(
      got['projected']['all'], want['projected']['all'], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('rule', ['equal', 'proportional', 'sqrt', True])
def test_a_subspace_a_layer(rule):
  params = tree_of()
  subspace = si.subspace.reparameterize(KEY, params, 60, per_layer=rule)
  dims = {group.name: group.dim for group in subspace.plan.groups}
  assert sum(dims.values()) == 60
  sizes = {'stem': 152, 'head': 656}
  weigh = plans._WEIGHTS['proportional' if rule is True else rule]
  total = sum(weigh(size) for size in sizes.values())
  for name, size in sizes.items():
    assert abs(dims[name] - 1 - 58 * weigh(size) / total) <= 1
  w = drawn(subspace)
  w['projected']['stem'] *= 0
  moved = subspace.expand(w)
  equal(moved['stem'], params['stem'])
  assert (moved['head']['kernel'] != params['head']['kernel']).all()


def test_dimensions_are_divided():
  """At least one each, never more than there are, all of them used."""
  rng = np.random.default_rng(0)
  for _ in range(300):
    sizes = rng.integers(1, 200, size=rng.integers(1, 9)).tolist()
    dim = int(rng.integers(len(sizes), sum(sizes) + 1))
    for rule in plans._WEIGHTS:
      found = plans._divide(dim, sizes, rule)
      assert sum(found) == dim
      assert all(1 <= d <= size for d, size in zip(found, sizes, strict=True))
  assert plans._divide(3 + 90, [10, 1000, 1000], 'equal') == [10, 42, 41]


def test_roles():
  params = tree_of() | {'steps': jnp.zeros((), jnp.int32)}
  subspace = si.subspace.reparameterize(
      KEY, params, 20, rules=[('.*bias', 'train'), ('stem/.*|steps', 'freeze'),
                              ('.*', 'project')])
  assert set(subspace.w['trained']) == {'stem/bias', 'head/bias'}
  assert subspace.plan.groups[0].size == 640
  moved = subspace.expand(drawn(subspace))
  equal(moved['stem']['kernel'], params['stem']['kernel'])
  equal(moved['steps'], params['steps'])
  assert (moved['stem']['bias'] != params['stem']['bias']).all()
  equal(subspace.expand(), params)


def test_16_bits_are_the_rounded_sum():
  params = tree_of(jnp.bfloat16)
  subspace = si.subspace.reparameterize(KEY, params, 30)
  assert subspace.w['projected']['all'].dtype == jnp.float32
  w = drawn(subspace)
  wide = dataclasses.replace(subspace, origin=jax.tree.map(
      lambda x: x.astype(jnp.float32), params))
  equal(subspace.expand(w), jax.tree.map(
      lambda x: x.astype(jnp.bfloat16), wide.expand(w)))


@pytest.mark.parametrize('optimizer', [
    optax.sgd(0.1, momentum=0.9), optax.rmsprop(0.01),
    optax.chain(optax.add_decayed_weights(0.1), optax.sgd(0.1))])
def test_within_takes_the_steps_of_reparameterize(optimizer):
  params, target = tree_of(), tree_of(seed=3)
  options = {'dim': 20, 'column_norm': 2.0, 'rules': [
      ('stem/bias', 'train'), ('head/bias', 'freeze'), ('.*', 'project')]}

  def loss(params):
    return sum(jnp.sum((x - y)**2) for x, y in zip(
        jax.tree.leaves(params), jax.tree.leaves(target), strict=True)) / 99

  subspace = si.subspace.reparameterize(KEY, params, **options)
  w = subspace.w

  @jax.jit
  def step(w, state):
    updates, state = optimizer.update(
        jax.grad(lambda w: loss(subspace.expand(w)))(w), state, w)
    return optax.apply_updates(w, updates), state

  below = si.subspace.within(KEY, optimizer, **options)

  @jax.jit
  def other(params, state):
    updates, state = below.update(jax.grad(loss)(params), state, params)
    return optax.apply_updates(params, updates), state

  state, other_state, moved = optimizer.init(w), below.init(params), params
  for _ in range(6):
    w, state = step(w, state)
    moved, other_state = other(moved, other_state)
  for x, y in zip(jax.tree.leaves(w), jax.tree.leaves(other_state.w),
                  strict=True):
    np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(
      flat(subspace.expand(w)), flat(moved), atol=2e-5)
  assert loss(moved) < loss(params)
  equal(moved['head']['bias'], params['head']['bias'])


def test_within_over_seeds():
  """The key is in the state: mapped over keys, each has its own subspace."""
  params = {'kernel': jnp.ones((20, 5))}

  def step(key):
    optimizer = si.subspace.within(key, optax.sgd(1.0), dim=4)
    return optimizer.update(params, optimizer.init(params))[0]['kernel']

  keys = jax.random.split(KEY, 3)
  many = jax.vmap(step)(keys)
  for one, key in zip(many, keys, strict=True):
    np.testing.assert_allclose(one, step(key), atol=1e-6)
  assert np.linalg.matrix_rank(many.reshape(3, -1)) == 3


@pytest.mark.parametrize('kind', EXACT)
def test_jit_changes_no_bit(kind):
  params = tree_of()
  subspace = si.subspace.reparameterize(KEY, params, 30, projection=kind)
  w = drawn(subspace)
  want = subspace.expand(w)
  equal(jax.jit(lambda s, w: s.expand(w))(subspace, w), want)
  # With an origin of one array, a constant, to which XLA could move the sums.
  one = si.subspace.reparameterize(
      KEY, params['stem']['kernel'], 30, projection=kind)
  equal(jax.jit(one.expand)(drawn(one)), one.expand(drawn(one)))
  # In the midst of other operations, too.
  equal(jax.jit(lambda s, w: jax.tree.map(
      lambda x: x * 2, s.expand(jax.tree.map(lambda x: x / 4 * 4, w))))(
          subspace, w), jax.tree.map(lambda x: x * 2, want))


@pytest.mark.parametrize('kind, axis_type', [
    *((kind, jax.sharding.AxisType.Auto) for kind in EXACT),
    ('hadamard', jax.sharding.AxisType.Explicit)])
def test_eight_devices_change_no_bit(kind, axis_type):
  params = tree_of()
  subspace = si.subspace.reparameterize(KEY, params, 30, projection=kind)
  w = drawn(subspace)
  want = subspace.expand(w)
  mesh = jax.make_mesh((8,), ('d',), axis_types=(axis_type,))
  sharding = NamedSharding(mesh, PartitionSpec())
  split = jax.tree.map(lambda x: NamedSharding(mesh, PartitionSpec(
      *[None] * (x.ndim - 1), 'd')), params)
  sharded = jax.device_put(subspace, sharding)
  sharded = dataclasses.replace(
      sharded, origin=jax.device_put(params, split))
  with jax.set_mesh(mesh):
    got = jax.jit(lambda s, w: s.expand(w), out_shardings=split)(
        sharded, jax.device_put(w, sharding))
  equal(got, want)
  assert got['stem']['kernel'].sharding == split['stem']['kernel']


DIVIDED = {
    'bias': ((12,), PartitionSpec()),
    'conv': ((3, 3, 4, 8), PartitionSpec(None, None, 'y', 'x')),
    'dense': ((40, 16), PartitionSpec(('x', 'y'))),
    'layers': ((3, 96, 16), PartitionSpec(None, 'x')),
    'scale': ((), PartitionSpec())}


@pytest.mark.parametrize('axis_types', [
    (jax.sharding.AxisType.Auto,) * 2, (jax.sharding.AxisType.Explicit,) * 2,
    (jax.sharding.AxisType.Auto, jax.sharding.AxisType.Explicit)])
@pytest.mark.parametrize('kind', ['hadamard', 'srht'])
def test_devices_make_rows_of_their_own(kind, axis_types):
  params = {name: jax.random.normal(jax.random.key(i), shape)
            for i, (name, (shape, _)) in enumerate(DIVIDED.items())}
  mesh = jax.make_mesh((4, 2), ('x', 'y'), axis_types=axis_types)
  split = {name: NamedSharding(mesh, spec)
           for name, (_, spec) in DIVIDED.items()}
  one = si.subspace.reparameterize(KEY, params, 30, projection=kind)
  many = si.subspace.reparameterize(
      KEY, jax.device_put(params, split), 30, projection=kind)
  w = drawn(one)
  want = one.expand(w)
  equal(many.expand(w), want)
  # Coordinates may be divided, too.
  apart = NamedSharding(mesh, PartitionSpec('y'))
  equal(many.expand(jax.device_put(w, apart)), want)
  given = jax.jit(lambda s, w: s.expand(w, split))
  got = given(many, w)
  equal(got, want)
  compiled = given.lower(many, w).compile()
  # Of a mesh with both kinds of axes XLA gathers along the Auto ones.
  if kind == 'hadamard' and axis_types[0] == axis_types[1]:
    assert all(got[name].sharding.is_equivalent_to(split[name], x.ndim)
               for name, x in params.items())
    text = compiled.as_text()
    assert 'all-' not in text
    assert 'collective-' not in text
    alone = jax.jit(lambda s, w: s.expand(w)).lower(one, w).compile()
    assert compiled.cost_analysis()['flops'] < (
        0.4 * alone.cost_analysis()['flops'])

  def loss(s, w):
    return sum(jnp.sum(jnp.sin(x)) for x in jax.tree.leaves(s.expand(w)))

  for grads, divided in (
      (jax.grad(loss, 1)(one, w), jax.jit(jax.grad(loss, 1))(many, w)),
      (one.project(params), many.project(many.origin))):
    np.testing.assert_allclose(flat(divided), flat(grads), atol=2e-5)


@pytest.mark.parametrize('kind, dim', [
    ('hadamard', 30), ('hadamard', 900), ('srht', 30)])
def test_results_have_the_shardings_that_are_given(kind, dim):
  params = {name: jnp.ones(shape) for name, (shape, _) in DIVIDED.items()}
  mesh = jax.make_mesh(
      (4, 2), ('x', 'y'), axis_types=(jax.sharding.AxisType.Auto,) * 2)
  split = {name: NamedSharding(mesh, spec)
           for name, (_, spec) in DIVIDED.items()}
  subspace = si.subspace.reparameterize(KEY, params, dim, projection=kind)
  w = drawn(subspace)
  want = subspace.expand(w)
  for got in (subspace.expand(w, split),
              jax.jit(lambda w: subspace.expand(w, split))(w)):
    equal(got, want)
    assert all(got[name].sharding.is_equivalent_to(split[name], x.ndim)
               for name, x in params.items())
  third = jax.sharding.SingleDeviceSharding(jax.devices()[3])
  got = subspace.expand(w, split | {'bias': third, 'scale': None})
  equal(got, want)
  assert got['bias'].sharding == third


def test_within_sends_coordinates_alone():
  """Of sharded parameters: one sum over devices, of d numbers."""
  params = {'k': jax.random.normal(KEY, (64, 48)), 'b': jnp.ones(16)}
  mesh = jax.make_mesh((8,), ('d',), axis_types=(jax.sharding.AxisType.Auto,))
  split = {'k': NamedSharding(mesh, PartitionSpec('d')),
           'b': NamedSharding(mesh, PartitionSpec())}

  def update(params, shardings):
    optimizer = si.subspace.within(
        KEY, optax.sgd(0.1), 8, shardings=shardings)
    step = jax.jit(optimizer.update)
    args = params, optimizer.init(params), params
    return step(*args)[0], step.lower(*args).compile().as_text()

  want, _ = update(params, None)
  got, text = update(jax.device_put(params, split), split)
  jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-6),
               got, want)
  assert got['k'].sharding == split['k']
  assert text.count('all-reduce(') == 1
  assert not any(f'{name}(' in text for name in (
      'all-gather', 'all-to-all', 'collective-permute'))


def test_inside_a_shard_map_every_device_has_all():
  mesh = jax.make_mesh((8,), ('d',), axis_types=(jax.sharding.AxisType.Auto,))
  params = jax.device_put(
      {'k': jax.random.normal(KEY, (40, 16))},
      NamedSharding(mesh, PartitionSpec('d')))
  subspace = si.subspace.reparameterize(KEY, params, 30)
  w = drawn(subspace)
  got = jax.shard_map(
      subspace.expand, mesh=mesh, in_specs=PartitionSpec(),
      out_specs=PartitionSpec(), check_vma=False)(w)
  equal(got, subspace.expand(w))


def test_donated_coordinates_leave_parameters_and_keys():
  rules = [('.*bias', 'train'), ('.*', 'project')]
  params, key = tree_of(), jax.random.key(3)
  subspace = si.subspace.reparameterize(key, params, 9, rules=rules)
  optimizer = si.subspace.within(key, optax.adam(0.1), 9, rules=rules)
  state = optimizer.init(params)
  forget = jax.jit(lambda x: jax.tree.map(
      lambda x: x if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x + 1,
      x), donate_argnums=0)
  forget((subspace.w, state))
  assert not any(x.is_deleted() for x in jax.tree.leaves(params))
  jax.random.split(key)


def test_further_arguments_reach_the_optimizer():
  by_loss = optax.GradientTransformationExtraArgs(
      lambda w: optax.EmptyState(),
      lambda g, state, w, *, loss: (
          jax.tree.map(lambda x: loss * x, g), state))
  optimizer = si.subspace.within(KEY, optax.chain(optax.sgd(1.), by_loss), 9)
  params = tree_of()
  state = optimizer.init(params)
  once, twice = (optimizer.update(params, state, params, loss=loss)[0]
                 for loss in (1., 2.))
  equal(twice, jax.tree.map(lambda x: 2 * x, once))


def digest(kind):
  subspace = si.subspace.reparameterize(KEY, tree_of(), 30, projection=kind)
  found = subspace.expand(drawn(subspace))
  return hashlib.sha256(b''.join(
      np.asarray(x).tobytes() for x in jax.tree.leaves(found))).hexdigest()


def print_digests():
  print(json.dumps({kind: digest(kind) for kind in EXACT[:2]}))


@pytest.mark.optimized
def test_a_process_with_one_device_makes_the_same():
  code = 'from tests.subspace import training_test as t; t.print_digests()'
  env = os.environ | {'XLA_FLAGS': '', 'JAX_PLATFORMS': 'cpu'}
  out = subprocess.run([sys.executable, '-c', code], check=True, text=True,
                       capture_output=True, env=env).stdout
  assert json.loads(out.splitlines()[-1]) == {
      kind: digest(kind) for kind in EXACT[:2]}


def test_another_key_is_another_subspace():
  a, b = (si.subspace.reparameterize(jax.random.key(i), tree_of(), 9)
          for i in (0, 1))
  w = drawn(a)
  assert (flat(a.expand(w)) != flat(b.expand(w))).mean() > 0.9


@pytest.mark.parametrize('kwargs, message', [
    ({'dim': 0}, 'dim=0 must lie between 1 and the 808 .*works is 1$'),
    ({'dim': 809}, 'dim=809 must lie between .*works is 808'),
    ({'dim': 1, 'per_layer': True}, r'between 2 \(one a layer\).*works is 2'),
    ({'dim': 'x'}, "dim='x' must be an integer"),
    ({'dim': True}, 'dim=True must be an integer'),
    ({'column_norm': True}, 'column_norm=True must be'),
    ({'params': {}}, 'the tree has no parameters'),
    ({'params': {'a': jnp.ones((0, 3))}}, 'no rule projects a parameter'),
    ({'params': {'a': jnp.ones(9), 'n': jnp.ones(3, int)}},
     "leaf 'n' of dtype int32: .*add a rule .'n', 'freeze'."),
    ({'params': {'a': jnp.ones(9), 'n': 3}}, "leaf 'n' of dtype int: .*add a"),
    ({'params': {'a': jnp.ones(9), 'n': jnp.tanh},
      'rules': [('n', 'freeze'), ('.*', 'project')]},
     "leaf 'n' is no array, .*: pass the arrays of the model alone"),
    ({'rules': [('.*', 'freeze')]}, 'no rule projects a parameter'),
    ({'rules': [('.*', 'freezes')]}, "a role is 'project', 'train' or"),
    ({'rules': [('stem/.*', 'project')]}, 'no rule covers 2 of 4 leaves'),
    ({'per_layer': 'eqal'}, "per_layer='eqal' must be False, True or one of "
     "'equal', 'proportional', 'sqrt'"),
    ({'per_layer': ['equal']}, r"per_layer=\['equal'\] must be False"),
    ({'per_layer': None}, 'per_layer=None must be False'),
    ({'rules': None}, 'rules must be an ordered sequence'),
    ({'projection': 'x'}, "kind 'x' is unknown"),
    ({'projection': ['x']}, r"kind \['x'\] is unknown"),
    ({'column_norm': 0}, 'column_norm=0 must be'),
    ({'column_norm': 1e39}, r'column_norm=1e\+39 must lie between'),
    ({'projection': 'orthonormal', 'max_bytes': 1000}, 'needs 48480 bytes'),
    ({'max_bytes': 1000}, 'needs .* max_bytes=1000; allow that much'),
    ({'max_bytes': None}, 'max_bytes=None must be a positive'),
    ({'key': 1}, 'no JAX PRNG key'),
    ({'key': jax.random.split(KEY)}, r'key of shape \(2,\) is not one key')])
def test_bad_requests(kwargs, message):
  kwargs = {'key': KEY, 'params': tree_of(), 'dim': 5} | kwargs
  with pytest.raises(ValueError, match=message):
    si.subspace.reparameterize(**kwargs)
  if 'key' in kwargs:
    params = kwargs.pop('params')
    with pytest.raises(ValueError, match=message):
      si.subspace.within(optimizer=optax.sgd(1.0), **kwargs).init(params)


@pytest.mark.parametrize('change, message', [
    (lambda sharding: [None], 'shardings of structure .* must be'),
    (lambda sharding: {'k': PartitionSpec()}, "of leaf 'k' is .* must be a"),
    (lambda sharding: {'k': sharding('d')}, "leaf 'k' of shape .* cannot have"),
    (lambda sharding: {'k': sharding(None, None, 'd')}, "leaf 'k' of shape"),
    (lambda sharding: {'k': sharding(PartitionSpec.UNCONSTRAINED)},
     "sharding of leaf 'k' leaves an axis open"),
    (lambda sharding: {'k': NamedSharding(
        sharding().mesh.abstract_mesh, PartitionSpec())},
     "sharding of leaf 'k' is on .* without devices")])
def test_bad_shardings(change, message):
  subspace = si.subspace.reparameterize(KEY, {'k': jnp.ones((20, 6))}, 9)
  mesh = jax.make_mesh((8,), ('d',), axis_types=(jax.sharding.AxisType.Auto,))
  with pytest.raises(ValueError, match=message):
    subspace.expand(shardings=change(
        lambda *names: NamedSharding(mesh, PartitionSpec(*names))))


def test_other_bad_arguments(file):
  shapes = {'k': jax.ShapeDtypeStruct((9,), jnp.float32)}
  with pytest.raises(ValueError, match="leaf 'k' is a shape, no array"):
    si.subspace.reparameterize(KEY, shapes, 3)
  with pytest.raises(ValueError, match="optimizer='sgd' must be an optax"):
    si.subspace.within(KEY, 'sgd', 3)
  with pytest.raises(ValueError, match='dict is no Subspace'):
    si.subspace.save(file, {})
  params = tree_of()
  subspace = si.subspace.reparameterize(KEY, params, 4)
  for w in (jnp.ones(4), {'projected': {'all': jnp.ones(5)}, 'trained': {}}):
    with pytest.raises(ValueError, match=r'w (of structure|has shape)'):
      si.subspace.save(file, dataclasses.replace(subspace, w=w))
  with pytest.raises(ValueError, match='call `save` outside of jitted'):
    jax.jit(functools.partial(si.subspace.save, file))(subspace)
  assert not os.path.exists(file)
  optimizer = si.subspace.within(KEY, optax.sgd(1.), 4)
  with pytest.raises(ValueError, match='updates of structure'):
    optimizer.update(params['stem'], optimizer.init(params), params)


def test_bad_coordinates():
  subspace = si.subspace.reparameterize(KEY, tree_of(), 5)
  with pytest.raises(ValueError, match='not a real floating-point'):
    subspace.expand({'projected': {'all': np.array(list('abcde'))},
                     'trained': {}})
  with pytest.raises(ValueError, match='grads of structure'):
    subspace.project({})
  with pytest.raises(ValueError, match="leaf 'head/bias' of grads has shape"):
    subspace.project(jax.tree.map(lambda x: x[1:], subspace.origin))
  with pytest.raises(ValueError, match='w of structure'):
    subspace.expand({'all': jnp.ones(5)})
  with pytest.raises(ValueError, match=r"leaf 'projected/all' of w has shape"):
    subspace.expand(jax.tree.map(lambda x: x[1:], subspace.w))


@pytest.fixture
def file(tmp_path):
  return tmp_path / 'model.subspace'


@pytest.mark.parametrize('make_key', [
    jax.random.key, jax.random.PRNGKey,
    functools.partial(jax.random.key, impl='rbg')])
def test_files_bring_back_every_bit(make_key, file):
  params = tree_of(jnp.bfloat16)
  subspace = si.subspace.reparameterize(
      make_key(3), params, 40, projection='very_sparse', per_layer='sqrt',
      column_norm=1.5,
      rules=[('.*bias', 'train'), ('.*', 'project')])
  subspace = dataclasses.replace(subspace, w=drawn(subspace))
  si.subspace.save(file, subspace)
  loaded = si.subspace.load(file, params)
  equal(loaded.w, subspace.w)
  equal(loaded.expand(), subspace.expand())
  assert loaded.plan.groups == subspace.plan.groups


def test_a_file_is_as_large_as_the_coordinates(file):
  params = {'kernel': jnp.ones((1000, 100))}
  si.subspace.save(file, si.subspace.reparameterize(KEY, params, 500))
  assert 4 * 500 < file.stat().st_size < 4 * 500 + 500
  assert os.listdir(file.parent) == [file.name]


@pytest.mark.parametrize('change', [
    lambda p: p | {'stem': p['head']},
    lambda p: p | {'more': jnp.ones(1)},
    lambda p: jax.tree.map(lambda x: x.astype(jnp.float16), p),
    lambda p: jax.tree.map(lambda x: x.at[(0,) * x.ndim].add(1e-6), p)])
def test_other_parameters_are_refused(change, file):
  params = tree_of()
  si.subspace.save(file, si.subspace.reparameterize(KEY, params, 5))
  with pytest.raises(ValueError, match='saved with other parameters'):
    si.subspace.load(file, change(params))


def test_damaged_files_are_refused(file):
  params = tree_of()
  si.subspace.save(file, si.subspace.reparameterize(KEY, params, 5))
  data = file.read_bytes()
  for wrong in (b'', data[:-1], data + b'\0', b'SAOFILE2' + data[8:],
                data[:99] + bytes([data[99] ^ 4]) + data[100:]):
    file.write_bytes(wrong)
    with pytest.raises(ValueError, match=r'model.subspace: '):
      si.subspace.load(file, params)
