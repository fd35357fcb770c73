"""Strict JAX for every test: eight devices, no silent promotion."""

import os

# Most of a test's time goes into compiling what then runs once: LLVM's loops
# take two thirds of the time of MLIR's, level 1 two thirds of the default's. It
# is the level of tests marked `optimized`, and of processes that tests start.
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


class Levels:
  """Compiles at level 0, in half the time, what is not marked `optimized`."""

  @pytest.hookimpl(tryfirst=True)  # before the fixtures
  def pytest_runtest_setup(self, item):
    hurry = item.get_closest_marker('optimized') is None
    if hurry != jax.config.read('jax_disable_most_optimizations'):
      jax.config.update('jax_disable_most_optimizations', hurry)
      jax.clear_caches()


def pytest_configure(config):
  # Not a hook of this file, which would be for the tests beside it alone.
  config.pluginmanager.register(Levels())


@pytest.fixture(scope='module', autouse=True)
def forget_programs():
  """Compiled programs of thousands of tests would take gigabytes."""
  yield
  jax.clear_caches()
