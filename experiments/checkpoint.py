"""Checkpoints: the training state inside a run, the parameters after it.

Everything that knows Orbax is here.
"""

import pathlib
import shutil
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

__all__ = ['RunCheckpoint', 'load_params', 'save_params']


class RunCheckpoint:
  """The last training state of a block of seeds, saved atomically."""

  def __init__(self, path: pathlib.Path):
    """Opens, or prepares to create, the checkpoint at a path.

    Args:
      path: a folder of its own.
    """
    self._path = path.absolute()
    self._manager: ocp.CheckpointManager | None = None

  def _open(self) -> ocp.CheckpointManager:
    if self._manager is None:
      self._manager = ocp.CheckpointManager(
          self._path, options=ocp.CheckpointManagerOptions(max_to_keep=1))
    return self._manager

  def restore(self, state: Any) -> tuple[int, Any, Any] | None:
    """Returns what was saved last, if anything was.

    Args:
      state: a state of the same structure, for shapes and shardings.

    Returns:
      None, or `(epoch, state, history)`.
    """
    if not self._path.is_dir():
      return None
    manager = self._open()
    epoch = manager.latest_step()
    if epoch is None:
      return None
    target = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
        state)
    saved: Any = manager.restore(epoch, args=ocp.args.Composite(
        state=ocp.args.StandardRestore(target),
        history=ocp.args.JsonRestore()))
    return epoch, saved.state, saved.history

  def save(self, epoch: int, state: Any, history: Any) -> None:
    """Saves; the state may be overwritten once this returns.

    Args:
      epoch: epochs done.
      state: pytree of arrays.
      history: JSON-serialisable.
    """
    manager = self._open()
    manager.save(epoch, args=ocp.args.Composite(
        state=ocp.args.StandardSave(state),
        history=ocp.args.JsonSave(history)))
    manager.wait_until_finished()

  def delete(self) -> None:
    """Removes the checkpoint: its run is finished."""
    if self._manager is not None:
      self._manager.close()
      self._manager = None
    shutil.rmtree(self._path, ignore_errors=True)


def save_params(path: pathlib.Path, params: Any) -> None:
  """Saves final parameters, atomically; a folder already there is replaced.

  Args:
    path: a folder of its own.
    params: pytree of arrays.
  """
  with ocp.StandardCheckpointer() as checkpointer:
    checkpointer.save(path.absolute(), params, force=True)


def load_params(path: pathlib.Path) -> Any:
  """Loads what `save_params` saved, as numpy arrays.

  Args:
    path: the folder.

  Returns:
    The parameters.
  """
  path = path.absolute()
  with ocp.PyTreeCheckpointer() as checkpointer:
    names = checkpointer.metadata(path).item_metadata.tree
    as_numpy = jax.tree.map(
        lambda _: ocp.RestoreArgs(restore_type=np.ndarray), names)
    return checkpointer.restore(path, restore_args=as_numpy)
