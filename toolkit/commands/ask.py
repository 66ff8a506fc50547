"""`toolkit ask`: answer questions about images. It is `toolkit caption` with questions in place of a prompt and drafts."""

from typing import Any

import click

from toolkit.commands.caption import command as caption

CAPTIONS_ONLY = frozenset({"prompt", "strip_prompt", "draft", "no_draft"})
"""Parameters of `toolkit caption` that answers do not have."""


def _ask(questions: tuple[str, ...], **options: Any) -> None:  # noqa: ANN401 - the parameters of `toolkit caption`
    """Answer questions about images with an artifact.

    ARTIFACT and IMAGE are as in `toolkit caption`. Questions about the same image share one run of the vision encoder. Each line of the
    output has the image, the question and the answer. With --json, it also has token_ids, score and finish_reason.
    """
    assert caption.callback is not None
    caption.callback(questions=questions, prompt=None, strip_prompt=False, draft=None, no_draft=False, **options)


QUESTION = click.Option(
    ["--question", "questions"], multiple=True, required=True, metavar="TEXT", help="A question about every image (repeatable)."
)

command = click.Command(
    "ask",
    params=[QUESTION, *(parameter for parameter in caption.params if parameter.name not in CAPTIONS_ONLY)],
    callback=_ask,
    help=_ask.__doc__,
    epilog="Example: toolkit ask build/artifacts photo.jpg --question 'What color is the car?' --json",
)
