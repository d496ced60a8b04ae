"""Answers that wait for their readers.

24 answers of 55 MB each that nobody read took 640 MB and held up the event loop.
"""

from collections.abc import Awaitable, Callable

import pytest

from app.api.json_response import MAX_UNREAD, PART_SIZE, BufferedJsonResponse, Unread
from model.errors import QueueFullError

Message = dict[str, object]


async def receive() -> Message:
    raise AssertionError("nothing is to be received")


def collect(messages: list[Message], fail_at: int | None = None) -> Callable[[Message], Awaitable[None]]:
    async def send(message: Message) -> None:
        if len(messages) == fail_at:
            raise ConnectionError
        messages.append(message)

    return send


@pytest.mark.parametrize("size", [0, 1, PART_SIZE, PART_SIZE + 1, 3 * PART_SIZE])
async def test_an_answer_is_sent_in_parts(size: int) -> None:
    unread = Unread()
    messages: list[Message] = []
    text = "x" * size
    await BufferedJsonResponse(text, unread)({"type": "http"}, receive, collect(messages))  # type: ignore[arg-type]
    bodies = [message["body"] for message in messages[1:]]
    assert b"".join(bodies) == text.encode()  # type: ignore[arg-type]
    assert all(len(body) <= PART_SIZE for body in bodies)  # type: ignore[arg-type]
    assert [message["more_body"] for message in messages[1:]] == [True] * (len(bodies) - 1) + [False]
    assert unread.bytes == 0


async def test_the_bytes_of_unread_answers_are_bounded() -> None:
    unread = Unread()
    messages: list[Message] = []
    unread.add(MAX_UNREAD)
    with pytest.raises(QueueFullError, match="67,108,864 bytes of answers wait to be read already"):
        await BufferedJsonResponse("x" * (PART_SIZE + 1), unread)({"type": "http"}, receive, collect(messages))  # type: ignore[arg-type]
    assert messages == []
    await BufferedJsonResponse("x", unread)({"type": "http"}, receive, collect(messages))  # type: ignore[arg-type]
    assert messages
    assert unread.bytes == MAX_UNREAD


async def test_an_answer_whose_reader_leaves_is_no_longer_counted() -> None:
    unread = Unread()
    with pytest.raises(ConnectionError):
        await BufferedJsonResponse("x" * 5 * PART_SIZE, unread)({"type": "http"}, receive, collect([], 2))  # type: ignore[arg-type]
    assert unread.bytes == 0
