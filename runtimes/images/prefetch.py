"""Do work ahead of whoever needs it: items go in, their results come out in the same order, made by threads and bounded in number.

Pillow and the runtimes let go of Python's lock while they compute, so threads are enough. The work of an item never raises here: it
returns what is wrong as its result.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def read_ahead(work: Callable[[Item], Result], items: Iterable[Item], workers: int, ahead: int) -> Generator[Result, None, None]:
    """Yield `work(item)` of each item, in order.

    Closing the iterator early drops what has not begun and waits for what has: no thread is left.

    Args:
        work: Safe to run in several threads at once.
        items: Taken one by one, never more than `ahead` before their results are.
        workers: Threads; 0 works in the caller's, when a result is asked for.
        ahead: Results that may wait or be in the making; at least 1.
    """
    if workers == 0:
        yield from map(work, items)
        return
    coming = iter(items)
    with ThreadPoolExecutor(workers, thread_name_prefix="read-ahead") as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            waiting.extend(pool.submit(work, item) for item in islice(coming, ahead))
            while waiting:
                result = waiting.popleft().result()
                waiting.extend(pool.submit(work, item) for item in islice(coming, 1))
                yield result
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # leaving the block waits
