"""The command group: help texts, imports, suggestions, exit codes and error lines."""

import json
import subprocess
import sys
from importlib.metadata import version

import click
import pytest
from click.testing import CliRunner

from toolkit.cli import COMMANDS, main

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


def test_help_is_printed_on_stdout_and_also_without_a_command():
    long, short, none = run("--help"), run("-h"), run()
    assert (long.exit_code, long.stderr) == (0, "")
    assert (short.exit_code, short.stdout) == (0, long.stdout)
    assert (none.exit_code, none.output) == (2, long.stdout)


def test_every_option_has_a_help_text():
    without = []
    for name in COMMANDS:
        command = main.get_command(click.Context(main), name)
        options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
        without += [f"{name} {option.opts[-1]}" for option in options if not option.help]
        assert "Example: toolkit " in command.epilog
    assert without == []


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
    ("arguments", "facts"),
    [
        (["captoin"], ["captoin"]),
        (["--loud"], ["--loud"]),
        (["caption"], ["IMAGE"]),
        (["export"], ["CHECKPOINT"]),
        (["compare"], ["A"]),
        (["report"], ["RECORDS"]),
        (["report", "records", "--format", "xml"], ["--format", "xml", "'md', 'csv', 'json', 'html'"]),
        (["caption", "artifact", "image", "--num-beams", "0"], ["--num-beams", "0", "x>=1"]),
        (["caption", "artifact", "image", "--device", "tpu"], ["--device", "tpu", "auto", "cpu", "cuda"]),
        (["caption", "artifact", "image", "--threads", "0"], ["--threads", "0", "x>=1"]),
        (["bench", "artifact", "--tokens", "0"], ["--tokens", "'0'"]),
        (["export", "checkpoint", "--on-gate-failure", "off"], ["--on-gate-failure", "off", "'retry', 'fail', 'write'"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_a_wrong_command_line_is_a_one_line_error_with_exit_code_2(arguments, facts):
    """The messages are click's; they name the option and its valid values."""
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.splitlines()[0].startswith("Usage: toolkit")
    (error,) = [line for line in result.stderr.splitlines() if "rror" in line]
    assert [fact for fact in facts if fact not in error] == []


def test_invalid_input_is_a_one_line_error_with_exit_code_1(tmp_path):
    result = run("report", str(tmp_path / "none.jsonl"))
    assert (result.exit_code, result.stdout) == (1, "")
    (error,) = result.stderr.splitlines()
    assert error.startswith(f"Error: {tmp_path / 'none.jsonl'}: ")


def test_with_json_an_error_is_also_an_object_with_a_code(tmp_path):
    result = run("caption", str(tmp_path / "none"), "image.jpg", "--json")
    error = json.loads(result.stdout)
    assert (result.exit_code, error["code"]) == (1, "ARTIFACT_MISSING")
    assert result.stderr == f"Error: {error['error']}\n"


@pytest.mark.parametrize("seconds", ["inf", "nan", "1e300", "-1", "long"])
@pytest.mark.parametrize(
    "command", [("caption", "--timeout"), ("distribute", "--timeout"), ("serve", "--drain"), ("serve", "--drain-delay")]
)
def test_numbers_of_seconds(command, seconds):
    name, option = command
    result = CliRunner().invoke(main, [name, "artifact", "image.png", option, seconds])
    assert (result.exit_code, option in result.stderr) == (2, True)
