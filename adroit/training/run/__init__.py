"""A run as long as it is open: MLflow's active one, given things, and ended with its process.

Imported by ``run_publisher`` alone, by module.
"""

from __future__ import annotations

__all__: list[str] = []
