"""The `toolkit` command: a table of subcommands, each imported when it runs, so that `toolkit --help` imports click only.

Commands print results on stdout, and progress, warnings and errors on stderr. A `ToolkitError` or an error of the system becomes one line
and exit code 1.
"""

import codecs
import contextlib
import errno
import io
import json
import logging
import os
import signal
import sys
import threading
from importlib import import_module
from typing import Any, NoReturn

import click

from runtimes.errors import EnvironmentFailedError, ToolkitError
from runtimes.workers.logs import CHOICE, log_to_stderr

COMMANDS = {
    "export": ("toolkit.commands.export", "Export a BLIP checkpoint to artifacts."),
    "sensitivity": ("toolkit.commands.sensitivity", "Measure how much each layer of a recipe contributes to its drift."),
    "tune": ("toolkit.commands.tune", "Search for the formats of a checkpoint's layers that meet a budget."),
    "finetune": ("toolkit.commands.finetune", "Train a checkpoint to lose less with a recipe."),
    "caption": ("toolkit.commands.caption", "Caption images with an artifact."),
    "ask": ("toolkit.commands.ask", "Answer questions about images with an artifact."),
    "match": ("toolkit.commands.match", "Compare images with texts."),
    "embed": ("toolkit.commands.embed", "Write the normalized embeddings of images to a file."),
    "serve": ("toolkit.commands.serve", "Serve an artifact over HTTP."),
    "distribute": ("toolkit.commands.distribute", "Caption a data set in shards, on one machine or on several."),
    "info": ("toolkit.commands.info", "Show the metadata of an artifact, a package or a checkpoint."),
    "package": ("toolkit.commands.package", "Pack an artifact into one file that another machine can verify."),
    "unpack": ("toolkit.commands.unpack", "Check a package and unpack it."),
    "verify": ("toolkit.commands.verify", "Verify an artifact or a package on this machine."),
    "bench": ("toolkit.commands.bench", "Benchmark artifacts against the FP32 model."),
    "report": ("toolkit.commands.report", "Render benchmark records as a table or an HTML page."),
    "compare": ("toolkit.commands.compare", "Compare two benchmark runs."),
    "doctor": ("toolkit.commands.doctor", "Check which engines, recipes and artifacts work on this machine."),
}
"""Command name → (module with an attribute `command`, one line of help), in the order of the data flow."""

