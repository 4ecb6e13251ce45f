"""Worker processes on this machine: spawned, ended with their parent, deaf to Ctrl-C, which the parent answers."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from typing import Any, TypeVar

from jepa_mpc.errors import UserError

T = TypeVar("T")


def granted_cores() -> int:
    """Returns the cores that this process may use, shared among the processes that torchrun starts."""
    granted = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, granted // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


def run_parallel(
    function: Callable[..., T],
    calls: Sequence[tuple[Any, ...]],
    num_processes: int,
    begin: Callable[[], None] | None = None,
) -> Iterator[T]:
    """Yields results of `function(*call)` as they are done, by worker processes that first call `begin`.

    Raises `UserError` if a worker is killed.
    """
    pool = ProcessPoolExecutor(num_processes, mp_context=get_context("spawn"), initializer=_begin, initargs=(begin,))
    try:
        with _interrupts_held():  # workers inherit it, from their first import on
            futures = [pool.submit(function, *call) for call in calls]
        for future in as_completed(futures):
            yield future.result()
    except BrokenProcessPool as error:
        raise UserError("a worker process was killed; the same command goes on from here") from error
    finally:
        with _interrupts_held():  # impatience while calls at hand are done must not leave workers behind
            pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(begin: Callable[[], None] | None) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if begin is not None:
        begin()


def _end_with_parent() -> None:
    """Ends this process with its parent: else it would go on, into the files of the parent's successor."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
