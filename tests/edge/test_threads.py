"""edge.threads: the first failure ends the whole work, and is what is raised."""

from __future__ import annotations

import threading

import pytest

from adroit_publish.edge.threads import Stopped, Together


def test_what_threads_return_is_there_when_the_context_ends():
    with Together(2, "t") as threads:
        futures = [threads.start(pow, number, 2) for number in range(5)]
    assert [future.result() for future in futures] == [0, 1, 4, 9, 16]


def test_the_first_failure_ends_the_others_and_is_raised():
    began, told, ends = threading.Event(), [], []

    def endless(threads):
        heard = threads.heeding(told.append)
        try:
            while True:
                heard(1)
                began.set()
        except Stopped:
            ends.append("stopped")
            raise

    def fail():
        assert began.wait(10)
        raise OSError("the disk")

    def work():
        with Together(2, "t") as threads:
            threads.start(endless, threads)
            threads.start(fail)
            threads.start(ends.append, "begun all the same")

    with pytest.raises(OSError, match="the disk"):
        work()
    assert told
    assert ends == ["stopped"]


def test_the_failure_is_raised_where_the_body_met_only_what_it_stopped():
    def work():
        with Together(1, "t") as threads:
            threads.start(_fail)
            threads.start(pow, 2, 2).result()

    with pytest.raises(OSError, match="the disk"):
        work()


def test_a_failure_of_the_body_ends_the_threads():
    began, ended = threading.Event(), threading.Event()

    def endless(threads):
        try:
            while True:
                threads.heed()
                began.set()
        finally:
            ended.set()

    def work():
        with Together(1, "t") as threads:
            threads.start(endless, threads)
            assert began.wait(10)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert ended.is_set()


def test_a_failure_beside_ends_both():
    def work():
        with Together(1, "a") as a, Together(1, "b", a) as b:
            b.start(_fail)
            a.start(_until_stopped, a).result()

    with pytest.raises(OSError, match="the disk"):
        work()


def _fail():
    raise OSError("the disk")


def _until_stopped(threads):
    while True:
        threads.heed()
