"""Which of the processes this one is, where several train or evaluate one network together."""

import torch
from torch import distributed


def place_among_processes() -> tuple[int, int]:
    """Return this process's rank and the number of processes; ``(0, 1)`` where there is only this one."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def sum_over_processes(values: torch.Tensor) -> torch.Tensor:
    """Return the sum of all processes' tensors, which have one shape; every process has to call it."""
    summed = values.clone(memory_format=torch.contiguous_format)
    distributed.all_reduce(summed, distributed.ReduceOp.SUM)
    return summed


def largest_over_processes(values: torch.Tensor) -> torch.Tensor:
    """Return the largest values of all processes' tensors, which have one shape; every process has to call it."""
    largest = values.clone(memory_format=torch.contiguous_format)
    distributed.all_reduce(largest, distributed.ReduceOp.MAX)
    return largest
