"""The command group: help, what it imports, suggestions, exit codes and how errors look."""

import json
import subprocess
import sys
from importlib.metadata import version

import click
import pytest
from click.testing import CliRunner

from toolkit.cli import COMMANDS, main
from toolkit.commands.compare import LIMITS

GROUP_HELP = """\
Usage: toolkit [OPTIONS] COMMAND [ARGS]...

  Turn a BLIP image captioner into artifacts that run fast on a CPU, and show
  what it costs in quality.

Options:
  -v, --verbose  Say more on stderr (-vv: everything).
  -q, --quiet    Say nothing on stderr but errors.
  --version      Show the version and exit.
  -h, --help     Show this message and exit.

Commands:
  export   Turn a BLIP checkpoint into artifacts.
  caption  Caption pictures with an artifact.
  info     Show what an artifact, a package or a checkpoint is.
  package  Pack an artifact into one file that proves itself.
  unpack   Unpack a package, checked before it is there.
  verify   Verify an artifact or a package on this machine.
  bench    Measure artifacts against the FP32 model.
  report   Make a table or a page from benchmark records.
  compare  Tell what changed between two benchmark runs.
  doctor   Tell what this machine can run, and what is wrong with it.
"""

USAGES = {
    "export": (
        "[OPTIONS] [CHECKPOINT]",
        "CHECKPOINT is a directory in Hugging Face's layout or a hub id. A recipe that fails does not stop the others; the exit code is"
        " then 1.",
    ),
    "caption": (
        "[OPTIONS] [ARTIFACT] IMAGE...",
        "ARTIFACT is an artifact's folder or a folder of artifacts, of which the best for this machine is taken; a first path that is"
        " neither is an image. [default: build/artifacts] IMAGE is a file, a folder or a glob.",
    ),
    "info": (
        "[OPTIONS] PATH",
        "PATH is an artifact's folder, a file that `toolkit package` wrote, or a checkpoint's folder. Only metadata is read.",
    ),
    "package": (
        "[OPTIONS] [ARTIFACT]",
        "ARTIFACT is an artifact's folder. [default: the best one of build/artifacts for this machine]"
        " Send the printed digest by another way than the file: `verify --digest` compares it.",
    ),
    "unpack": ("[OPTIONS] FILE", "FILE is what `toolkit package` wrote."),
    "verify": (
        "[OPTIONS] [PATH]",
        "PATH is an artifact's folder, or a file that `toolkit package` wrote."
        " [default: the best artifact of build/artifacts for this machine]",
    ),
    "bench": (
        "[OPTIONS] [ARTIFACT]...",
        "ARTIFACT is an artifact, or a folder of artifacts of one checkpoint: all of them are measured. [default: build/artifacts]",
    ),
    "report": ("[OPTIONS] RECORDS...", "RECORDS is a .jsonl file that `toolkit bench` wrote; several show change over time."),
    "compare": ("[OPTIONS] A B", LIMITS),
    "doctor": (
        "[OPTIONS] [ARTIFACT]",
        "ARTIFACT is an artifact or a folder of them. [default: build/artifacts, if there is one]"
        " Exit code 1 where there is a problem: no captions, wrong products, a known hole.",
    ),
}
OPTIONS = {
    "export": "recipe output revision overwrite on-gate-failure allow-bin list help",
    "caption": "from-file prompt beams min-length max-length batch-size workers max-pixels strip-prompt device threads output overwrite"
    " resume json help",
    "info": "json help",
    "package": "output records with-wheels platform python overwrite help",
    "unpack": "output digest help",
    "verify": "digest untrusted threads json help",
    "bench": "checkpoint revision allow-bin dataset images limit repeat warmup beams prompt tokens threads batch-size output"
    " report overwrite quiet profile json format help",
    "report": "format table dataset images no-images output overwrite help",
    "compare": "case fail-if strict different-hosts different-workloads different-checkpoints quiet json help",
    "doctor": "json help",
}

HEAVY = ("numpy", "PIL", "onnxruntime", "tokenizers", "torch", "transformers", "onnx", "optimum", "evaluate", "nltk")
MODULES_AFTER = """
import json, sys
from toolkit.cli import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    assert not end.code, end.code
print(json.dumps(sorted(name for name in sys.modules if "." not in name)), file=sys.stderr)
"""


