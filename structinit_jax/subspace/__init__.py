r"""Training in random subspaces: few coordinates in place of all parameters.

**Method.** A network's D parameters are $\theta = \theta_0 + P w$ with a fixed
random P (D, d) and d coordinates w, the only thing that is trained. The least d
at which 90 % of the ordinary accuracy is reached, d90, is what Li et al. call
the intrinsic dimension of a task for a network. Stored are w and the key that P
is made from, whatever D is.

`reparameterize` makes `w` and a pure `expand(w) -> params`; `within` keeps a
training loop that knows nothing of it in the subspace, by what it does to the
gradient and to the update. Rules say which leaves are projected, trained as
they are, or frozen; `per_layer` gives every layer a P of its own, and divides d
by rule. `save` and `load` are a model in 4 d bytes and a header. `drawn` is an
Initializer: kernels $P w$ of a few normal coordinates.

**Without the matrix.** `projection` is P as a linear operator made anew from
its key at every use; `transpose` is its exact adjoint, and the derivative. The
default, 'hadamard', has orthonormal columns for every D and d, which QR has
only where P fits into memory. Rows are cut into blocks of n = 2^k >= d rows,
each $S' H S / \sqrt{n}$ with independent random signs S, S': n log n sums.
Rows that are left over become smaller blocks, of some coordinates each; a
coordinate is scaled by how many blocks it is in, so $P^T P = I$ exactly.

**Which learning rate.** A step of gradient descent on w moves $\theta$ by
$P P^T g$: at a column norm c and orthogonal columns, $c^2$ times the projection
of the ordinary step, and Adam's steps are c times as long in $\theta$. So the
learning rate and the column norm are one number (with SGD $lr\, c^2$, with Adam
$lr\, c$), and what a comparison of projections at different norms compares is
learning rates. The report's norms, `column_norm=None`, differ by up to
$\sqrt{D/d}$ among its kinds. At c = 1 SGD takes several times the rate of
ordinary training, Adam tens of times (`experiments/configs/subspace/rates.py`).

**Bits.** `expand` gives the same bits under jit or not, in any process and on
any number of devices, for the kinds that only add, flip and look up:
'hadamard', 'srht', 'fastfood', 'identity' and the sparse ones. 'gaussian',
'achlioptas', 'orthonormal' and the nested ones are products, which a backend
may sum in another order.

**Sharded parameters.** A device makes the blocks of 'hadamard' that hold rows
of its own, and nothing is sent but gradients by w, for parameters whose
shardings are known, or given to `expand` and `within`. Of an array that is
divided along its first axes it makes its share, and less than two blocks more a
piece; of others it makes all and keeps a part. The other kinds are made whole,
or as XLA divides them.

**Errata** of Minut's report and its code, each shown by a test in
`tests/subspace`:

1. Its sampler of sparse columns seeds the generator anew for every column, so
   all columns have their nonzeros in the same rows: "sparse" moves 1 of
   $\sqrt{d}$ weights and none of the others, "sparse_original" 1 of $\sqrt{D}$
   (of "sparse2", whose entries are positive or 0, each column half of them).
   That is '..._nested' here, with as many nonzeros in every column (there their
   number varies); the kinds without it draw every column apart.
2. Its kinds have column norms from 1 to $\sqrt{D/d}$ at one learning rate, so
   their ranking is one of learning rates, too. Equation 1 and "$\pm\sqrt{D}$"
   do not match the code; the values here are the code's.

Source: C. Li, H. Farkhoor, R. Liu, J. Yosinski, Measuring the intrinsic
dimension of objective landscapes (2018); R. A. Minut, Training on parameters
subspaces (2023); Q. Le, T. Sarlos, A. Smola, Fastfood (2013).
"""

from structinit_jax.subspace.initializers import drawn
from structinit_jax.subspace.projections import Projection
from structinit_jax.subspace.projections import projection
from structinit_jax.subspace.storage import load
from structinit_jax.subspace.storage import save
from structinit_jax.subspace.training import reparameterize
from structinit_jax.subspace.training import Subspace
from structinit_jax.subspace.training import within
from structinit_jax.subspace.training import WithinState

__all__ = [
    'Projection', 'Subspace', 'WithinState', 'drawn', 'load', 'projection',
    'reparameterize', 'save', 'within',
]
