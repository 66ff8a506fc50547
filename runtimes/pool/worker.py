"""The captioning subprocess, a worker of `runtimes.workers`. Its progress is a `Ready`, then one row per image, in order.

Images reach native code here (Pillow, the engine), which may crash the process. An exception of a library ends it too. The supervisor
finds the batch by its missing rows.
"""

from runtimes.artifact import json_dataclass
from runtimes.errors import EngineError
from runtimes.pool.captioning import rows_of
from runtimes.pool.job import CaptionJob
from runtimes.workers.child import Send, serve
from runtimes.workers.logs import log_to_stderr


def run(job: CaptionJob, send: Send) -> None:
    """Caption the images of a job and send the rows."""
    log_to_stderr(job.log_level)
    try:
        for row in rows_of(job, lambda ready: send(json_dataclass.dump(ready))):
            send(row)
    except EngineError as error:  # an image may be the cause: end the process, so that the supervisor tries images one by one
        raise RuntimeError(str(error)) from error


if __name__ == "__main__":
    serve(CaptionJob, run)
