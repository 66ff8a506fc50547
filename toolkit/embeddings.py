"""Write embeddings of images to a file: NumPy's .npz or Parquet.

    .npz      embeddings f32[N,E], images str[N], failed str[M], errors str[M], artifact str[], digest str[]; read with allow_pickle=False
    .parquet  columns image (string) and embedding (fixed-size list of E floats); metadata of the schema: artifact, digest, and failed, a
              JSON object of name and error

Axes: N images with an embedding, E width of an embedding, M images that could not be read.
"""

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from runtimes.artifact.manifest import Manifest
from runtimes.decoding.session import Float32
from runtimes.errors import MissingDependencyError, OutputError, RequestError
from runtimes.storage.atomic_write import locked, write_atomically
from runtimes.tasks.results import Embedding

FORMATS = (".npz", ".parquet")


def check_format(output: Path) -> None:
    """Check that a file of this name can be written.

    Raises:
        RequestError: The suffix is none of `FORMATS`.
        MissingDependencyError: The file is Parquet, and pyarrow is not installed.
    """
    if output.suffix not in FORMATS:
        raise RequestError(f"{output}: embeddings are written as {' or '.join(FORMATS)}; choose one of these suffixes")
    if output.suffix == ".parquet":
        try:
            import pyarrow.parquet  # noqa: F401 - fails before the model runs
        except ModuleNotFoundError as error:
            raise MissingDependencyError("pyarrow", "writing Parquet", "dataset") from error


def write_embeddings(output: Path, manifest: Manifest, images: Sequence[str], results: Sequence[Embedding]) -> None:
    """Write the embeddings of images, atomically.

    Args:
        output: File with a suffix of `FORMATS`.
        manifest: Manifest of the artifact; the file records its name and digest.
        images: Names of the images.
        results: The embedding or the error of each.

    Raises:
        OutputError: The file cannot be written.
    """
    pairs = list(zip(images, results, strict=True))
    names = [image for image, result in pairs if result.vector is not None]
    vectors = np.stack([result.vector for _, result in pairs if result.vector is not None])
    failed = {image: result.error for image, result in pairs if result.error is not None}
    with locked(output):
        try:
            write_atomically(output, (_npz if output.suffix == ".npz" else _parquet)(manifest, names, vectors, failed))
        except OSError as error:
            raise OutputError(output, error.strerror or str(error)) from error


def _npz(manifest: Manifest, names: Sequence[str], vectors: Float32, failed: dict[str, str]) -> bytes:
    stream = io.BytesIO()
    np.savez(
        stream,
        embeddings=vectors,
        images=np.array(names, dtype=np.str_),
        failed=np.array(list(failed), dtype=np.str_),
        errors=np.array(list(failed.values()), dtype=np.str_),
        artifact=np.array(manifest.name),
        digest=np.array(manifest.digest),
    )
    return stream.getvalue()


def _parquet(manifest: Manifest, names: Sequence[str], vectors: Float32, failed: dict[str, str]) -> bytes:
    import pyarrow
    import pyarrow.parquet

    metadata = {"artifact": manifest.name, "digest": manifest.digest, "failed": json.dumps(failed)}
    kind = pyarrow.list_(pyarrow.float32(), vectors.shape[1])
    schema = pyarrow.schema([("image", pyarrow.string()), ("embedding", kind)], metadata=metadata)
    arrays = [
        pyarrow.array([_encodable(name) for name in names], pyarrow.string()),
        pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(vectors.ravel()), type=kind),
    ]
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.Table.from_arrays(arrays, schema=schema), sink)
    return bytes(sink.getvalue())


def _encodable(name: str) -> str:
    """Return a name as UTF-8 can store it: bytes of a file name that are not UTF-8 are escaped."""
    return name if name.isprintable() else ascii(name)
