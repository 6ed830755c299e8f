"""What the log says of a start: each stage as it begins, and what went wrong in it."""

from __future__ import annotations

import logging

from adroit.serving.bundle import BundleError
from adroit.serving.logs import causes_of, event, frames_of, words_of
from adroit.serving.outputs import OutputError

_ERROR_CHARS = 2000


class Start:
    """A start, stage by stage."""

    def __init__(self) -> None:
        self.stage = "listen"

    def enter(self, stage: str) -> None:
        """Logs that a stage begins."""
        self.stage = stage
        event("starting", stage=stage)

    def failed(self, error: BaseException) -> None:
        """Logs what ended it. No request has come yet: the message can hold none of its values."""
        ours = isinstance(error, (BundleError, OutputError)) or self.stage == "listen"
        event(
            "not serving",
            level=logging.ERROR,
            stage=self.stage,
            error_type=type(error).__qualname__,
            error=words_of(error)[:_ERROR_CHARS],
            causes=[
                f"{type(cause).__name__}: {words_of(cause)[:_ERROR_CHARS]}"
                for cause in causes_of(error)
            ]
            or None,
            frames=None if ours else frames_of(error),
        )
