"""What a device must have: numpy, Pillow, tokenizers, onnxruntime and click, with what those need; nothing else is ever imported.

A fresh process captions with every other import made to fail, and reports what it did besides.
"""

import json
import re
import subprocess
import sys
from importlib import metadata

import pytest
from packaging.requirements import Requirement

from tests.paths import ROOT
from toolkit.packaging.package import package

BUDGET = ("numpy", "PIL", "tokenizers", "onnxruntime", "click")
OURS = ("runtimes", "exporters", "toolkit")

DENY = """
import importlib.abc, importlib.machinery, json, sys

ALLOWED = set({allowed!r}) | set(sys.stdlib_module_names)
denied = []

class Refusing(importlib.abc.Loader):
    def create_module(self, spec):
        denied.append(spec.name)
        raise ModuleNotFoundError(f"No module named {{spec.name!r}}: it is not in the budget", name=spec.name)

    def exec_module(self, module):
        raise AssertionError

class Budget(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if path is None and name.partition(".")[0] not in ALLOWED:
            return importlib.machinery.ModuleSpec(name, Refusing())  # a look for what is installed passes, an import does not
        return None

sys.meta_path.insert(0, Budget())
"""

CAPTION = """
import runtimes
captioner = runtimes.load({artifact!r}, threads=1)
captions = captioner.caption({images!r})
print(json.dumps([[caption.text, caption.token_ids, caption.error] for caption in captions]))
"""

WATCH = """
import json, sys

FORBIDDEN = ("socket.connect", "socket.bind", "socket.getaddrinfo", "subprocess.Popen", "os.system", "os.exec", "os.fork",
             "os.forkpty", "os.posix_spawn", "pickle.find_class")
seen, written = [], []

def watch(event, arguments):
    if event in FORBIDDEN:
        seen.append([event, repr(arguments)])
    elif event == "open" and isinstance(arguments[0], str) and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
        written.append(arguments[0])
    elif event in ("os.rename", "os.remove", "os.mkdir"):
        written.append(repr(arguments[0]))

import runtimes.loading, runtimes.engines.ort.session  # what is imported may do as it likes
sys.addaudithook(watch)
"""

REPORT = "print(json.dumps([seen, written]))"


def import_names(names):
    """Import names of packages and of all they require, extras left out."""
    providers = metadata.packages_distributions()
    queue = [distribution for name in names for distribution in providers[name]]
    done = set()
    while queue:
        distribution = re.sub(r"[-_.]+", "-", queue.pop()).lower()
        if distribution in done:
            continue
        done.add(distribution)
        try:
            required = [Requirement(line) for line in metadata.requires(distribution) or []]
        except metadata.PackageNotFoundError:
            continue
        queue += [dependency.name for dependency in required if dependency.marker is None or dependency.marker.evaluate({"extra": ""})]
    distributions = {name for name, by in providers.items() if any(re.sub(r"[-_.]+", "-", dependency).lower() in done for dependency in by)}
    return sorted(distributions | set(names))