def run(*arguments):
    return CliRunner().invoke(main, arguments, prog_name="toolkit")


@pytest.mark.parametrize("arguments", [["--help"], ["-h"]])
def test_help_of_the_group(arguments):
    result = run(*arguments)
    assert (result.exit_code, result.stdout, result.stderr) == (0, GROUP_HELP, "")


def test_without_a_command_the_help_is_shown():
    result = run()
    assert (result.exit_code, result.output) == (2, GROUP_HELP)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command(name):
    result = run(name, "--help")
    usage, subject = USAGES[name]
    text = " ".join(result.stdout.split())
    assert (result.exit_code, result.stderr) == (0, "")
    assert text.startswith(f"Usage: toolkit {name} {usage} {COMMANDS[name][1]} Options: ")
    assert text.endswith(f"Show this message and exit. {subject}")
    options = [line.split("--", 1)[1].split()[0] for line in result.stdout.splitlines() if line.lstrip().startswith("-")]
    assert options == OPTIONS[name].split()


def test_every_option_says_what_it_does():
    silent = []
    for name in COMMANDS:
        command = main.get_command(click.Context(main), name)
        options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
        silent += [f"{name} {option.opts[-1]}" for option in options if not (option.help or option.show_default)]
    assert silent == []


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["caption", "--help"], ["export", "--list"], ["report", "--help"]], ids=" ".join
)
def test_help_imports_nothing_heavy(arguments):
    ended = subprocess.run([sys.executable, "-c", MODULES_AFTER, *arguments], capture_output=True, text=True, check=True)
    imported = json.loads(ended.stderr)
    assert "click" in imported
    assert [name for name in HEAVY if name in imported] == []


def test_version():
    result = run("--version")
    assert (result.exit_code, result.stdout) == (0, f"toolkit, version {version('blip-toolkit')}\n")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["captoin"], "No such command 'captoin'. Did you mean 'caption'?"),
        (["benchmark"], "No such command 'benchmark'. Did you mean 'bench'?"),
        (["xyz"], "No such command 'xyz'."),
        (["--loud"], "No such option '--loud'."),
        (["caption"], "Missing argument 'IMAGE...'."),
        (["export"], "Missing argument 'CHECKPOINT'."),
        (["compare"], "Missing argument 'A'."),
        (["report"], "Missing argument 'RECORDS...'."),
        (["report", "records", "--format", "xml"], "Invalid value for '--format': 'xml' is not one of 'md', 'csv', 'json', 'html'."),
        (["caption", "artifact", "picture", "--beams", "0"], "Invalid value for '--beams': 0 is not in the range x>=1."),
        (["caption", "artifact", "picture", "--device", "tpu"], "Invalid value for '--device': 'tpu' is not one of 'auto', 'cpu', 'cuda'."),
        (["caption", "artifact", "picture", "--threads", "0"], "Invalid value for '--threads': 0 is not in the range x>=1."),
        (["bench", "artifact", "--tokens", "0"], "Invalid value for '--tokens': '0' is not a number from 1."),
        (
            ["export", "checkpoint", "--on-gate-failure", "off"],
            "Invalid value for '--on-gate-failure': 'off' is not one of 'fail', 'write'.",
        ),
    ],
    ids=" ".join,
)
def test_a_wrong_command_line_is_one_error_and_exit_code_2(arguments, error):
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.splitlines()[0].startswith("Usage: toolkit")
    assert [line for line in result.stderr.splitlines() if "rror" in line] == [f"Error: {error}"]


def test_a_fault_of_the_input_is_one_line_and_exit_code_1(tmp_path):
    result = run("report", str(tmp_path / "none.jsonl"))
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"Error: {tmp_path / 'none.jsonl'}: cannot be read: No such file or directory\n"


def test_with_json_a_fault_is_an_object_with_a_code_as_well(tmp_path):
    result = run("caption", str(tmp_path / "none"), "picture.jpg", "--json")
    row = json.loads(result.stdout)
    assert (result.exit_code, row["code"]) == (1, "ARTIFACT_MISSING")
    assert result.stderr == f"Error: {row['error']}\n"