DEFAULT_HANDLERS: dict[signal.Signals, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
"""The signals that end a command, with Python's handlers. Other handlers, and signals that are ignored, stay as they are."""
if hasattr(signal, "SIGHUP"):  # not on Windows
    DEFAULT_HANDLERS[signal.SIGHUP] = signal.SIG_DFL  # the terminal was closed; `nohup` makes a command ignore it

SUBCOMMAND = "toolkit.subcommand"
"""Key in the click context's `meta`. Its value is the rest of the command line, from the subcommand's name on."""
USAGE_CODE = "USAGE"
"""`code` of an error in the command line."""


def _escape(error: UnicodeError) -> tuple[str, int]:
    r"""Encode characters that an output stream cannot encode as JSON does: \uXXXX."""
    assert isinstance(error, UnicodeEncodeError)
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


def _accept_all_characters(stream: object) -> None:
    """Escape the characters that a text stream cannot encode; otherwise they raise an error in the middle of a run."""
    if isinstance(stream, io.TextIOWrapper) and (stream.errors == "strict" or codecs.lookup(stream.encoding).name != "utf-8"):
        codecs.register_error("toolkit.escape", _escape)
        stream.reconfigure(errors="toolkit.escape")


def _discard_stdout() -> None:
    """Redirect the rest of stdout's buffer to the null device. Otherwise, the flush at exit fails too and prints a traceback."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class LazyCommands(click.Group):
    """A click group that imports a command of COMMANDS when it is needed."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - the arguments of click.Group
        super().__init__(*args, **kwargs)
        self.commands = {name: click.Command(name) for name in COMMANDS}  # click suggests these names for a mistyped command
        self._signal = signal.SIGINT
        """The signal of a KeyboardInterrupt. It is not a class of its own, because Ray replaces subclasses by KeyboardInterrupt."""
        self._interrupted = False
        """Whether a signal has come that ends the command."""

    def main(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - see click
        """Run the command line with handlers of the signals that end it. Process 1 of a container has none of SIGTERM by default."""
        _accept_all_characters(sys.stdout)
        _accept_all_characters(sys.stderr)
        self._signal, self._interrupted = signal.SIGINT, False
        replaced = {}
        if threading.current_thread() is threading.main_thread():
            replaced = {number: default for number, default in DEFAULT_HANDLERS.items() if signal.getsignal(number) is default}
        for number in replaced:
            signal.signal(number, self._interrupt)
        try:
            return super().main(*args, **kwargs)
        finally:
            for number, default in replaced.items():
                signal.signal(number, default)

    def _interrupt(self, number: int, frame: object) -> None:
        """Handle a signal that ends the command. A thread that is being started may fail because of it; this is not reported."""
        self._signal, self._interrupted = signal.Signals(number), True
        signal.signal(number, signal.SIG_DFL)  # the second signal ends the process at once, also in a clean-up that waits forever
        sys.unraisablehook = lambda failure: None
        raise KeyboardInterrupt

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the command names in the order of the data flow."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command and return it; None for an unknown name."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(COMMANDS[cmd_name][0]).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the options before the command, and store the rest of the command line for `_json_requested`."""
        words = list(args)
        rest = super().parse_args(ctx, args)
        ctx.meta[SUBCOMMAND] = words[len(words) - len(rest) - 1 :]
        return rest

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - the return value of a command
        """Run a command. An error of the user's input becomes one line on stderr; with JSON output, it is also an object on stdout."""
        try:
            return super().invoke(ctx)
        except BaseException as error:
            # After a signal, every error may be its consequence: a clean-up that it cut short, or a pipe to a process that it ended.
            if self._interrupted or isinstance(error, KeyboardInterrupt):
                self._stop(ctx)
            self._explain(ctx, error)
            raise

    def _explain(self, ctx: click.Context, error: BaseException) -> None:
        """Raise a ClickException with one line for errors of the user's input and of the system. Others are left as they are."""
        if isinstance(error, ToolkitError):
            self._report(ctx, str(error), error.code)
            raise click.ClickException(str(error)) from error
        if isinstance(error, OSError) and error.errno != errno.EPIPE:  # after EPIPE, the reader is gone, and click exits without a message
            # The system refuses a call that no command expects to fail, for example a write to a full stdout.
            message = (
                f"{error.filename or 'a file or an output stream'}: {error.strerror or error}; correct this on the machine and try again"
            )
            if error.filename is None:
                _discard_stdout()
            self._report(ctx, message, EnvironmentFailedError.code)
            raise click.ClickException(message) from error
        if isinstance(error, click.UsageError):  # other click errors are raised after a complete result was printed
            self._report(ctx, error.format_message(), USAGE_CODE)

    def _stop(self, ctx: click.Context) -> NoReturn:
        with contextlib.suppress(OSError):  # the terminal may be closed
            click.echo(f"Stopped by {self._signal.name}.", err=True)
        ctx.exit(128 + self._signal)

    def _report(self, ctx: click.Context, message: str, code: str) -> None:
        if self._json_requested(ctx):
            click.echo(json.dumps({"error": message, "code": code}))

    def _json_requested(self, ctx: click.Context) -> bool:
        """Return whether the command line contains --json or --format json, even if other options are invalid."""
        name, *words = ctx.meta[SUBCOMMAND]
        if (command := self.get_command(ctx, name)) is None:
            return "--json" in words
        lenient = click.Context(command, ignore_unknown_options=True, allow_extra_args=True, resilient_parsing=True)
        options, _, _ = command.make_parser(lenient).parse_args(words)
        return bool(options.get("as_json")) or options.get("layout") == "json"


@click.group(cls=LazyCommands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-v", "--verbose", count=True, help="Print more messages on stderr (-v: info, -vv: debug).")
@click.option("-q", "--quiet", is_flag=True, help="Print only errors on stderr.")
@click.version_option(package_name="blip-toolkit", prog_name="toolkit")
def main(verbose: int, quiet: bool) -> None:
    """Export BLIP image captioning models to artifacts that run fast on CPUs, caption with them, and measure speed and quality."""
    level = logging.ERROR if quiet else (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    log_to_stderr(level)
    click.get_current_context().call_on_close(lambda: CHOICE.setLevel(logging.NOTSET))


if __name__ == "__main__":
    main()
