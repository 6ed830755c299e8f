"""Places that hold bundles.

``contract`` states what a place of immutable objects promises; ``directory`` and ``s3`` keep the
promise; ``bundle_store`` lays bundles out over either of them; ``registry`` holds the runnable
images. May import ``bundle``, ``config`` and ``errors``, never another room of its floor.
"""

__all__ = ["bundle_store", "contract", "directory"]
