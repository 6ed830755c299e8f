"""Adroit Publish: a model of an MLflow run becomes an immutable, verified, servable version."""

from __future__ import annotations
