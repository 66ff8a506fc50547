"""Find the images that records were measured on."""

import logging
from collections.abc import Sequence
from pathlib import Path

from runtimes.errors import DatasetError
from toolkit.datasets import Dataset, load_dataset
from toolkit.records.record import Record

logger = logging.getLogger(__name__)

SHIPPED = "sample"


def images_of(records: Sequence[Record], dataset: str | None, images: Path | None) -> Dataset | None:
    """Return the dataset of the records; None if the user gives no images and the records are not of the shipped ones.

    Args:
        records: Of one run.
        dataset: See `load_dataset`.
        images: See `load_dataset`.

    Raises:
        DatasetError: The images cannot be read, or differ from those of the records.
    """
    work = records[0].workload
    if dataset is None and images is None:
        if work.dataset_path != SHIPPED:
            logger.warning("the page has no thumbnails; give the images of %s with --dataset or --images", work.dataset)
            return None
        dataset = SHIPPED
    loaded = load_dataset(dataset, images, work.limit, work.task)
    if loaded.sha256 != work.dataset_sha256:
        problem = f"is not the dataset of these records ({work.dataset}); give that dataset, or omit images with --no-images"
        raise DatasetError(str(dataset or images), problem)
    return loaded
