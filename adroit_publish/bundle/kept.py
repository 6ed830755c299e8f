"""Documents that outlive the program that wrote them: how a format with a number is read.

A document is a JSON object with ``schema``. A field that is missing has the default that its
reader names; a field that is there is of the kind that its reader names. A higher number was
written by a newer version of this program. So was a field that is not known here: a document that
is written again (a rollover) is refused for it (``Fields.end``), or the field would be lost; one
that never changes (a record, an entry of the ledger) is read without it, because only a new number
may change what the other fields mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from adroit_publish.errors import UPGRADE, VerificationError

T = TypeVar("T")


class WrittenByNewer(Exception):
    """A document says something that this program does not know."""


class Fields:
    """The fields of one JSON object, each taken once; raises TypeError for any other value."""

    def __init__(self, value: Any) -> None:
        if not isinstance(value, Mapping):
            raise TypeError(f"{value!r} where an object belongs")
        self._left = dict(value)

    def take(self, name: str, kind: Callable[[Any], T], *default: T) -> T:
        """Returns a field's value as ``kind`` reads it, or the default where it is missing.

        Raises KeyError without a default, and TypeError or ValueError where it is not of this kind.
        """
        if name not in self._left and default:
            return default[0]
        return kind(self._left.pop(name))

    def end(self) -> None:
        """Refuses fields that nobody took; ``reading`` says so to a user."""
        if self._left:
            raise WrittenByNewer(", ".join(sorted(self._left)))


@contextmanager
def reading(what: str, where: str, schema: object, *known: int) -> Iterator[None]:
    """Turns what goes wrong while a document is read into words.

    Args:
        what: The document, as the subject of a sentence.
        schema: Its number.
        known: The numbers that can be read.

    Raises:
        VerificationError: The document is damaged, or was written by a newer version.
    """
    try:
        if schema not in known or isinstance(schema, bool):
            raise WrittenByNewer(f"schema {schema!r}")
        yield
    except WrittenByNewer as error:
        raise VerificationError(
            f"{what} was written by a newer version of this program.",
            where=where,
            got=str(error),
            wanted=f"schema {known[-1]}, and nothing that it does not have",
            next_step=UPGRADE,
        ) from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise VerificationError(
            f"{what} is damaged.",
            where=where,
            got=repr(error),
            next_step="restore the object from the store's older versions; nothing was changed",
        ) from error


def text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} where a text belongs")
    return value


def number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r} where a number belongs")
    return float(value)


def count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{value!r} where a whole number belongs")
    return value


def table(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"{value!r} where an object belongs")
    return value


def listed(kind: Callable[[Any], T]) -> Callable[[Any], tuple[T, ...]]:
    """Reads a list of values of one kind."""

    def read(value: Any) -> tuple[T, ...]:
        if not isinstance(value, list):
            raise TypeError(f"{value!r} where a list belongs")
        return tuple(map(kind, value))

    return read


def optional(kind: Callable[[Any], T]) -> Callable[[Any], T | None]:
    """Reads a value of a kind, or null."""
    return lambda value: None if value is None else kind(value)
