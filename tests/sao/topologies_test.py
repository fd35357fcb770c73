"""Masks, their counts and spectra, what they connect, and what is refused."""

import dataclasses
import itertools
import math
import re

import jax
import numpy as np
import pytest

from structinit_jax.sao import topologies
from structinit_jax.sao import weighing

KEY = jax.random.key(4)
BLOCKS = ['debruijn', 'random', 'thesis']
Topology = topologies.Topology


def mask_of(topology):
  """By the coordinates; that `mask` is the same is a test below."""
  mask = np.zeros(topology.shape, int)
  for rows, columns in topology.coordinates():
    np.add.at(mask, (rows[:, :, None], columns[:, None, :]), 1)
  assert mask.max() == 1
  return mask.astype(bool)


def spectrum_of(topology):
  return np.linalg.svd(mask_of(topology).astype(float), compute_uv=False)


def expanded(values):
  return np.repeat(*zip(*values, strict=True))


def square(size, degree, kind='debruijn', seed=0):
  return topologies.topology(
      jax.random.key(seed), (size, size), degree=degree, kind=kind)


def test_every_size_splits_into_blocks_that_can_be_orthogonal(random_sizes):
  """2,000 random (n, m, b): a partition of both sides, and no block too tall.

  A block (d, c) carries orthonormal columns iff d >= c; all of them have to.
  """
  for n, m, b in random_sizes(2000, 512):
    topology = Topology((n, m), b)
    rows, columns, count = [], [], 0
    for (in_rows, in_columns), group in zip(
        topology.coordinates(), topology.groups, strict=True):
      assert (len(in_rows), in_rows.shape[1], in_columns.shape[1]) == group
      assert len(in_columns) == len(in_rows)
      assert (group[1] >= group[2]) if n >= m else (group[1] <= group[2])
      assert min(group) >= 1
      rows.extend(in_rows.ravel())
      columns.extend(in_columns.ravel())
      count += math.prod(group)
    assert sorted(rows) == list(range(n))
    assert sorted(columns) == list(range(m))
    assert count == topology.nnz
    # As in closed form, with n = b d + r and m = b c + s.
    (d, r), (c, s) = divmod(n, b), divmod(m, b)
    assert topology.nnz == b * d * c + d * s + c * r + min(r, s)
    assert len(topology.groups) <= 3
    assert (len(topology.groups) == 1) == (r == s == 0)


@pytest.mark.parametrize('kind', BLOCKS)
def test_masks_have_what_is_promised(kind, random_sizes, make):
  for n, m, b in random_sizes(200, 60, seed=1):
    topology = make((n, m), b, kind)
    mask = mask_of(topology)
    assert mask.sum() == topology.nnz
    assert topology.density == pytest.approx(mask.mean())
    facts = topology.describe()
    degrees, out_degrees = mask.sum(axis=0), mask.sum(axis=1)
    assert facts['degree'] == (degrees.min(), degrees.max())
    assert facts['out_degree'] == (out_degrees.min(), out_degrees.max())
    assert degrees.min() == topology.degree >= 1
    assert out_degrees.min() >= 1


@pytest.mark.parametrize('kind', [*BLOCKS, 'weighing'])
@pytest.mark.parametrize('shape, blocks', [
    ((14, 7), 7), ((7, 14), 7), ((26, 13), 13)])
def test_the_mask_is_where_the_coordinates_are(kind, shape, blocks, make):
  for b in {blocks, blocks if kind == 'weighing' else 3}:
    topology = make(shape, b, kind)
    mask = topology.mask
    assert isinstance(mask, jax.Array)
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask, mask_of(topology))


def test_debruijn_is_the_rule_of_imase_and_itoh():
  """Output i takes the inputs (d i + r) mod n, r < d, where b | n."""
  for n, m, b in [(12, 8, 4), (8, 12, 4), (16, 16, 4), (6, 6, 6), (5, 5, 1)]:
    d = n // b
    want = np.zeros((n, m), bool)
    for i, r in itertools.product(range(m), range(d)):
      want[(d * i + r) % n, i] = True
    np.testing.assert_array_equal(mask_of(Topology((n, m), b)), want)


@pytest.mark.parametrize('shape, blocks', [
    ((8, 8), 4), ((12, 8), 4), ((8, 12), 4), ((9, 3), 3), ((11, 7), 3),
    ((11, 14), 5)])
