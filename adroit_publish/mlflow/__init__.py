"""From a run id to the one model it holds: MLflow's tracking store, read and never written.

Floor 3: imports the floors below and ``artifacts``."""

__all__: list[str] = []
