"""A local S3 server (moto) in a process of its own, with one bucket."""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

KEYS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
"""Environment of a client; the server accepts every key."""
BUCKET = "data"
SERVE = "from moto.server import main; main(['-H', '127.0.0.1', '-p', '0'])"


@contextmanager
def s3_server() -> Iterator[str]:
    """Start the server and yield its address."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=os.environ | KEYS
    )
    assert process.stderr is not None
    try:
        lines = []
        for line in process.stderr:
            lines.append(line)
            if (match := re.search(r"Running on (http://127\.0\.0\.1:\d+)", line)) is not None:
                break
        else:
            raise AssertionError("".join(lines))
        threading.Thread(target=process.stderr.read, daemon=True).start()  # requests are logged there: the pipe must not fill
        files(match[1]).create_dir(BUCKET)
        yield match[1]
    finally:
        process.kill()
        process.wait()


def files(endpoint: str) -> Any:
    """Return the server's files as those of `pyarrow.fs`."""
    from pyarrow.fs import S3FileSystem

    return S3FileSystem(
        endpoint_override=endpoint,
        access_key=KEYS["AWS_ACCESS_KEY_ID"],
        secret_key=KEYS["AWS_SECRET_ACCESS_KEY"],
        region=KEYS["AWS_DEFAULT_REGION"],
        allow_bucket_creation=True,
    )
