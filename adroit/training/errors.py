"""The one failure of the training side that is not a bug; laid out as the publisher's are.

The facts are fields; the message is made from them: what happened, where, what was got against
what was wanted, and what to do next. No message may carry a credential or a signed URL.
"""

from __future__ import annotations

from typing import Any


class TrainingError(Exception):
    """A run or its model was not logged, for a reason that is told.

    Args:
        what: One sentence: what went wrong.
        where: The file and line, server, run or model it went wrong at.
        got: What was found there.
        wanted: What was expected in its place.
        next_step: What to type or change next.
    """

    def __init__(
        self,
        what: str,
        *,
        where: object = None,
        got: object = None,
        wanted: object = None,
        next_step: str | None = None,
    ) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.got = got
        self.wanted = wanted
        self.next_step = next_step

    def __str__(self) -> str:
        facts = {
            "where": self.where,
            "got": self.got,
            "wanted": self.wanted,
            "next": self.next_step,
        }
        lines = [self.what]
        for label, fact in facts.items():
            if fact is not None and str(fact) != "":
                lines.append(f"  {label + ':':<8}" + str(fact).replace("\n", "\n          "))
        return "\n".join(lines)

    def __reduce__(self) -> tuple[Any, ...]:
        # Metaflow carries exceptions across processes by pickle, which drops keyword arguments.
        return (_rebuild, (type(self), self.__dict__))


def _rebuild(cls: type[TrainingError], facts: dict[str, Any]) -> TrainingError:
    error = cls.__new__(cls)
    Exception.__init__(error, facts["what"])
    error.__dict__.update(facts)
    return error
