"""The files a user writes, as checked values: text in, frozen dataclasses or a ConfigError out.

``flavors`` (with the byte-exact edits: ``flavors_edit`` of one version, ``flavors_hold``,
``flavors_entries`` of whole entries), ``project`` (a model's config.yaml), ``conda_envs``,
``targets`` (adroit.toml) and ``sitevars``. ``yaml_text``, ``yaml_spans``, ``yaml_tree``,
``yaml_values``, ``names`` and ``addresses`` are what they share. Everything here is pure: no file,
network, clock or environment is touched, so each rule can be tested with a few bytes. May be
imported from floor 3 upwards; imports nothing but ``errors``, ruamel.yaml and the format that
``adroit.sitevars`` reads by.
"""

from __future__ import annotations

__all__ = [
    "addresses",
    "conda_envs",
    "flavors",
    "flavors_edit",
    "flavors_entries",
    "flavors_hold",
    "names",
    "project",
    "sitevars",
    "targets",
    "yaml_spans",
    "yaml_text",
    "yaml_tree",
    "yaml_values",
]
