"""Names and keys of leaves."""

import dataclasses
import hashlib

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import structinit_jax as si
from structinit_jax import tree


def test_names_of_containers():
  x = {'b': [1, {'w': 2}], 'a': (3, 4), 'c': None, 'd': {}, 'e': {'1': 5}}
  assert si.leaf_names(x) == ['a/0', 'a/1', 'b/0', 'b/1/w', 'e/1']
  assert si.leaf_names(7) == ['']
  assert si.leaf_names({}) == []


def test_names_of_a_dataclass():
  @jax.tree_util.register_dataclass
  @dataclasses.dataclass
  class Layer:
    kernel: jax.Array
    bias: jax.Array

  layers = [Layer(jnp.ones(2), jnp.ones(1)), Layer(jnp.ones(2), jnp.ones(1))]
  assert si.leaf_names({'layers': layers}) == [
      'layers/0/kernel', 'layers/0/bias', 'layers/1/kernel', 'layers/1/bias']


def test_a_dictionary_entry_called_value_is_a_name():
  attention = {'query': 1, 'key': 2, 'value': 3}
  assert si.leaf_names({'attention': attention}) == [
      'attention/key', 'attention/query', 'attention/value']
  assert si.leaf_names({'value': 1}) == ['value']


def test_a_field_called_value_is_a_name():
  """Only the box of Flax metadata is left out, not a parameter's own name."""
  class Attention(eqx.Module):
    query: jax.Array
    value: jax.Array

  attention = Attention(jnp.ones(2), jnp.ones(3))
  assert si.leaf_names(attention) == ['query', 'value']
  assert si.leaf_names({'block': attention}) == ['block/query', 'block/value']
  assert si.leaf_names([attention]) == ['0/query', '0/value']


def test_a_name_does_not_depend_on_other_leaves():
  """As when `eqx.partition` takes the frozen leaves out of a module."""
  class Attention(eqx.Module):
    query: jax.Array | None
    value: jax.Array

  whole = {'block': Attention(jnp.ones(2), jnp.ones(3))}
  rest = {'block': Attention(None, jnp.ones(3))}
  assert si.leaf_names(whole) == ['block/query', 'block/value']
  assert si.leaf_names(rest) == ['block/value']


def test_flatten_with_names_inverts():
  x = {'b': [1, 2], 'a': 3}
  names, leaves, treedef = tree.flatten_with_names(x)
  assert names == ['a', 'b/0', 'b/1']
  assert leaves == [3, 1, 2]
  assert treedef.unflatten(leaves) == x


def test_equal_names_are_refused():
  with pytest.raises(ValueError, match='same name: a/b'):
    si.leaf_names({'a': {'b': 1}, 'a/b': 2})


def test_a_leaf_key_is_64_bits_of_sha256_folded_in():
  key = jax.random.key(3)
  digest = hashlib.sha256(b'stem/kernel').digest()
  want = jax.random.fold_in(
      jax.random.fold_in(key, int.from_bytes(digest[:4], 'big')),
      int.from_bytes(digest[4:8], 'big'))
  assert tree.leaf_key(key, 'stem/kernel') == want
  jitted = jax.jit(lambda k: tree.leaf_key(k, 'stem/kernel'))(key)
  assert jitted == want
  legacy = tree.leaf_key(jax.random.PRNGKey(3), 'stem/kernel')
  np.testing.assert_array_equal(legacy, jax.random.key_data(want))


def test_leaf_keys_differ():
  names = ['', 'a', 'b', 'a/b', 'b/a', 'kernel', 'Kernel', 'kernel ', 'ü']
  keys = [tree.leaf_key(jax.random.key(seed), name)
          for name in names for seed in (0, 1)]
  data = {tuple(jax.random.key_data(key).tolist()) for key in keys}
  assert len(data) == 2 * len(names)


@pytest.mark.parametrize('leaves', [
    {}, {'a': 1}, {'a/b': 1, 'a/c/d': 2, 'e': 3}, {'0/w': 1, '1/w': 2},
    {'mlp/~/linear/w': 1}])
def test_nest_inverts_the_names(leaves):
  nested = tree.nest(leaves)
  names, values, _ = tree.flatten_with_names(nested)
  assert dict(zip(names, values, strict=True)) == leaves


def test_check_like():
  x = jnp.ones((2, 3))
  tree.check_like(['a'], [x], [jax.ShapeDtypeStruct((2, 3), jnp.float32)])
  with pytest.raises(ValueError, match=r"'b'.*float32\(2, 3\).*\(3, 2\)"):
    tree.check_like(['a', 'b'], [x, x], [
        x, jax.ShapeDtypeStruct((3, 2), jnp.float32)])
  with pytest.raises(ValueError, match=r"'a'.*float32.*bfloat16"):
    tree.check_like(['a'], [x], [jax.ShapeDtypeStruct((2, 3), jnp.bfloat16)])
