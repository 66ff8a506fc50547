"""Caption a job's images in this process (a worker of `runtimes.workers`): its progress is a `Ready`, then each image's row, in order.

An exception of a library ends the process in the middle of a batch: the images without a row tell which batch it was. Images reach native
code here (Pillow, the engine), which may end the process as well.
"""

from runtimes.artifact import json_dataclass
from runtimes.errors import EngineError
from runtimes.pool.captioning import rows_of
from runtimes.pool.job import CaptionJob
from runtimes.workers.child import Send, serve
from runtimes.workers.logs import log_to_stderr


def run(job: CaptionJob, send: Send) -> None:
    """Caption the job's images."""
    log_to_stderr(job.log_level)
    try:
        for row in rows_of(job, lambda ready: send(json_dataclass.dump(ready))):
            send(row)
    except EngineError as error:  # one image may be the cause: the supervisor tries those without a row one by one
        raise RuntimeError(str(error)) from error


if __name__ == "__main__":
    serve(CaptionJob, run)
