r"""Low-rank networks that start as the function of full-rank ones.

**Method.** A kernel W (d, n) becomes U V of rank r: d r + r n weights in place
of d n. What a network is at initialization is a function, so the factors should
give the outputs past the activation, not the kernel:

$L(U, V) = E_{x \sim N(0, I)} \| f(x W) - f(x U V) \|^2$

Of Gaussian inputs this has a closed form, `objective`: it depends on the norms
of the columns of W and U V and the cosines between them, through the
activation's dual kernel. For the ReLU, $h(\rho) = (\sqrt{1 - \rho^2} + (\pi -
\arccos \rho) \rho) / \pi$ and

$L = \frac12 \sum_i |w_i|^2 + |y_i|^2 - 2 |w_i| |y_i| h(\rho_i)$.

In a subspace the best column is the projection at the norm $|w_i| h(\rho_i)$;
the truncated SVD leaves it at $|w_i| \rho_i$, which is less, and `svd_gap` says
what that costs. `factorize` is all methods of the paper for one kernel, `lfai`
for a tree of factors `u`, `v`, `compress` for a trained network.
`factor_shapes` makes such a tree of any network's shapes, at a rank scale or
within a budget, and `layers.factored` lets a Flax model compute with it.

**The exact method.** What is left to choose is the subspace. The objective is
concave in an orthonormal basis Q of it, up to a constant, so replacing it by
its tangent and solving that,

$Q \leftarrow qr( W diag( h(\rho_i) h'(\rho_i) / \rho_i ) W^T Q )$,

never goes up: no step size, no sample, 4 d n r operations a step. Other
activations take the derivative of their own kernel: GELU's is closed, any
smooth one's a Hermite series. With inputs N(0, S) it is solved for
$S^{1/2} W$.

**Convolutions** have two forms, `merge` and `conv` serve both: 'separable', a
(1, kw) and a (kh, 1) convolution, the matrix (kw in, kh out); and 'pointwise',
a (kh, kw) and a (1, 1) convolution, the matrix (kh kw in, out). In the former
kh columns of the matrix are one output, and the objective takes their norms and
cosines together.

**Attention** has no activation inside its two products, query with key and
value with output, so the closest smaller heads are their truncated singular
value decompositions: `narrow_attention`, and `layers.LowRankAttention`, which
starts so.

**Anything else.** `approximate` finds the parameters of one function that make
it the closest to another on sampled inputs: of a network as a whole (definition
2.2), of a layer of any structure, or of `layers.performer_attention` in place
of the softmax (appendix B). It is Adam, and costs what Adam costs.

**Errata**, each shown by a test in `tests/lowrank`:

1. Theorem 3.3 and corollary 3.4 do not hold: the best subspace need not be
   spanned by singular vectors. W = diag(1, 0.99) at rank 1: the best of them
   give 0.4404, the direction (1, 1) gives 0.4251, and the optimum, at 19.7
   degrees, 0.4178. 'relu_svd' is the paper's Algorithm 3 all the same.
2. Theorem 3.5 divides by d; the gap it gives is that of `objective`, undivided.
3. A column orthogonal to the subspace is not best at 0: any vector in the
   subspace of norm $|w_i| / \pi$ is closer, as both outputs have a mean.
4. A separable kernel is transposed before it is a matrix; without that a
   pretrained kernel is not reproduced at full rank.

**When it helps.** The gap between the truncated SVD and the exact solution is
widest at low ranks, least for activations that are nearly linear, and most of
it is the norms of the columns, 'rescaled'; only where singular values are
nearly equal does the subspace matter as much. After training little of it is
left: `colabs/lowrank.ipynb` and `experiments/published/demo` have the numbers.
What the closest factors lose is scale: where little of a column lies in the
subspace the best column is short, and a network without normalization starts
with outputs that fade layer by layer. `norms='kept'` gives columns the norms of
the kernel's, in the subspace that is best for those; on the demo it learns
faster than the closest factors, the SVD, and factors drawn as kernels are. For
trained networks keep the default, which is the smaller error.

Source: K. Vodrahalli et al., Nonlinear initialization methods for low-rank
neural networks (arXiv:2202.00834, 2022); M. Khodak et al., Initialization and
regularization of factorized neural layers (2021).
"""

from structinit_jax.lowrank.approximation import approximate
from structinit_jax.lowrank.approximation import Approximation
from structinit_jax.lowrank.attention import narrow_attention
from structinit_jax.lowrank.compute import conv
from structinit_jax.lowrank.factors import factorize
from structinit_jax.lowrank.factors import Factors
from structinit_jax.lowrank.forms import merge
from structinit_jax.lowrank.objectives import objective
from structinit_jax.lowrank.objectives import sampled_objective
from structinit_jax.lowrank.objectives import svd_gap
from structinit_jax.lowrank.plans import factor_shapes
from structinit_jax.lowrank.ranks import stable_rank
from structinit_jax.lowrank.trees import compress
from structinit_jax.lowrank.trees import frobenius_decay
from structinit_jax.lowrank.trees import layer_objectives
from structinit_jax.lowrank.trees import lfai
from structinit_jax.lowrank.trees import low_rank
from structinit_jax.lowrank.trees import pairs

__all__ = [
    'Approximation', 'Factors', 'approximate', 'compress', 'conv',
    'factor_shapes', 'factorize', 'frobenius_decay', 'layer_objectives', 'lfai',
    'low_rank', 'merge', 'narrow_attention', 'objective', 'pairs',
    'sampled_objective', 'stable_rank', 'svd_gap',
]
