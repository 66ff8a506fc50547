"""Caption a job's pictures in this process: a Job as a line on stdin; on stdout a line {"ready": ...}, then each picture's row, in order.

Started as `python -m runtimes.pool.worker`. An input's fault is a line {"failed": ..., "code": ...}; so is what a library raised in
midst of a batch, with exit code 1. Pictures reach native code here (Pillow, the runtime), which may end the process.
"""

import json
import os
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from runtimes.artifact import json_dataclass
from runtimes.errors import ToolkitError, first_line
from runtimes.pool.captioning import rows_of
from runtimes.pool.job import Job
from runtimes.workers.logs import log_to_stderr


def main() -> None:
    """Read the job and caption its pictures."""
    job, problems = json_dataclass.from_json(Job, json.loads(sys.stdin.buffer.readline()))
    assert job is not None, problems
    threading.Thread(target=_end_with_supervisor, daemon=True).start()
    log_to_stderr(job.log_level)
    try:
        for row in rows_of(job, lambda ready: _send({"ready": json_dataclass.to_json(ready)})):
            _send(row)
    except ToolkitError as error:
        _send({"failed": str(error), "code": error.code})
    except BrokenPipeError:
        os._exit(1)  # nobody listens any more; what is buffered is nobody's
    except Exception as error:  # of the runtime: the batch in the making is named by what has not been answered
        _send({"failed": first_line(error), "code": None})
        sys.exit(1)


def _end_with_supervisor() -> None:
    """Wait until stdin ends, as it does when the supervisor is killed; a picture may take long, or never come."""
    os.read(0, 1)  # not through sys.stdin, whose lock would be held when the interpreter ends
    os._exit(1)


def _send(message: Any) -> None:  # noqa: ANN401 - JSON values
    print(json.dumps(message), file=answers, flush=True)


if __name__ == "__main__":
    # What a library prints, from Python or from C, must not get between our lines.
    answers = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches both; the supervisor ends this process when it has saved its own
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")  # where memory runs out, the kernel takes this process and not the supervisor
    main()
