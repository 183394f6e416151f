"""Which of several processes this is, where training runs in more than one."""

from __future__ import annotations

import os
import sys

from enzyme_stability.errors import EnzymeStabilityError


def process_rank() -> int:
    """Number of this process among those that train together, as torchrun or Lightning tells it; 0 for one alone."""
    return int(os.environ.get("RANK") or os.environ.get("LOCAL_RANK") or 0)


def process_count() -> int:
    """How many processes train together, as torchrun or Lightning tells it; 1 for one alone."""
    return int(os.environ.get("WORLD_SIZE") or 1)


def wait_for_all() -> None:
    """Go on when every process that trains along has come this far; at once where this one is alone.

    Raises:
        EnzymeStabilityError: One of the others has ended.
    """
    distributed = sys.modules.get("torch.distributed")  # not imported: nothing was trained in several processes
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return
    try:
        distributed.barrier()
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise EnzymeStabilityError(f"a process that trains along has ended, so this one ends too: {reason}") from None
