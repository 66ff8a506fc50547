"""Every file of an artifact is opened once while it is loaded: what was hashed is what the parsers get, not a second look at the path.

ONNX Runtime maps weights by their path, which Python does not see; `VerifiedFiles.check_unchanged` covers that
(tests/runtimes/artifact/test_verified_files.py).
"""

import json
import subprocess
import sys

import pytest

from runtimes.artifact.folder import open_artifact
from tests.paths import ROOT

COUNT = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
import runtimes.loading
seen = []

def watch(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, bytes, os.PathLike)):
        seen.append(os.fsdecode(arguments[0]))

sys.addaudithook(watch)
runtimes.load(sys.argv[2], threads=1).caption([sys.argv[3]])
print(json.dumps([path for path in seen if path.startswith(sys.argv[2])]))
"""


@pytest.mark.parametrize("recipe", ["onnx-int8", "onnx-fp32", "pytorch-int8"])
def test_a_file_is_opened_once(tiny_artifacts, drawn_images, recipe):
    path = tiny_artifacts[recipe]
    command = [sys.executable, "-c", COUNT, str(ROOT), str(path), str(drawn_images[0].path)]
    opened = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert sorted(opened) == sorted(str(path / name) for name in ("manifest.json", *open_artifact(path).manifest.files))
