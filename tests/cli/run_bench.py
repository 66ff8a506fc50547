"""Run `toolkit bench` in this process."""

from click.testing import CliRunner

from toolkit.cli import main

PROMPT = "a picture of"


def run(*arguments):
    return CliRunner().invoke(main, ["bench", *map(str, arguments)], prog_name="toolkit")
