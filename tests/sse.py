"""A reader of event streams by the letter of the WHATWG HTML standard (section 9.2), to hold our frames to.

https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
Keeps besides what browsers throw away, so that tests can see that nothing was there. Knows nothing of our events.
"""

import codecs
import re
from dataclasses import dataclass, field

LINE_END = re.compile("\r\n|\n|\r")
ASCII_DIGITS = re.compile("[0-9]+")


@dataclass(frozen=True)
class Dispatched:
    """An event as a page's listener gets it."""

    type: str
    data: str
    last_event_id: str


@dataclass
class EventStream:
    """What has been read so far of one stream.

    `fields` has every field in order, known or not; `comments` what follows a colon at the beginning of a line.
    """

    last_event_id: str = ""
    reconnection_time: int | None = None
    fields: list[tuple[str, str]] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._begun = False
        self._rest = ""
        self._data = ""
        self._type = ""
        self._id = self.last_event_id

    def feed(self, chunk: bytes) -> list[Dispatched]:
        """Read on; return the events that are complete now. What has no blank line after it yet, waits."""
        self._rest += self._decoder.decode(chunk)
        if not self._begun and self._rest:
            self._begun = True
            self._rest = self._rest.removeprefix("\ufeff")
        events = []
        while (end := LINE_END.search(self._rest)) and not (end[0] == "\r" and end.end() == len(self._rest)):
            line = self._rest[: end.start()]
            self._rest = self._rest[end.end() :]
            events += self._read(line)
        return events

    def close(self) -> list[Dispatched]:
        """The stream ends: a last CR ends its line, what has no blank line after it is lost."""
        self._rest += self._decoder.decode(b"", final=True)
        events = self._read(self._rest[:-1]) if self._rest.endswith("\r") else []
        self._rest = self._data = self._type = ""
        return events

    def _read(self, line: str) -> list[Dispatched]:
        if not line:
            return self._dispatch()
        name, colon, value = line.partition(":")
        if colon and not name:
            self.comments.append(value)
        else:
            self._process(name, value.removeprefix(" "))
        return []

    def _process(self, name: str, value: str) -> None:
        self.fields.append((name, value))
        if name == "event":
            self._type = value
        elif name == "data":
            self._data += value + "\n"
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and ASCII_DIGITS.fullmatch(value):
            self.reconnection_time = int(value)

    def _dispatch(self) -> list[Dispatched]:
        self.last_event_id = self._id
        data = self._data
        name = self._type or "message"
        self._data = ""
        self._type = ""
        return [Dispatched(name, data.removesuffix("\n"), self._id)] if data else []


def read_events(body: bytes) -> list[Dispatched]:
    """All events of a stream that came whole."""
    stream = EventStream()
    return stream.feed(body) + stream.close()
