"""``Once``: a value is made at most once, however many threads ask."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from adroit_publish.edge.once import Once


def test_of_many_threads_one_makes_the_value_and_all_get_it():
    once, made, together = Once(), [], threading.Barrier(8)

    def ask(_number: int) -> object:
        together.wait()
        return once("key", lambda: made.append(1) or object())

    with ThreadPoolExecutor(8) as pool:
        values = set(pool.map(ask, range(8)))
    assert (len(values), len(made)) == (1, 1)


def test_each_key_has_its_own_value_and_may_need_another():
    once = Once()
    assert once("a", lambda: once("b", lambda: 1) + 1) == 2
    assert once("b", lambda: 3) == 1


def test_an_error_is_kept_as_a_value_is():
    once, tried = Once(), []

    def fail() -> None:
        tried.append(1)
        raise LookupError("not there")

    for _ in range(2):
        with pytest.raises(LookupError, match="not there"):
            once("key", fail)
    assert len(tried) == 1