def python(*parts):
    """Standard output's lines of a fresh process that runs the parts, this checkout first on its path."""
    ran = subprocess.run(
        [sys.executable, "-c", "\n".join([f"import sys; sys.path.insert(0, {str(ROOT)!r})", *parts])],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return [json.loads(line) for line in ran.stdout.splitlines()]


@pytest.fixture(scope="module")
def allowed():
    return [*OURS, *import_names(BUDGET)]


@pytest.fixture(scope="module")
def images(sample_images):
    return [str(image.path) for image in sample_images[:4]]


def test_the_budget_is_what_we_think(allowed):
    assert {"numpy", "PIL", "tokenizers", "onnxruntime", "click"} <= set(allowed)
    assert {"torch", "transformers", "onnx", "safetensors", "optimum", "psutil", "nltk", "evaluate", "datasets"} & set(allowed) == set()


@pytest.mark.parametrize("recipe", ["onnx-fp32", "onnx-int8"])
def test_an_onnx_artifact_captions_within_the_budget(tiny_artifacts, recipe, images, allowed):
    caption = CAPTION.format(artifact=str(tiny_artifacts[recipe]), images=images)
    (free,) = python("import json", caption)
    within, denied = python(DENY.format(allowed=allowed), caption, "print(json.dumps(denied))")
    assert within == free
    assert [error for _, _, error in within] == [None] * 4
    assert {"torch", "transformers", "onnx", "safetensors"} & set(denied) == set()  # not even tried


@pytest.mark.full
def test_a_folder_of_all_artifacts_captions_within_the_budget(tiny_artifacts, images, allowed):
    """The choice looks for torch without importing it."""
    folder = tiny_artifacts.folder
    caption = CAPTION.format(artifact=str(folder), images=images)
    (within, denied) = python(DENY.format(allowed=allowed), caption, "print(json.dumps(denied))")
    assert [error for _, _, error in within] == [None] * 4
    assert {"torch", "transformers", "onnx", "safetensors"} & set(denied) == set()


def test_the_command_line_helps_within_the_budget(allowed):
    run = 'import toolkit.cli\nfrom click.testing import CliRunner\nresult = CliRunner().invoke(toolkit.cli.main, ["--help"])\n'
    (code, loaded) = python(
        DENY.format(allowed=allowed),
        run,
        'print(json.dumps(result.exit_code)); print(json.dumps(sorted({"numpy", "PIL"} & set(sys.modules))))',
    )
    assert (code, loaded) == (0, [])


def test_the_doctor_examines_within_the_budget(tiny_artifacts, allowed):
    run = "import toolkit.cli\nfrom click.testing import CliRunner\n"
    run += f"result = CliRunner().invoke(toolkit.cli.main, ['doctor', {str(tiny_artifacts['onnx-int8'])!r}, '--json'])\n"
    (code, healthy, denied) = python(
        DENY.format(allowed=allowed),
        run,
        "print(json.dumps(result.exit_code)); print(json.dumps(json.loads(result.stdout)['healthy'])); print(json.dumps(denied))",
    )
    assert (code, healthy) == (0, True)
    assert {"torch", "transformers", "onnx", "safetensors"} & set(denied) == set()


def test_the_finder_does_refuse(allowed):
    deny = DENY.format(allowed=allowed)
    assert python(deny, "try:\n    import torch\nexcept ModuleNotFoundError as error:\n    print(json.dumps([error.name, denied]))") == [
        ["torch", ["torch"]]
    ]


def test_captioning_opens_no_socket_starts_no_process_and_writes_nothing(tiny_artifacts, images):
    caption = CAPTION.format(artifact=str(tiny_artifacts["onnx-int8"]), images=images)
    (captions, (seen, written)) = python(WATCH, caption, REPORT)
    assert [error for _, _, error in captions] == [None] * 4
    assert seen == []
    assert written == []


def test_verifying_reads_no_pickle_opens_no_socket_and_starts_no_process(tiny_artifacts, tmp_path):
    """Golden captions are replayed, and the archive unpacked; only --untrusted starts a process."""
    package(tiny_artifacts["onnx-int8"], tmp_path / "tiny.tar.gz")
    archive = str(tmp_path / "tiny.tar.gz")
    verify = "from pathlib import Path\nfrom runtimes.verification.verify import verify\n"
    verify += f"report = verify(Path({archive!r}), threads=1)\n"
    (replayed, (seen, _)) = python(WATCH, verify, "print(json.dumps(report.golden is not None))", REPORT)
    assert replayed
    assert seen == []


def test_the_watch_does_see():
    """The watch reports a pickle, a subprocess and a shell; otherwise its empty report in the other tests would prove nothing."""
    act = "import subprocess, pickle, fractions, os\nsubprocess.run([sys.executable, '-c', ''])\n"
    act += "pickle.loads(pickle.dumps(fractions.Fraction(1, 2)))\nos.system('')\n"
    ((seen, _),) = python(WATCH, act, REPORT)
    assert {event for event, _ in seen} >= {"subprocess.Popen", "pickle.find_class", "os.system"}


def test_importing_runtimes_imports_no_library():
    loaded = "import runtimes, runtimes.errors, runtimes.artifact.manifest, runtimes.artifact.folder, runtimes.host.facts\n"
    (names,) = python("import json", loaded, "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))")
    assert {"numpy", "PIL", "onnxruntime", "tokenizers", "torch", "click", "runtimes"} & set(names) == {"runtimes"}


def test_captioning_imports_nothing_that_is_there_to_write_or_to_choose(tiny_artifacts, images):
    """Every module of ours costs time at each start; these serve other commands, folders and full-range weights."""
    caption = CAPTION.format(artifact=str(tiny_artifacts["onnx-int8"]), images=images)
    (_, names) = python("import json", caption, "print(json.dumps(sorted(name for name in sys.modules if name.startswith('runtimes.'))))")
    unneeded = "storage selection.ranking verification engines.ort.matmul_model engines.ort.device_gather engines.single_graph_session "
    unneeded += "engines.pytorch pool workers"
    assert [name for name in names for prefix in unneeded.split() if f"{name}.".startswith(f"runtimes.{prefix}.")] == []
    assert "runtimes.engines.ort.session" in names


HEAVY = (
    "torch",
    "transformers",
    "onnx",
    "optimum",
    "peft",
    "safetensors",
    "huggingface_hub",
    "datasets",
    "evaluate",
    "nltk",
    "openvino",
    "nncf",
)
"""Libraries that take seconds to import."""

LIGHT = ("exporters.export", "exporters.recipes", "exporters.gate.gate", "exporters.gate.intervals", "runtimes.loading", "toolkit.cli")


def test_light_modules_import_no_heavy_library():
    files = [
        f
        for folder in ("commands", "records", "stats", "tables", "compare", "doctor", "packaging")
        for f in (ROOT / "toolkit" / folder).glob("*.py")
    ]
    modules = [*LIGHT, *(".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files)]
    run = f"import json\nfrom importlib import import_module\nfor name in {modules!r}: import_module(name)\n"
    (distributions,) = python(run, f"print(json.dumps(sorted(set(sys.modules) & set({HEAVY!r}))))")
    assert distributions == []
