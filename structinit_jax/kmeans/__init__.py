r"""Joint k-means initialization: filters that are clusters of what they see.

**Method.** A layer's window sees patches $x_i$ of its inputs; spherical k-means
maximises $\sum_i \max_k x_i^T \theta_k / \|\theta_k\|$ over the layer's filters
$\theta_k$ (equation 3), so that filters point to where patches are. Labels play
no part. Zhou sums this over all layers, each seeing the outputs of those before
it, subtracts $\lambda$ times a penalty of filters that point the same way
(equations 4 and 5), and takes 10,000 steps of gradient descent. `joint` does
this to any Linen or NNX model, as its method 'joint'; the layers' true inputs,
windows, strides and paddings are met while the model runs, and scores are the
layers' own outputs, so no patch is stored. `clusters` is an Initializer of one
layer, for any framework; `score`, `cosine_penalty` and `statistics` are the
pieces; `lsuv` is the rival that looks at the scale of outputs alone.

**Whitened scores are batch normalization.** Of whitened patches
$z_i = \Sigma^{-1/2} (x_i - \mu)$ and filters $\phi_k = \Sigma^{1/2} \theta_k$
the score is $z_i^T \phi_k / \|\phi_k\| = (y_{ik} - \bar y_k) / \sigma_k$,
the layer's output as batch normalization makes it: what the network goes on
with. Lloyd's iteration in this metric is $\theta_k \propto (\Sigma + r I)^{-1}
\sum_{i \in k} (x_i - \mu)$, and no patch has to be whitened. 'whitened', the
default, does this layer by layer on the way of one run of the model, on a
random choice of patches; assignments are soft at first, and filters that win
nothing, or are nearly aligned with another, are made anew from patches that no
filter explains. Images hold a pattern and its negative alike, and so, at the
end, do clusters: in the last iterations filters are turned from each other
until no |cosine| is above 0.9, where the span of the patches has room for that:
16 filters of two live inputs stay crowded, as `Statistics` tells. A layer's
score depends on those before it by what they feed it, and on none after it: one
run in order is all there is to do. The ridge r keeps filters from the high
frequencies that images hardly have.

Clusters of centred patches balance: weighted by the patches they win, the
filters of a layer sum to 0 but for those that were turned, so that a kernel of
as many filters as inputs is nearly singular, its rank one less.

**Scale.** k-means gives directions. `scale='variance'` gives every filter
outputs of unit variance; 'kept' gives filters the norms they had. Of centred
patches, biases give outputs of mean 0. Under batch normalization the outputs do
not change, but the step that training makes does: gradients grow as filters
shrink.

**What holds and what does not** (`colabs/kmeans.ipynb`).

* The paper's first layer, edges and blobs of colour, comes out as it says
  (`experiments/published/benchmarks/kmeans.png`). Raw patches behind a ReLU all
  point to the positive orthant, and few of its filters win any there, whatever
  the penalty: after 10,000 steps on 256 images of CIFAR-10, 10 of 128 in the
  last convolution. Of whitened ones all win, in all convolutions, and no
  |cosine| is above 0.6 (`experiments/published/benchmarks/kmeans.json`).
* From k-means of raw patches, layer by layer (`start='greedy'`), 300 steps
  reach a lower value of the paper's loss than its 10,000, in a 31st of the
  time.
* Without batch normalization the paper's filters, which are not centred, leave
  ReLUs silent: in the demo's network most units are dead and it hardly trains
  (`experiments/published/demo`).
* That it beats Xavier's and He's kernels by SGD is not so in the first 200
  steps of the paper's network on CIFAR-10: those 300 steps lead to 31.8 %,
  whitened clusters to 35.8, He's to 36.3 and Xavier's to 39.6
  (`experiments/published/kmeans/table2_sgd_short`). The last two differ in
  scale alone; where outputs are normalized, that is a matter of the step.

**Errata** of the paper:

1. "All convolutional output sizes multiplied by 3, to make the number of
   parameters the same" as of gated layers: kernels of ordinary layers grow
   ninefold, those of gated ones threefold. The ordinary network is about three
   times as large (`tests/experiments/conv8_test.py`). `layers.gated_features`
   divides by $\sqrt 3$.
2. The deviations it gives for Xavier's and He's kernels are variances.
3. The penalty is said to be "linear in the angle"; it is the squared cosine.
   The exponential one that the paper would like is `kind='exponential'`.
4. Whether patches are summed or averaged, which scales $\lambda$, the step size
   and the optimizer are not said; here sums over a minibatch of 64, and Adam.
   Images are said to be of the test set; here they are whatever is passed.

**When it helps.** In the first epochs, a little, where nothing normalizes, and
there LSUV does about as well; not measurably at the end, nor with batch
normalization, on handwritten digits (`colabs/kmeans.ipynb`) or CIFAR-10. It
needs images, scaled as in training.

Source: B. Zhou, Gated convolutional layers and joint k-means weight
initialization; A. Coates and A. Ng, Learning feature representations with
k-means (2012); P. Kraehenbuehl, C. Doersch, J. Donahue, T. Darrell,
Data-dependent initializations of convolutional neural networks, ICLR 2016.
"""

from structinit_jax.kmeans.initializers import clusters
from structinit_jax.kmeans.initializers import joint
from structinit_jax.kmeans.initializers import joint_loss
from structinit_jax.kmeans.initializers import layer_statistics
from structinit_jax.kmeans.initializers import lsuv
from structinit_jax.kmeans.objectives import cosine_penalty
from structinit_jax.kmeans.objectives import score
from structinit_jax.kmeans.objectives import scores
from structinit_jax.kmeans.objectives import Statistics
from structinit_jax.kmeans.objectives import statistics

__all__ = [
    'Statistics', 'clusters', 'cosine_penalty', 'joint', 'joint_loss',
    'layer_statistics', 'lsuv', 'score', 'scores', 'statistics',
]
