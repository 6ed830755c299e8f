"""Sources of traffic that are monitoring services: they keep points, and are asked for them.

``points`` makes a reading of points; ``datadog`` and ``cloudwatch`` get them. May import what
``evidence`` may, and its ``traffic``, ``samples`` and ``answers``."""

from __future__ import annotations

__all__: list[str] = []
