"""The captioning subprocess, a worker of `runtimes.workers`. It is fed batches; its progress is a `Ready`, then one row per image.

Images reach native code here (Pillow, the engine), which may crash the process. An exception of a library ends it too. The supervisor
finds the batch by its missing rows.
"""

from typing import TYPE_CHECKING, Any

from runtimes.artifact import json_dataclass
from runtimes.errors import EngineError
from runtimes.loading import load
from runtimes.pool.captioning import load_arguments, ready_of, rows_of
from runtimes.pool.job import CaptionJob, Item
from runtimes.workers.child import Feed, Send, serve_feed
from runtimes.workers.logs import log_to_stderr

if TYPE_CHECKING:
    from runtimes.tasks.text_generator import TextGenerator


class CaptioningWorker:
    """Captions the images of one job after another. A job whose captioner is the one of the last job uses it again."""

    def __init__(self) -> None:
        self._arguments: dict[str, Any] = {}
        self._captioner: TextGenerator[Any, Any] | None = None

    def __call__(self, job: CaptionJob, send: Send, feed: Feed) -> None:
        """Caption the images that are fed and send the rows."""
        log_to_stderr(job.log_level)
        if self._captioner is None or load_arguments(job) != self._arguments:
            self._captioner, self._arguments = None, load_arguments(job)
            self._captioner = load(**self._arguments)
        send(json_dataclass.dump(ready_of(self._captioner, job)))
        items = (Item(name, content if has_content else None) for (name, has_content), content in feed)
        try:
            for row in rows_of(self._captioner, job, items):
                send(row)
        except EngineError as error:  # an image may be the cause: end the process, so that the supervisor tries images one by one
            raise RuntimeError(str(error)) from error


if __name__ == "__main__":
    serve_feed(CaptionJob, CaptioningWorker())
