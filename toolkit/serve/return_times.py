"""When refused clients may come back."""

from math import inf


class ReturnTimes:
    """Gives refused clients turns, so that a crowd does not come back in the same second.

    A turn takes as long as an image. The first one begins when the queue has room. After `span_s` turns begin anew, so that clients which
    come back too early cannot delay the others.

    Args:
        span_s: Seconds over which turns are spread.
    """

    def __init__(self, span_s: float) -> None:
        self._span_s, self._last = span_s, -inf

    def next(self, now: float, room_s: float, image_s: float) -> float:
        """Return the seconds until the next turn.

        Args:
            now: Seconds of a monotonic clock.
            room_s: Seconds until the queue has room.
            image_s: Usual seconds of an image.
        """
        room, turn = now + room_s, self._last + image_s
        self._last = turn if room <= turn <= room + self._span_s else room
        return self._last - now
