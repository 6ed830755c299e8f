"""What server and workers send each other, in pieces and broken."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adroit.serving.workers.frames import Decoder, Frame, FrameError, receive

KEY = b"0123456789abcdef"
FRAMES = [Frame({}), Frame({"a": [1]}, b"body"), Frame({"ü": None}, b"\x00" * 1000)]


@given(st.integers(1, 40))
def test_frames_come_out_of_any_pieces(size: int) -> None:
    data, decoder, whole = b"".join(frame.encoded(KEY) for frame in FRAMES), Decoder(KEY), []
    for start in range(0, len(data), size):
        whole += decoder.feed(data[start : start + size])
    assert whole == FRAMES


def test_a_socket_gives_frames_and_then_nothing() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for frame in FRAMES:
            ours.sendall(frame.encoded(KEY))
        ours.sendall(FRAMES[1].encoded(KEY)[:-1])
        ours.shutdown(socket.SHUT_WR)
        assert [receive(theirs, KEY) for _ in FRAMES] == FRAMES
        assert receive(theirs, KEY) is None


@pytest.mark.parametrize(
    "data",
    [b"\xff" * 64, b"\x00\x00\x00\x02\x00\x00\x00\x00[]", b"\x00\x00\x00\x01\x00\x00\x00\x00{"],
)
def test_what_is_not_a_frame_is_refused(data: bytes) -> None:
    with pytest.raises(FrameError):
        list(Decoder(KEY).feed(KEY + data))


@given(st.integers(1, 40))
def test_what_a_model_writes_between_frames_is_passed_over(size: int) -> None:
    data, decoder, whole = b"", Decoder(KEY), []
    for frame in FRAMES:
        data += b'{"schema": 2}\xff' + KEY[:9] + frame.encoded(KEY)
    for start in range(0, len(data), size):
        whole += decoder.feed(data[start : start + size])
    assert whole == FRAMES


def test_each_entry_has_its_part_of_the_body() -> None:
    frame = Frame({"jobs": [{"size": 2}, {"size": 0}, {"size": 3}]}, b"abcde")
    assert [body for _, body in frame.parts("jobs")] == [b"ab", b"", b"cde"]
