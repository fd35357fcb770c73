r"""Sparsity-aware orthogonal initialization: exact, connected, fast.

**Method.** A kernel K (n, m) keeps b disjoint blocks of about n/b inputs and
m/b outputs, and every block holds a Haar-distributed matrix with orthonormal
columns (rows, if it has more of them). So $K^T K = I$ ($K K^T = I$ for m > n)
with a fraction of about 1/b of the weights: at initialization a deep linear
network is an isometry, however sparse. `topology` says which weights exist,
`orthogonal_values` samples them without the zeros, `matmul` and `conv` compute
with these, `to_dense` and `from_dense` map them to a kernel and back. The
Initializers are `orthogonal`, `delta_orthogonal` and `eco`; their `aux` holds
the mask, to be kept by `masks.keep_masked`. `blocks` is that of layers which
store the values alone.

**Which blocks.** With $d = n/b$ inputs an output, output i takes the inputs
$(d i + r) \bmod n$, $r < d$: 'debruijn'. Where b divides n and m, L layers
connect every input to every output iff $\prod_l d_l \ge n_0$; the product
needs no index, only a reshape, a batched product and a transpose. Else sizes
differ by one: any b up to min(n, m) gives an exactly orthogonal kernel.
$\lceil \log_d n \rceil$ layers (n, n) of degree d connect everything for any
n, and none can do with fewer if d divides n. 'random' permutes the inputs,
'thesis' is Algorithm 1. 'weighing' is the exception without blocks: weighing
matrices, which are connected, sparse and orthogonal, and rare.

**Convolutions.** Whole kernels are kept or removed. `delta_orthogonal` puts
the matrix at one tap, the others of a kept kernel start at 0 and train. `eco`
is the inverse DFT of orthogonal matrices P[p], with P[-p] = P[p] or its
conjugate. Both are orthogonal in either order of channels; exact singular
values are those of the kernel's DFT matrices (Sedghi, Gupta, Long, 2019).

**ReLU.** `looks_linear='out'`, `'both'` and `'in'` make [Q, -Q],
[[Q, -Q], [-Q, Q]] and [Q; -Q]: $relu(h) Q - relu(-h) Q = h Q$. The block in the
middle has the singular values 0 and 2, the network's Jacobian only 1.

**Errata.** What does not hold as printed in Esguerra's thesis, or in its
reference code, each shown by a test in `tests/sao`:

1. The mask is not a Ramanujan graph: of b disjoint blocks of ones (d, c) the
   largest singular value $\sqrt{c d}$ has multiplicity b, so the second equals
   the first, and $c d - (\sqrt{c-1} + \sqrt{d-1})^2 = (\sqrt{(c-1)(d-1)} -
   1)^2 \ge 0$. The thesis counts a multiple value once and finds 0. What can be
   Ramanujan is the graph between the blocks of two layers, `block_graph`:
   random permutations mostly make it so, and `topology(previous=...)` verifies
   it. `describe()` reports both gaps.
2. Algorithm 1 is no better connected than chance: 256 units of degree 4 take 6
   layers, 'debruijn' 4. After a narrowing layer, a widening one does not mix
   its blocks at all, as both leave the narrow side strided.
3. `orth(rand)` is not Haar distributed: its first column is nearly constant.
4. ECO needs $(k^2 + 1) / 2$ matrices for odd k and $(k^2 + 4) / 2$ for even k,
   as the thesis says and its code does not draw. They have to share one mask:
   else three in four kernels survive a density of one in four. Padding and
   slicing a square mask leaves channels without inputs; here every block is
   rectangular instead. Real P makes every kernel even; `frequencies='complex'`
   does not.
5. ECO is orthogonal only with dilation n / k, k | n and circular padding.
6. $\lfloor k / 2 \rfloor$ is no centre of an even kernel: it shifts the image,
   and zero padding cuts what leaves it. The centre is (k - 1) // 2.

**When it helps.** Very deep networks of plain layers, thousands of them, where
any initializer but an orthogonal one needs normalization; and wide layers,
whose cost falls with the density if they compute with the values. A product
with a masked dense kernel saves nothing. It is not alone: products of Givens
rotations, `pruning.givens`, are as exact and train as well. It is no help with
batch normalization or skip connections, where pruned and random kernels end as
SAO does (`experiments/configs/sao/residual.py`); nor, in the thesis, in trading
width for depth. First and last layers stay dense: give them a rule of their
own.

Source: K. S. Esguerra, Sparsity-Aware Orthogonal Initialization of Multilayer
Perceptrons and Convolutional Neural Networks, MSc thesis, Universiti Teknologi
PETRONAS (2023).
"""

from structinit_jax.sao.compute import conv
from structinit_jax.sao.compute import matmul
from structinit_jax.sao.compute import space_to_depth
from structinit_jax.sao.initializers import blocks
from structinit_jax.sao.initializers import delta_orthogonal
from structinit_jax.sao.initializers import eco
from structinit_jax.sao.initializers import orthogonal
from structinit_jax.sao.storage import load
from structinit_jax.sao.storage import save
from structinit_jax.sao.topologies import block_graph
from structinit_jax.sao.topologies import layers_to_reach
from structinit_jax.sao.topologies import ramanujan_gap
from structinit_jax.sao.topologies import reachability
from structinit_jax.sao.topologies import spectrum
from structinit_jax.sao.topologies import Topology
from structinit_jax.sao.topologies import topology
from structinit_jax.sao.weights import delta_values
from structinit_jax.sao.weights import eco_values
from structinit_jax.sao.weights import from_dense
from structinit_jax.sao.weights import orthogonal_values
from structinit_jax.sao.weights import to_dense

__all__ = [
    'Topology', 'block_graph', 'blocks', 'conv', 'delta_orthogonal',
    'delta_values', 'eco', 'eco_values', 'from_dense', 'layers_to_reach',
    'load', 'matmul', 'orthogonal', 'orthogonal_values', 'ramanujan_gap',
    'reachability', 'save', 'space_to_depth', 'spectrum', 'to_dense',
    'topology',
]
