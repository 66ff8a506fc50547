"""The draft table of an artifact: predictions of the next token, in a .npy file.

The file contains i32[E,5], at most `MAX_BYTES`. A row is a context of 1 to 3 token ids, padded on the left with -1, the predicted token id,
and its confidence in thousandths. The header is not parsed: it must be that which numpy writes for this number of rows. So no file is
unpickled, and no size is allocated before it is checked.
"""

import io

import numpy as np

from runtimes.decoding.drafts.ngrams import MAX_CONTEXT, Predictions

ROLE = "drafts"
"""Role of the file in an artifact, and key of `runtimes.decoding.drafts.drafter.DraftSpec` in the manifest's `optional`."""
MAX_BYTES = 300_000
COLUMNS = MAX_CONTEXT + 2
HEADER_BYTES, ROW_BYTES = 128, 4 * COLUMNS
MAX_ENTRIES = (MAX_BYTES - HEADER_BYTES) // ROW_BYTES
"""Largest number of rows."""
PADDING = -1
THOUSAND = 1000


def write_table(predictions: Predictions) -> bytes:
    """Return the content of the file, with entries in order of their contexts; equal predictions give equal bytes."""
    rows = [
        [*[PADDING] * (MAX_CONTEXT - len(context)), *context, token, round(confidence * THOUSAND)]
        for context, (token, confidence) in sorted(predictions.items())
    ]
    return _header(len(rows)) + np.array(rows, dtype="<i4").tobytes()


def read_table(content: bytes, vocabulary: int) -> Predictions:
    """Return the predictions of a file.

    Args:
        content: The file.
        vocabulary: Number of token ids of the model.

    Raises:
        ValueError: The content is not a draft table, or not one for this vocabulary.
    """
    if len(content) > MAX_BYTES:
        raise ValueError(f"has {len(content)} bytes, more than {MAX_BYTES}")
    count = (len(content) - HEADER_BYTES) // ROW_BYTES
    if count < 0 or content[:HEADER_BYTES] != _header(count) or len(content) != HEADER_BYTES + count * ROW_BYTES:
        raise ValueError(f"is not a .npy file with an array i32[E,{COLUMNS}]")
    rows = np.frombuffer(content, dtype="<i4", offset=HEADER_BYTES).reshape(count, COLUMNS)
    contexts, tokens, thousandths = rows[:, :MAX_CONTEXT], rows[:, MAX_CONTEXT], rows[:, MAX_CONTEXT + 1]
    if ((tokens < 0) | (tokens >= vocabulary) | (contexts < PADDING).any(axis=1) | (contexts >= vocabulary).any(axis=1)).any():
        raise ValueError(f"has token ids that are not in the vocabulary of {vocabulary}")
    padded = contexts == PADDING
    if padded[:, -1].any() or (padded[:, 1:] & ~padded[:, :-1]).any():
        raise ValueError("has a context that is empty or has padding after a token")
    if ((thousandths < 0) | (thousandths > THOUSAND)).any():
        raise ValueError("has a confidence that is not 0 to 1000 thousandths")
    sizes = MAX_CONTEXT - padded.sum(axis=1)
    return {
        tuple(context[MAX_CONTEXT - size :]): (token, thousandth / THOUSAND)
        for context, size, token, thousandth in zip(contexts.tolist(), sizes.tolist(), tokens.tolist(), thousandths.tolist(), strict=True)
    }


def _header(rows: int) -> bytes:
    """Return the header of a .npy file with an array i32[rows,COLUMNS]."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<i4", "fortran_order": False, "shape": (rows, COLUMNS)})
    return stream.getvalue()
