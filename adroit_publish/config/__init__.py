"""The files a user writes, as checked values: text in, frozen dataclasses or a ConfigError out.

``flavors``, with the byte-exact edits of one value (``flavors_edit``) and of whole entries
(``flavors_entries``); ``project``, a model's config.yaml; ``conda_envs``; ``targets``, which is
adroit.toml; ``sitevars``. They share ``yaml``, ``names`` and ``addresses``. Everything here is
pure: no file, network, clock or environment is touched, so each rule can be tested with a few
bytes. May be imported from floor 3 upwards; imports nothing but ``errors``, ruamel.yaml, pathspec
and the format that ``adroit.sitevars`` reads by.
"""

__all__: list[str] = []
