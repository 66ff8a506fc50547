"""Errors are JSON objects on stdout if and only if JSON output was requested."""

import json

import pytest
from click.testing import CliRunner

from toolkit.cli import main


def run(*arguments):
    return CliRunner().invoke(main, list(arguments))


@pytest.mark.parametrize(
    ("arguments", "exit_code", "code", "fact"),
    [
        (["verify", "absent", "--json"], 1, "ARTIFACT_MISSING", "absent"),
        (["verify", "--json", "absent", "--no-such-option"], 2, "USAGE", "--no-such-option"),
        (["verify", "absent", "--json", "--threads", "0"], 2, "USAGE", "--threads"),
        (["verify", "absent", "--json", "--threads"], 2, "USAGE", "--threads"),
        (["report", "absent.jsonl", "--format", "json"], 1, "RECORD_UNREADABLE", "absent.jsonl"),
        (["report", "absent.jsonl", "--format=json", "--nonsense"], 2, "USAGE", "--nonsense"),
        (["-q", "bench", "absent", "--json"], 1, "ARTIFACT_MISSING", "absent"),
        (["no-such-command", "--json"], 2, "USAGE", "no-such-command"),
    ],
)
def test_with_json_output_an_error_is_an_object(arguments, exit_code, code, fact):
    result = run(*arguments)
    error = json.loads(result.stdout)
    assert (result.exit_code, error["code"]) == (exit_code, code)
    assert fact in error["error"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["verify", "absent"],
        ["verify", "absent", "--work-dir", "--json"],  # the option's value
        ["verify", "--", "--json"],  # a path
        ["report", "absent.jsonl", "--format", "md"],
        ["verify", "absent", "--nonsense"],
    ],
)
def test_without_json_output_an_error_is_only_a_line_on_stderr(arguments):
    result = run(*arguments)
    assert result.exit_code in (1, 2)
    assert result.stdout == ""
    assert "Error: " in result.stderr
