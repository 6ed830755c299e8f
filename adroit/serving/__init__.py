"""Serving one bundle: reading it, constructing its handler, predicting once to verify it.

All that goes into an image. It runs on what mlflow-skinny 3 installs plus numpy and pandas, and
imports those only where they are used. A handler of one's own imports ``Bundle`` and ``Handler``
from here; the rest is named by module.
"""

from __future__ import annotations

from adroit.serving.bundle import Bundle, BundleError
from adroit.serving.handler import Handler

__all__ = ["Bundle", "BundleError", "Handler"]
