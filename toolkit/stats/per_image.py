"""Times of batches go in; times of images come out, without those of images that could not be captioned."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from toolkit.records.record import ImageTimes, Record


def per_image(listed: Sequence[Record]) -> list[Record]:
    """Return records of one case and setting with one entry of times per captioned image: its equal part of its batch's.

    A batch of which nothing could be captioned has none: failing is fast.
    """
    quality = next((record.quality for record in listed if record.quality), ())
    bad = {place for place, image in enumerate(quality) if image.error is not None}
    return [replace(record, times=tuple(_parts(record, bad))) if record.error is None else record for record in listed]


def _parts(record: Record, bad: set[int]) -> Iterator[ImageTimes]:
    size, images = record.workload.batch_size, record.workload.images
    for number, time in enumerate(record.times):
        places = range(number * size, min((number + 1) * size, images))
        captioned = len(set(places) - bad)
        if captioned:
            yield from [_share(time, captioned)] * captioned


def _share(time: ImageTimes, captioned: int) -> ImageTimes:
    """Return the part of one of so many images; a step gives each of them a token."""
    return ImageTimes(
        total_s=time.total_s / captioned,
        read_s=time.read_s / captioned,
        encode_s=None if time.encode_s is None else time.encode_s / captioned,
        first_token_s=None if time.first_token_s is None else time.first_token_s / captioned,
        token_s=tuple(seconds / captioned for seconds in time.token_s),
    )
