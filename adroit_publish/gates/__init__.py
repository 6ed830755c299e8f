"""What must be true before an upload: gates look at content and refuse, or let pass.

``prediction`` shows that a bundle loads and predicts, in ``sandbox``, where a model can reach
neither credentials nor files nor network; ``confinement`` and ``interpreter`` are its parts.
``container`` shows the same of the published image, on a ``docker_engine``. What either one's
process wrote is judged by ``report``. From here import the floors below and nothing of a sibling
room.
"""

__all__ = ["container", "docker_engine", "prediction", "report", "sandbox"]
