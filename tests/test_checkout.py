"""A checkout: its files are read and parsed at most once, and not before they are asked for."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from adroit_publish.checkout import Checkout, open_checkout, read_file
from adroit_publish.errors import ConfigError

FILES = {
    "adroit.toml": (
        'default_target = "local"\n[targets.local]\ntracking_uri = "file:m"\nbundles = "file:b"\n'
    ),
    "flavors.yaml": "".join(
        f"{name}:\n  config: projects/m/config.yaml\n  conda_env: plain\n" for name in "abc"
    ),
    "conda_envs.yaml": "plain:\n  environment: environment.yml\n",
    "environment.yml": "dependencies: [python=3.11]\n",
    "projects/m/config.yaml": "model_name: m\nserve: {handler: {class_path: 'm:H'}}\n",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for path, text in FILES.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    return tmp_path


def test_each_file_is_read_once_whoever_asks(root):
    read: Counter[str] = Counter()

    def counted(where: Path, path: str) -> bytes:
        read[path] += 1
        return read_file(where, path)

    checkout = Checkout(root, {}, counted)
    assert not read

    def ask(_number: int) -> None:
        for flavor in checkout.flavors.values():
            checkout.project(flavor)
            checkout.environment_digest(checkout.conda_env(flavor))
            _ = checkout.flavors_bytes

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(32)))
    # adroit.toml is always the working tree's.
    assert read == {path: 1 for path in FILES if path != "adroit.toml"}


def test_what_changes_on_the_disk_changes_nothing_that_was_read(root):
    checkout = open_checkout(root, {})
    (root / "flavors.yaml").write_text("")
    assert list(checkout.flavors) == ["a", "b", "c"]
    assert checkout.target(None).name == "local"


def test_a_missing_file_is_told_with_what_it_is_for(root):
    (root / "projects/m/config.yaml").unlink()
    (root / "conda_envs.yaml").unlink()
    checkout = open_checkout(root, {})
    with pytest.raises(ConfigError, match=r"config\.yaml cannot be read.*") as caught:
        checkout.project(checkout.flavors["a"])
    assert "flavor a names it" in str(caught.value)
    with pytest.raises(ConfigError, match=r"conda_envs\.yaml cannot be read"):
        checkout.conda_env(checkout.flavors["a"])


def test_adroit_config_names_another_file_of_targets(root, tmp_path):
    (root / "adroit.toml").rename(root / "elsewhere.toml")
    with pytest.raises(ConfigError, match=r"adroit\.toml cannot be read"):
        open_checkout(root, {})
    assert list(open_checkout(root, {"ADROIT_CONFIG": "elsewhere.toml"}).targets.by_name)
