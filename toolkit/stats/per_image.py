"""Convert times per batch to times per image, without images that could not be captioned."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from toolkit.records.record import ImageTimes, Record


def per_image(records: Sequence[Record]) -> list[Record]:
    """Return records of one case and setting with one entry of times per captioned image: an equal share of its batch's times.

    Batches without any caption are left out, because a failure takes less time than a caption.
    """
    quality = next((record.quality for record in records if record.quality), ())
    failed = {index for index, image in enumerate(quality) if image.error is not None}
    return [replace(record, times=tuple(_image_times(record, failed))) if record.error is None else record for record in records]


def _image_times(record: Record, failed: set[int]) -> Iterator[ImageTimes]:
    size, images = record.workload.batch_size, record.workload.images
    for number, time in enumerate(record.times):
        indices = range(number * size, min((number + 1) * size, images))
        captioned = len(set(indices) - failed)
        if captioned:
            yield from [_share(time, captioned)] * captioned


def _share(time: ImageTimes, captioned: int) -> ImageTimes:
    """Return the share of one image in the times of a batch of `captioned` images; each decoder step generates a token for each image."""
    return ImageTimes(
        total_s=time.total_s / captioned,
        read_s=time.read_s / captioned,
        encode_s=None if time.encode_s is None else time.encode_s / captioned,
        first_token_s=None if time.first_token_s is None else time.first_token_s / captioned,
        token_s=tuple(seconds / captioned for seconds in time.token_s),
        steps=time.steps,
        text_s=None if time.text_s is None else time.text_s / captioned,
    )
