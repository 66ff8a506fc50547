"""Which images records were measured on: records and what the user says of them go in, the dataset comes out."""

import logging
from collections.abc import Sequence
from pathlib import Path

from runtimes.errors import DatasetError
from toolkit.datasets import Dataset, load_dataset
from toolkit.records.record import Record

logger = logging.getLogger(__name__)

SHIPPED = "sample"


def images_of(records: Sequence[Record], dataset: str | None, images: Path | None) -> Dataset | None:
    """Find the images; None where the user names none and they are not the shipped ones.

    Args:
        records: Of one run.
        dataset: As in `load_dataset`.
        images: Likewise.

    Raises:
        DatasetError: They cannot be read, or are not those of the records.
    """
    work = records[0].workload
    if dataset is None and images is None:
        if work.dataset_path != SHIPPED:
            logger.warning("no thumbnails: name the images of %s with --dataset or --images", work.dataset)
            return None
        dataset = SHIPPED
    found = load_dataset(dataset, images, work.limit)
    if found.sha256 != work.dataset_sha256:
        problem = f"is not what these records were measured on ({work.dataset}); --no-images leaves images out"
        raise DatasetError(str(dataset or images), problem)
    return found
