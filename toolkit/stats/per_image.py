"""Times of batches go in; times of pictures come out, without those of pictures that could not be captioned."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from toolkit.records.record import PictureTimes, Record


def per_picture(listed: Sequence[Record]) -> list[Record]:
    """Return records of one case and setting with one entry of times per captioned picture: its equal part of its batch's.

    A batch of which nothing could be captioned has none: failing is fast.
    """
    quality = next((record.quality for record in listed if record.quality), ())
    bad = {place for place, picture in enumerate(quality) if picture.error is not None}
    return [replace(record, times=tuple(_parts(record, bad))) if record.error is None else record for record in listed]


def _parts(record: Record, bad: set[int]) -> Iterator[PictureTimes]:
    size, pictures = record.workload.batch_size, record.workload.pictures
    for number, time in enumerate(record.times):
        places = range(number * size, min((number + 1) * size, pictures))
        captioned = len(set(places) - bad)
        if captioned:
            yield from [_share(time, captioned)] * captioned


def _share(time: PictureTimes, captioned: int) -> PictureTimes:
    """Return the part of one of so many pictures; a step gives each of them a token."""
    return PictureTimes(
        total_s=time.total_s / captioned,
        read_s=time.read_s / captioned,
        encode_s=None if time.encode_s is None else time.encode_s / captioned,
        first_token_s=None if time.first_token_s is None else time.first_token_s / captioned,
        token_s=tuple(seconds / captioned for seconds in time.token_s),
    )
