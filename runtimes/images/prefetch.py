"""Process items ahead of their consumer in threads, with results in order and in bounded number.

Threads are sufficient, since Pillow and the engines release the GIL while they compute. The work function returns its errors instead of
raising them.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def read_ahead(work: Callable[[Item], Result], items: Iterable[Item], workers: int, ahead: int) -> Generator[Result, None, None]:
    """Yield `work(item)` for each item, in order.

    Closing the generator early cancels work that has not started and waits for work that has. No thread remains.

    Args:
        work: Function that several threads may call at once. It does not raise.
        items: Consumed one by one, at most `ahead` items before their results are consumed.
        workers: Number of threads. 0: `work` runs in the caller's thread when a result is requested.
        ahead: Largest number of results that are finished or in progress and not yet consumed; at least 1.
    """
    if workers == 0:
        yield from map(work, items)
        return
    remaining = iter(items)
    with ThreadPoolExecutor(workers, thread_name_prefix="read-ahead") as pool:
        pending: deque[Future[Result]] = deque()
        try:
            pending.extend(pool.submit(work, item) for item in islice(remaining, ahead))
            while pending:
                result = pending.popleft().result()
                pending.extend(pool.submit(work, item) for item in islice(remaining, 1))
                yield result
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # the end of the with block waits for running work
