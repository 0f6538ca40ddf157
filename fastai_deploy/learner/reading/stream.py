"""Sequential reading of a pickle from any source, through a window of fixed size."""

from __future__ import annotations

from fastai_deploy.learner.reading.sources import Source, truncated

WINDOW = 1 << 18  # bytes; large enough that most reads are a slice, small enough to be nothing


class Stream:
    """Reads forward from ``start``; ``offset`` is the position in the source."""

    __slots__ = ("_base", "_next", "_window", "source")

    def __init__(self, source: Source, start: int = 0) -> None:
        self.source = source
        self._base = start
        self._window = b""
        self._next = 0

    @property
    def offset(self) -> int:
        """Offset in the source of the next byte."""
        return self._base + self._next

    @property
    def left(self) -> int:
        """Number of bytes from here to the end of the source."""
        return self.source.size - self.offset

    def byte(self) -> int:
        """The next byte. Raises LearnerTruncated at the end."""
        position = self._next
        if position >= len(self._window):
            self._fill(1)
            position = 0
        self._next = position + 1
        return self._window[position]

    def read(self, size: int) -> bytes:
        """The next ``size`` bytes. Raises LearnerTruncated when there are fewer."""
        end = self._next + size
        if end > len(self._window):
            if size > WINDOW:
                data = self.source.read(self.offset, size)
                self.skip(size)
                return data
            self._fill(size)
            end = size
        data = self._window[self._next : end]
        self._next = end
        return data

    def skip(self, size: int) -> None:
        """Move forward by ``size`` bytes. Raises LearnerTruncated when there are fewer."""
        if size > self.left:
            raise truncated("the file ends in the middle of a value")
        if self._next + size <= len(self._window):
            self._next += size
        else:
            self._base, self._window, self._next = self.offset + size, b"", 0

    def line(self, limit: int) -> bytes:
        """The next line without its newline, at most ``limit`` bytes. Raises LearnerTruncated."""
        wanted = min(limit + 1, self.left)
        if len(self._window) - self._next < wanted:
            self._fill(wanted)
        end = self._window.find(b"\n", self._next, self._next + wanted)
        if end < 0:
            raise truncated(f"a line of the pickle at byte {self.offset} does not end")
        line = self._window[self._next : end]
        self._next = end + 1
        return line

    def _fill(self, size: int) -> None:
        """Start the window at the current position; it then holds at least ``size`` bytes."""
        offset = self.offset
        left = self.source.size - offset
        if size > left:
            raise truncated("the file ends in the middle of the pickle")
        self._window = self.source.read(offset, min(max(size, WINDOW), left))
        self._base, self._next = offset, 0
