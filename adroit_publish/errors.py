"""Every failure a user can meet, and the exit code each one ends with.

    PublishError
      ConfigError         the user's file or flag                       exit 2
      SourceError         run, artifact or git                          exit 3
        ModelNotFound
        AmbiguousModel
        DirtyTree
      RefusedError        account, permission, policy, conflict         exit 4
      StoreError          store or network; ``transient`` says retry    exit 5
      VerificationError   digest, size or output is not what it must be exit 6

The facts of a failure are fields; the message is made from them: what happened, where, what was
got against what was wanted, and what to type next. A traceback reaches a user only for a bug.
No message may carry a credential or a signed URL.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

EXIT_OK = 0
EXIT_SOMETHING_TO_DO = 10
EXIT_INTERRUPTED = 130
UPGRADE = "upgrade: update this checkout and its environment, then run the command again"
"""What to do where a newer version of this program wrote a document: nothing of it is damaged."""


class PublishError(Exception):
    """A publish did not happen, for a reason that is not a bug.

    Args:
        what: One sentence: what went wrong.
        where: The file and line, URL, run or blob it went wrong at.
        got: What was found there.
        wanted: What was expected in its place.
        next_step: What to type or change next.
    """

    exit_code = 1

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
        facts = (
            ("where", self.where),
            ("got", self.got),
            ("wanted", self.wanted),
            ("next", self.next_step),
        )
        lines = [self.what]
        for label, fact in facts:
            if fact is not None and str(fact) != "":
                lines.append(f"  {label + ':':<8}" + str(fact).replace("\n", "\n          "))
        return "\n".join(lines)

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions cross process borders by pickle, whose default drops keyword arguments.
        return (_rebuild, (type(self), self.__dict__))

    def as_dict(self) -> dict[str, Any]:
        """Returns the facts as JSON values, for ``--json`` and for the card."""
        facts = {key: value for key, value in self.__dict__.items() if value is not None}
        return {"error": type(self).__name__, "exit_code": self.exit_code} | {
            key: value if isinstance(value, bool | int | float) else str(value)
            for key, value in facts.items()
        }


def _rebuild(cls: type[PublishError], facts: dict[str, Any]) -> PublishError:
    error = cls.__new__(cls)
    Exception.__init__(error, facts["what"])
    error.__dict__.update(facts)
    return error


@dataclass(frozen=True)
class Problem:
    """One thing wrong in one file.

    Attributes:
        file: The file's path as the user knows it.
        line: Line in the file, from 1; 0 where the problem is the file as a whole.
        message: What is wrong and what is allowed.
    """

    file: str
    line: int
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.message}"


class ConfigError(PublishError):
    """A file the user wrote, or a flag, is not what it has to be; all its problems at once."""

    exit_code = 2

    @classmethod
    def of(cls, problems: list[Problem], next_step: str | None = None) -> ConfigError:
        """Returns one error that lists every problem, in the order of the file.

        Args:
            problems: At least one.
            next_step: What to do once they are read; None where the lines say it all.
        """
        if not problems:
            raise ValueError("a ConfigError needs at least one problem")
        ordered = sorted(problems, key=lambda problem: (problem.file, problem.line))
        return cls("\n".join(str(problem) for problem in ordered), next_step=next_step)


class SourceError(PublishError):
    """The tracking server, an artifact or git did not give what a publish needs."""

    exit_code = 3


class ModelNotFound(SourceError):
    """The run does not exist, or holds no model that can be published."""


class AmbiguousModel(SourceError):
    """The run holds several models and nothing says which one is meant."""


class DirtyTree(SourceError):
    """Files that a bundle is made from are not what the commit says they are."""


class RefusedError(PublishError):
    """An account, a permission, a policy or another writer stands against it."""

    exit_code = 4


class StoreError(PublishError):
    """A store or the network failed; the same command can be given again.

    Args:
        transient: Whether trying again at once may help.
    """

    exit_code = 5

    def __init__(self, what: str, *, transient: bool = False, **facts: Any) -> None:
        super().__init__(what, **facts)
        self.transient = transient


class VerificationError(PublishError):
    """Bytes, a digest, a size or an output are not what was recorded or promised."""

    exit_code = 6
