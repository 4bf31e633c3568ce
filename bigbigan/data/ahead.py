"""Decode ahead of the caller: in threads for a while, in processes for a run."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from bigbigan.distributed import cores

Item, Result = TypeVar("Item"), TypeVar("Result")


def decoding_threads() -> int:
    """Return how many threads decode images for a process that computes; decoding releases the GIL."""
    return min(8, cores())


def decoding_processes() -> int:
    """Return how many processes decode images for one that computes: one less than its cores, at least one."""
    return max(1, cores() - 1)


def read_in_threads(read: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield `read(item)` of each item in order. Threads are ahead of the caller by twice their number of items."""
    waiting: deque[Future[Result]] = deque()
    threads = decoding_threads()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(read, item))
                if len(waiting) > 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
