"""Every field of a config, with the values that other configs start from."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the config."""
  config = ml_collections.ConfigDict()
  config.title = 'Initializers compared'

  # Data: see experiments/data.py. An empty folder means the usual place.
  config.dataset = 'digits'
  config.data_dir = ''
  config.tfds_dir = ''
  config.download = True
  config.allow_partial = False
  config.exclude_inexact = False
  config.train_size = 0  # the first so many images; 0: all

  # Model: a name in registry.MODELS, with options, e.g. 'mlp(widths=(512,))'.
  config.model = 'shallow_cnn'
  config.dtype = 'float32'  # of the computation; parameters stay float32

  # Training. `optimizer` and `schedule` take options: 'sgd(momentum=0.9)',
  # 'step(every=10, factor=0.316)' (in epochs).
  config.optimizer = 'sgd(momentum=0.9)'
  config.schedule = 'constant'
  config.learning_rate = 0.01
  config.weight_decay = 0.0
  config.frobenius_decay = 0.0  # of products of factors, in its place
  config.batch_size = 64
  config.augment = 'none'  # or such as 'crop_flip + cutmix(p=0.5)'
  config.label_smoothing = 0.0
  config.epochs = 1

  # What is compared: names in registry.INITIALIZERS with options, each with a
  # label if wanted ('label = name(option=value)'); differences are to
  # `baseline`, a label. Seeds are 0, 1, ..., seeds - 1.
  config.initializers = ('he_normal', 'grassmann')
  config.baseline = 'he_normal'
  config.seeds = 3

  # What does not change a result but by rounding: seeds trained at once (0: as
  # many as fit), whether an epoch is one scan (on a CPU, XLA compiles the
  # gradients of some convolutions badly in loops, jax issue 12868: LeNet trains
  # several times as fast without, larger networks more slowly), and how often a
  # long run is saved.
  config.seeds_at_once = 0
  config.scan_steps = True
  config.checkpoint_seconds = 60.0

  # Published first-epoch test accuracies in percent, to print beside ours:
  # (data set, label, value).
  config.paper = ()
  return config
