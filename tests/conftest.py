"""Strict JAX for every test: eight devices, no silent promotion."""

import os

# Most of a test's time goes into compiling what then runs once: level 1 takes
# two thirds of what the default takes, LLVM's loops instead of MLIR's two
# thirds of that. The notebooks are compiled as users compile.
os.environ['XLA_FLAGS'] = (
    '--xla_backend_optimization_level=1 --xla_cpu_use_fusion_emitters=false '
    + os.environ.get('XLA_FLAGS', '')
    + ' --xla_force_host_platform_device_count=8')
# LAPACK slows to a crawl when its threads outnumber the cores.
os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')

import jax  # reads the flags
import pytest

jax.config.update('jax_numpy_dtype_promotion', 'strict')
jax.config.update('jax_numpy_rank_promotion', 'raise')


@pytest.fixture(scope='module', autouse=True)
def forget_programs():
  """Compiled programs of thousands of tests would take gigabytes."""
  yield
  jax.clear_caches()