def test_thesis_is_algorithm_1(shape, blocks):
  """Its loops, with the random choices read off the permutation."""
  topology = topologies.topology(
      KEY, shape, degree=shape[0] // blocks, kind='thesis')
  assert topology.blocks == blocks
  wide = max(shape)
  sizes = [wide // blocks + (p < wide % blocks) for p in range(blocks)]
  starts = np.arange(blocks) * (wide // blocks)
  block = np.zeros((blocks, wide), int)
  for i, column in enumerate(topology.permutation[starts]):
    assert block[:, column].sum() == 0
    block[i, column] = 1
  for i, j in itertools.product(range(blocks), range(wide)):
    if block[i].sum() < sizes[i] and block[:, j].sum() != 1:
      block[i, j] = 1
  stacked = np.tile(block, (-(-min(shape) // blocks), 1))[:min(shape)]
  want = stacked.T if shape[0] >= shape[1] else stacked
  np.testing.assert_array_equal(mask_of(topology), want)


def test_random_permutes_the_inputs_of_debruijn(make):
  topology = make((11, 6), 3, 'random', seed=2)
  plain = Topology((11, 6), 3)
  order = topology.permutation
  assert sorted(order) == list(range(11))
  np.testing.assert_array_equal(mask_of(topology)[order], mask_of(plain))
  other = make((11, 6), 3, 'random', seed=3)
  assert topology != other
  assert hash(topology) == hash(make((11, 6), 3, 'random', seed=2))


WEIGHING = [((7, 7), 4), ((14, 7), 8), ((7, 21), 4), ((13, 13), 9),
            ((26, 39), 18), ((49, 49), 16), ((91, 182), 36)]


@pytest.mark.parametrize('order', [7, 13, 49, 91, 169])
def test_weighing_matrices(order):
  rows, signs = weighing.develop(order)
  matrix = np.zeros((order, order), int)
  matrix[rows, np.arange(order)[:, None]] = signs
  w = weighing.weight(order)
  np.testing.assert_array_equal(matrix.T @ matrix, w * np.eye(order, dtype=int))
  assert set(np.unique(matrix)) == {-1, 0, 1}
  assert (np.abs(matrix).sum(axis=0) == w).all()


@pytest.mark.parametrize('shape, degree', WEIGHING)
def test_weighing_topologies(shape, degree):
  topology = topologies.topology(KEY, shape, degree=degree, kind='weighing')
  mask = mask_of(topology)
  assert mask.sum() == topology.nnz
  np.testing.assert_array_equal(mask.sum(axis=0), degree)
  assert topology == topologies.topology(
      KEY, shape, density=mask.mean(), kind='weighing')
  # Connected: the largest singular value is simple.
  values = spectrum_of(topology)
  assert values[1] < 0.9 * values[0]


@pytest.mark.parametrize('kind', BLOCKS)
def test_spectra_of_blocks(kind, random_sizes, make):
  for n, m, b in random_sizes(40, 24, seed=2):
    topology = make((n, m), b, kind)
    values = topologies.spectrum(topology)
    np.testing.assert_allclose(
        expanded(values), spectrum_of(topology), rtol=0, atol=1e-9)
    assert len({value for value, _ in values}) == len(values)


@pytest.mark.parametrize('shape, degree', WEIGHING)
def test_spectra_of_weighing_matrices(shape, degree):
  topology = topologies.topology(KEY, shape, degree=degree, kind='weighing')
  np.testing.assert_allclose(
      expanded(topologies.spectrum(topology)), spectrum_of(topology),
      rtol=0, atol=1e-9)


def test_erratum_the_mask_is_not_ramanujan():
  """The second singular value is the first: b components, no expander.

  sqrt(c d) >= sqrt(c-1) + sqrt(d-1), with equality for c = d = 2 alone (and
  c = d = 1): the bound is met only where it says nothing. The thesis gets 0
  for the second value, as it counts a multiple one once.
  """
  for c, d in itertools.product(range(1, 30), repeat=2):
    slack = c * d - (math.sqrt(c - 1) + math.sqrt(d - 1))**2
    assert slack == pytest.approx((math.sqrt((c - 1) * (d - 1)) - 1)**2)
    facts = Topology((4 * d, 4 * c), 4).describe()
    assert facts['spectrum'][0] == (math.sqrt(c * d), 4)
    assert facts['expansion'] == 0
    assert facts['ramanujan_gap'] <= 1e-12
    assert (abs(facts['ramanujan_gap']) < 1e-12) == (c == d == 2)
    if min(c, d) > 1:
      assert facts['thesis_gap'] == 2 * math.sqrt(math.sqrt(c * d) - 1)
  values = spectrum_of(Topology((256, 256), 64))
  np.testing.assert_allclose(values[:64], 4, rtol=1e-12)


def test_weighing_matrices_are_ramanujan():
  for order in (7, 13, 49, 169):
    facts = Topology((order, order), order, 'weighing').describe()
    values = spectrum_of(Topology((order, order), order, 'weighing'))
    w = weighing.weight(order)
    assert values[1] < 2 * math.sqrt(w - 1)
    assert facts['ramanujan_gap'] == pytest.approx(
        2 * math.sqrt(w - 1) - values[1])
    assert facts['expansion'] == pytest.approx(1 - values[1] / w)
  # A product of two need not be.
  assert Topology((91, 91), 91, 'weighing').describe()['ramanujan_gap'] < 0


def reaches(chain):
  """How many layers reach everything, by boolean products."""
  reached = np.eye(chain[0].shape[0], dtype=int)
  for depth, layer in enumerate(chain, start=1):
    reached = (reached @ mask_of(layer).astype(int) > 0).astype(int)
    if reached.all():
      return depth
  return None


def chains(count, seed, equal):
  """Rectangular chains of 1 to 6 layers, of equal splits or of any."""
  rng = np.random.default_rng(seed)
  for _ in range(count):
    sizes = rng.choice([4, 6, 8, 12, 16, 24, 36, 48] if equal else
                       np.arange(2, 50), size=rng.integers(2, 8)).tolist()
    chain = []
    for n, m in itertools.pairwise(sizes):
      blocks = [b for b in range(1, min(n, m) + 1)
                if not equal or n % b == m % b == 0]
      # Small degrees are where it is decided.
      blocks = blocks[-4:] if equal else blocks[len(blocks) // 3:]
      chain.append(((n, m), int(rng.choice(blocks))))
    yield chain


def test_reachability_theorem():
  """400 chains: everything is reached iff the degrees' product is n_0."""
  outcomes = []
  for sizes in chains(400, 0, equal=True):
    chain = [Topology(shape, b) for shape, b in sizes]
    want = reaches(chain)
    product, first = 1, None
    for depth, layer in enumerate(chain, start=1):
      product *= layer.degree
      if product >= chain[0].shape[0]:
        first = depth
        break
    assert want == first
    assert topologies.layers_to_reach(chain) == want
    np.testing.assert_array_equal(
        topologies.reachability(chain).all(), want is not None)
    outcomes.append(want is None)
  assert 40 < sum(outcomes) < 360  # both happen


@pytest.mark.parametrize('kind', BLOCKS)
def test_layers_to_reach_is_exact_for_any_split(kind, make):
  rng = np.random.default_rng(5)
  for sizes in chains(60 if kind == 'debruijn' else 20, 1, equal=False):
    chain = [make(shape, b, kind, seed=int(rng.integers(99)))
             for shape, b in sizes]
    want = reaches(chain)
    assert topologies.layers_to_reach(chain) == want
    product = np.eye(chain[0].shape[0], dtype=int)
    for layer in chain:
      product = (product @ mask_of(layer) > 0).astype(int)
    np.testing.assert_array_equal(
        topologies.reachability(chain), product.astype(bool))
    if want is not None:  # no topology can do with less
      most = [layer.describe()['degree'][1] for layer in chain[:want]]
      assert math.prod(most) >= chain[0].shape[0]


def test_square_layers_reach_in_log_n(make):
  """Any size, whether the degree divides it or not; some in a layer less."""
  rng = np.random.default_rng(3)
  hard = [(63, 4), (77, 3), (80, 3), (123, 5), (124, 5), (301, 4), (1, 1)]
  for n, d in hard + [(int(n), int(rng.integers(2, 2 + n // 4)))
                      for n in rng.integers(4, 161, size=150)]:
    topology = Topology((n, n), n // d)
    optimal = next(k for k in range(1, 12) if topology.degree**k >= n)
    layers = topology.describe()['layers_to_reach']
    assert layers == reaches([topology] * optimal)
    assert layers == optimal or n % topology.blocks
  assert make((9, 9), 9).describe()['layers_to_reach'] is None
  assert make((6, 9), 3).describe()['layers_to_reach'] is None


def test_debruijn_reaches_sooner_than_chance():
  """256 units of degree 4: 4 layers, where permutations take 6."""
  assert topologies.layers_to_reach([square(256, 4)] * 9) == 4
  for kind in ('random', 'thesis'):
    layers = [square(256, 4, kind, seed) for seed in range(9)]
    assert topologies.layers_to_reach(layers) == 6


def test_a_mixed_chain(make):
  chain = [make((12, 10), 3, 'random'), make((10, 14), 5, 'thesis'),
           make((14, 21), 7, 'weighing'), make((21, 12), 4)]
  product = np.eye(12, dtype=int)
  for layer in chain:
    product = (product @ mask_of(layer) > 0).astype(int)
  np.testing.assert_array_equal(topologies.reachability(chain), product > 0)
  assert topologies.layers_to_reach(chain) == reaches(chain)


def test_more_inputs_than_are_followed_at_once(monkeypatch):
  layers = [square(100, 4, 'random', seed) for seed in range(9)]
  want = topologies.layers_to_reach(layers)
  monkeypatch.setattr(topologies, '_CHUNK', 24)
  assert topologies.layers_to_reach(layers) == want


def test_erratum_a_bottleneck_of_algorithm_1_does_not_mix(make):
  """From a narrow layer to a wide one, blocks stay among themselves."""
  wide, narrow, b = 64, 16, 8
  for kind, mixed in [('thesis', False), ('random', True), ('debruijn', True)]:
    down = make((wide, narrow), b, kind, seed=1)
    up = make((narrow, wide), b, kind, seed=2)
    graph = topologies.block_graph(down, up)
    assert np.array_equal(graph, 2 * np.eye(b)) == (not mixed)
    share = topologies.reachability([down, up]).mean()
    assert (share == 1 / b) == (not mixed)


def test_the_block_graph_has_the_spectrum_of_the_product(make):
  for kind, (n, m, k), (b1, b2) in [
      ('random', (24, 36, 12), (12, 6)), ('debruijn', (16, 16, 16), (4, 8)),
      ('thesis', (20, 30, 10), (5, 10))]:
    first, second = make((n, m), b1, kind), make((m, k), b2, kind, seed=9)
    graph = topologies.block_graph(first, second)
    assert graph.sum() == m
    np.testing.assert_array_equal(graph.sum(axis=1), m // b1)
    np.testing.assert_array_equal(graph.sum(axis=0), m // b2)
    product = mask_of(first).astype(float) @ mask_of(second)
    size = min(b1, b2)
    scale = math.sqrt(n / b1 * k / b2)
    np.testing.assert_allclose(
        np.linalg.svd(product, compute_uv=False)[:size],
        scale * np.linalg.svd(graph, compute_uv=False), atol=1e-9)


@pytest.mark.parametrize('size, degree', [(64, 4), (256, 4), (256, 16)])
def test_a_random_layer_after_another_is_verified(size, degree, make):
  before = square(size, degree, 'random', seed=11)
  for seed in range(6):
    after = topologies.topology(
        jax.random.key(seed), (size, size), degree=degree, kind='random',
        previous=before)
    graph = topologies.block_graph(before, after)
    second = np.linalg.svd(graph, compute_uv=False)[1]
    assert second <= 2 * math.sqrt(degree - 1) + 1e-9
    gap = topologies.ramanujan_gap(before, after)
    assert gap == pytest.approx(2 * math.sqrt(degree - 1) - second)
    alone = square(size, degree, 'random', seed)
    # The first draw stands if it will do.
    assert (after == alone) == (topologies.ramanujan_gap(before, alone) >= 0)


def test_a_draw_that_will_not_do_is_replaced():
  """Where no draw will do, the best is kept: degree 1 has no gap."""
  misses = 0
  before = square(64, 4, 'random', seed=11)
  for seed in range(40):
    alone = square(64, 4, 'random', seed)
    misses += topologies.ramanujan_gap(before, alone) < 0
  assert 0 < misses < 12
  one = square(6, 1, 'random')
  after = topologies.topology(
      KEY, (6, 6), degree=1, kind='random', previous=one)
  assert topologies.ramanujan_gap(one, after) == -1
  # A cycle is on the bound, whatever the rounding says.
  two = Topology((32, 32), 16)
  assert topologies.ramanujan_gap(two, two) == 0


def test_a_million_units_cost_no_memory():
  topology = topologies.topology(KEY, (10**6, 10**6), degree=10)
  assert topology.order == b''
  assert topology.nnz == 10**7
  assert topology.describe()['layers_to_reach'] == 6
  # Nor time, that 10,000 layers never mix.
  assert topologies.layers_to_reach([Topology((64, 64), 64)] * 10_000) is None


def test_it_is_static(make):
  plain = make((8, 6), 2)
  assert hash(plain) == hash(Topology((8, 6), 2))
  with pytest.raises(dataclasses.FrozenInstanceError):
    plain.blocks = 3
  traces = []

  @jax.jit
  def count(x, topology):
    traces.append(topology)
    return x + topology.nnz

  count = jax.jit(count.__wrapped__, static_argnums=1)
  for seed in (0, 0, 1):
    count(1, make((8, 8), 2, 'random', seed=seed))
  assert len(traces) == 2
  assert 'order' not in repr(make((8, 8), 2, 'random'))


def test_a_traced_key_draws_no_static_permutation():
  with pytest.raises(ValueError, match='cannot be traced'):
    jax.jit(lambda key: topologies.topology(
        key, (8, 8), degree=2, kind='random').mask)(KEY)
  # A key that is merely used inside of jit is not traced.
  inside = jax.jit(lambda: topologies.topology(
      KEY, (8, 8), degree=2, kind='random').mask)()
  outside = topologies.topology(KEY, (8, 8), degree=2, kind='random').mask
  np.testing.assert_array_equal(inside, outside)
  assert jax.jit(lambda key: topologies.topology(
      key, (8, 8), degree=2).mask)(KEY).sum() == 16


def feasible(shape):
  """Every degree there is, by brute force."""
  n, m = shape
  return {int(mask_of(Topology(shape, b)).sum(axis=0).min())
          for b in range(1, min(n, m) + 1)}


def test_degrees_by_brute_force():
  for shape in [(7, 7), (12, 5), (5, 12), (30, 9), (1, 4), (4, 1), (1, 1)]:
    degrees = feasible(shape)
    for degree in range(-1, shape[0] + 4):
      if degree in degrees:
        found = topologies.topology(KEY, shape, degree=degree)
        assert found.degree == degree
        # The sparsest of them.
        assert found.blocks == max(
            b for b in range(1, min(shape) + 1)
            if Topology(shape, b).degree == degree)
      else:
        with pytest.raises(ValueError, match='nearest') as error:
          topologies.topology(KEY, shape, degree=degree)
        named = {int(d) for d in re.findall(r'degree=(\d+) \(', str(error.value)
                                            )}
        below = [d for d in degrees if d < degree]
        above = [d for d in degrees if d > degree]
        assert named == {f(some) for f, some in ((max, below), (min, above))
                         if some}


def test_ten_thousand_random_requests():
  """Either what was asked for, or the nearest that works."""
  rng = np.random.default_rng(8)
  refused = []
  for _ in range(10_000):
    shape = tuple(int(2**x) for x in rng.uniform(0, 10, size=2))
    if rng.random() < 0.3:
      shape = shape[:1] * 2
    kind = ['debruijn', 'random', 'thesis', 'weighing'][rng.integers(4)]
    if kind == 'weighing' and rng.random() < 0.8:
      shape = tuple(int(rng.choice([7, 13, 49, 91])) * s for s in shape)
    blocks = 2**rng.uniform(0, 8)
    degree, density = [
        (int(shape[0] / blocks), None), (None, 1 / int(blocks)),
        (None, 1 / blocks)][rng.integers(3)]
    try:
      found = topologies.plan(shape, degree, density, kind)
    except ValueError as error:
      refused.append((shape, kind, str(error)))
      continue
    low = found.degree
    high = low if kind == 'weighing' else low + 1
    assert low * shape[1] <= found.nnz <= high * shape[1]
    if density is None:
      assert low == degree
    else:
      want = 1 / found.blocks if kind != 'weighing' else found.density
      assert want == pytest.approx(density, rel=0.0201)
  assert 2000 < len(refused) < 8000
  for shape, kind, message in refused:
    assert str(shape) in message
    assert 'nearest' in message
    for degree in re.findall(r'degree=(\d+) \(', message):
      assert topologies.plan(shape, int(degree), None, kind).degree == int(
          degree)
    for near in re.findall(r'shape that works is \((.*), (.*)\)', message):
      assert weighing.orders(math.gcd(*map(int, near)))


@pytest.mark.parametrize('request_, message', [
    ({}, 'give one of the two'),
    ({'degree': 2, 'density': .5}, 'give one of the two'),
    ({'degree': 2, 'kind': 'butterfly'},
     "'butterfly' is unknown; use debruijn, random, thesis, weighing"),
    ({'degree': 'two'}, "degree='two' must be a finite number"),
    ({'density': math.nan}, 'must be a finite number'),
    ({'degree': 2.5}, r'nearest that works: degree=2 .* and degree=4'),
    ({'degree': 9}, r'nearest that works: degree=8 \(density 1\)$'),
    ({'density': .7}, r'degree=4 \(density 0.5\) and degree=8 \(density 1\)'),
    ({'density': 0.}, r'degree=1 \(density 0.125\)'),
    ({'density': 1.5}, r'degree=8 \(density 1\)'),
    ({'degree': 4, 'kind': 'weighing'}, r'nearest shape that works is \(7, 7'),
    ({'degree': 2, 'previous': Topology((8, 8), 2)}, "for kind='random'"),
    ({'degree': 2, 'kind': 'random', 'previous': Topology((8, 4), 2)},
     'must be equal'),
    ({'degree': 2, 'kind': 'random', 'previous': 'x'}, "previous='x' is no To"),
    ({'degree': 10**400}, 'must be a finite number'),
    ({'density': 10**400}, 'must be a finite number'),
])
def test_requests_that_are_refused(request_, message):
  with pytest.raises(ValueError, match=message):
    topologies.topology(KEY, (8, 8), **request_)


@pytest.mark.parametrize('density', [0.25, 1e-5])
def test_a_density_of_16_bits_is_as_any(density):
  requests = [density, np.float16(density)]
  if density == 0.25:
    one, other = (topologies.topology(KEY, (512, 512), density=x)
                  for x in requests)
    assert one == other
  else:
    for x in requests:
      with pytest.raises(ValueError, match='nearest that works: degree=1 '):
        topologies.topology(KEY, (512, 512), density=x)


@pytest.mark.parametrize('arguments, message', [
    (((8, 8), 0), 'number that works is 1'),
    (((8, 6), 9), 'number that works is 6'),
    (((8, 8, 8), 2), 'two sizes'), (((0, 8), 1), 'at least 1'),
    (((7, 14), 2, 'weighing'), 'product of 7s and 13s'),
    (((8, 8), 2, 'debruijn', b'1234'), "not that of kind='debruijn'"),
    (((8, 8), 2, 'random', b'1234'), "not that of kind='random'"),
    (((8, 8), 2, 'random', '1234' * 8), "not that of kind='random'"),
    (((8, 8), 2, 'random', bytes(32)), 'no permutation of 8 units'),
    (((4, 8), 2, 'thesis', np.arange(1, 9, dtype=np.int32).tobytes()),
     'no permutation of 8 units'),
    (((8, 8), 2.5), 'blocks=2.5 must be an integer'),
    (((8, 8), 2.), 'blocks=2.0 must be an integer'),
    (((8, 8), None), 'blocks=None must be an integer')])
def test_topologies_that_are_none(arguments, message):
  with pytest.raises(ValueError, match=message):
    Topology(*arguments)


def test_integers_of_any_type():
  found = Topology((np.int8(8), np.uint16(6)), np.int64(2))
  want = Topology((8, 6), 2)
  assert (found, hash(found)) == (want, hash(want))
  assert {type(x) for x in (*found.shape, found.blocks)} == {int}


@pytest.mark.parametrize('shape', [
    8, None, (8, None), (8, math.inf), (8, 'x'), '88', (8, 8.), (8,), (-8, 8)])
def test_shapes_that_are_none(shape):
  for make in (lambda: Topology(shape, 1),
               lambda: topologies.topology(KEY, shape, degree=2)):
    with pytest.raises(ValueError, match='two sizes of at least 1; got shape'):
      make()


@pytest.mark.parametrize('key', [None, 0, 'x'])
def test_keys_that_are_none(key):
  for kind in ('random', 'thesis'):
    with pytest.raises(ValueError, match='is no JAX PRNG key'):
      topologies.topology(key, (8, 8), degree=2, kind=kind)


def test_chains_that_are_none(make):
  for call in (topologies.layers_to_reach, topologies.reachability):
    with pytest.raises(ValueError, match='at least one'):
      call([])
    with pytest.raises(ValueError, match=r'topology 1 of shape \(6, 8\) has 8'):
      call([make((8, 6), 2), make((6, 8), 2), make((6, 6), 2)])
  with pytest.raises(ValueError, match='no disjoint blocks'):
    topologies.block_graph(make((7, 7), 7, 'weighing'), make((7, 7), 2))
  with pytest.raises(ValueError, match='no permutation'):
    Topology((8, 8), 2, 'random').coordinates()
