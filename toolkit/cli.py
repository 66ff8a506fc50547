"""The `toolkit` command: a table of commands, imported on use, so that help needs nothing but click.

Results go to stdout; progress, warnings and errors to stderr. A `ToolkitError` becomes one line and exit code 1.
"""

import json
import logging
from importlib import import_module
from typing import Any

import click

from runtimes.errors import ToolkitError
from runtimes.workers.logs import CHOICE, log_to_stderr

COMMANDS = {
    "export": ("toolkit.commands.export", "Turn a BLIP checkpoint into artifacts."),
    "caption": ("toolkit.commands.caption", "Caption images with an artifact."),
    "info": ("toolkit.commands.info", "Show what an artifact, a package or a checkpoint is."),
    "package": ("toolkit.commands.package", "Pack an artifact into one file that proves itself."),
    "unpack": ("toolkit.commands.unpack", "Unpack a package, checked before it is there."),
    "verify": ("toolkit.commands.verify", "Verify an artifact or a package on this machine."),
    "bench": ("toolkit.commands.bench", "Measure artifacts against the FP32 model."),
    "report": ("toolkit.commands.report", "Make a table or a page from benchmark records."),
    "compare": ("toolkit.commands.compare", "Tell what changed between two benchmark runs."),
    "doctor": ("toolkit.commands.doctor", "Tell what this machine can run, and what is wrong with it."),
}
"""Command → (module with an attribute `command`, one line of help), in the order of the data flow."""

SUBCOMMAND = "toolkit.subcommand"
"""Key of a context's `meta`: the words of the command line from the command's name on."""
USAGE_CODE = "USAGE"
"""`code` of an error in the command line itself."""


class LazyCommands(click.Group):
    """A group whose commands live in COMMANDS and are imported on use."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - whatever click passes
        super().__init__(*args, **kwargs)
        self.commands = {name: click.Command(name) for name in COMMANDS}  # click suggests these names where one is mistyped

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order of the data flow."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(COMMANDS[cmd_name][0]).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands from the table, importing none."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the options before the command, and keep the command's own words for `_wants_json`."""
        words = list(args)
        rest = super().parse_args(ctx, args)
        ctx.meta[SUBCOMMAND] = words[len(words) - len(rest) - 1 :]
        return rest

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - whatever the command returns
        """Run a command. An error of the input is one line on stderr; where JSON was requested, it is an object on stdout as well."""
        try:
            return super().invoke(ctx)
        except ToolkitError as error:
            self._report(ctx, str(error), error.code)
            raise click.ClickException(str(error)) from error
        except click.UsageError as error:  # any other click error stands behind a document that is on stdout already
            self._report(ctx, error.format_message(), USAGE_CODE)
            raise

    def _report(self, ctx: click.Context, message: str, code: str) -> None:
        if self._wants_json(ctx):
            click.echo(json.dumps({"error": message, "code": code}))

    def _wants_json(self, ctx: click.Context) -> bool:
        """Return whether --json or --format json is among the options of the command, also where something else in them is wrong."""
        name, *words = ctx.meta[SUBCOMMAND]
        if (command := self.get_command(ctx, name)) is None:
            return "--json" in words
        lenient = click.Context(command, ignore_unknown_options=True, allow_extra_args=True, resilient_parsing=True)
        options, _, _ = command.make_parser(lenient).parse_args(words)
        return bool(options.get("as_json")) or options.get("layout") == "json"


@click.group(cls=LazyCommands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-v", "--verbose", count=True, help="Say more on stderr (-vv: everything).")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing on stderr but errors.")
@click.version_option(package_name="blip-toolkit", prog_name="toolkit")
def main(verbose: int, quiet: bool) -> None:
    """Turn a BLIP image captioner into artifacts that run fast on a CPU, and show what it costs in quality."""
    level = logging.ERROR if quiet else (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    log_to_stderr(level)
    click.get_current_context().call_on_close(lambda: CHOICE.setLevel(logging.NOTSET))


if __name__ == "__main__":
    main()
