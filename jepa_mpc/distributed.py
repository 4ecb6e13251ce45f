"""Work shared by several processes, as torchrun starts them, with the results of one.

In training, every process draws the whole batch's indices and random numbers, and works on its share of the windows;
gradients are averaged by DistributedDataParallel. What is not a mean over windows must see all of them:
`mean_over_ranks` serves statistics (BatchNorm's, SIGReg's characteristic functions), `gather` losses that compare
samples with each other. Both let gradients through so that the average over ranks is the gradient of the whole batch.
In a process alone, all of this leaves things as they are.
"""

import contextlib
import os
from collections.abc import Collection, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from jepa_mpc.errors import UserError
from jepa_mpc.files import claimed

T = TypeVar("T")
PATIENCE = timedelta(days=1)  # with processes that collect longer than others, or report while they wait


@contextlib.contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Joins the processes that torchrun has started, if it has."""
    if "RANK" not in os.environ or dist.is_initialized():
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield
    finally:
        dist.destroy_process_group()


def rank() -> int:
    """Returns this process's number; 0 where it is alone."""
    return dist.get_rank() if dist.is_initialized() else 0


def num_ranks() -> int:
    """Returns how many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def gather_lists(mine: list[T]) -> list[T]:
    """Returns the ranks' lists one after another."""
    lists: list[list[T]] = [mine] * num_ranks()
    if num_ranks() > 1:
        dist.all_gather_object(lists, mine)
    return [item for each in lists for item in each]


@contextlib.contextmanager
def claimed_by_first(folder: Path, settings: Mapping[str, Any], free: Collection[str] = ()) -> Iterator[None]:
    """Makes a folder the first process's own while the block lasts (`files.claimed`); what it is refused, all are."""
    with contextlib.ExitStack() as claim:
        refusals = []
        if rank() == 0:
            try:
                claim.enter_context(claimed(folder, settings, free))
            except UserError as error:
                refusals = [str(error)]
        for refusal in gather_lists(refusals):
            raise UserError(refusal)
        yield


def wait_for_all() -> None:
    """Waits until every process has come here."""
    if num_ranks() > 1:
        dist.barrier()


def share(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns this rank's part of the rows (B, ...): equal parts, in order."""
    size, rest = divmod(len(rows), num_ranks())
    if rest:
        raise ValueError(f"{num_ranks()} processes cannot share {len(rows)} windows evenly; change the batch size")
    return rows[rank() * size : (rank() + 1) * size]


def sum_over_ranks(x: Tensor) -> Tensor:
    """Returns the sum of the ranks' tensors, the same on all of them."""
    return _Sum.apply(x) if num_ranks() > 1 else x


def mean_over_ranks(x: Tensor) -> Tensor:
    """Returns the mean of the ranks' tensors, the same on all of them."""
    return sum_over_ranks(x) / num_ranks()


def gather(x: Tensor) -> Tensor:
    """Returns the ranks' tensors (n, ...) one after another (N, ...)."""
    others = x.new_zeros(num_ranks(), *x.shape)
    return sum_over_ranks(torch.cat([others[: rank()], x[None], others[rank() + 1 :]])).flatten(0, 1)


def everyones(x: Tensor) -> Tensor:
    """Returns the ranks' tensors (...) stacked (R, ...), without gradients, at half the traffic of a sum."""
    all_of_them = [torch.empty_like(x) for _ in range(num_ranks())]
    dist.all_gather(all_of_them, x)
    return torch.stack(all_of_them)


class _Sum(torch.autograd.Function):
    """Sums the ranks' tensors, and their gradients: each rank's result depends on all inputs alike."""

    @staticmethod
    def forward(ctx, x):
        total = x.contiguous().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, grad):
        return _Sum.apply(grad)


class _Step(nn.Module):
    """Makes a module of a function of some parameters, as DistributedDataParallel wants it."""

    def __init__(self, function, trained: nn.Module):
        super().__init__()
        self.function, self.trained = function, trained

    def forward(self, *args):
        return self.function(*args)


def average_gradients(function, trained: nn.Module):
    """Returns the function, whose result's gradients for the parameters of `trained` are means over the ranks."""
    if num_ranks() == 1:
        return function
    # Buffers are statistics of the whole batch, so they agree already. A phase always trains the same parameters.
    return DistributedDataParallel(
        _Step(function, trained), forward_sync_buffers=False, gradient_as_bucket_view=True, static_graph=True
    )
