from __future__ import annotations

import pytest

from adroit_publish.config.conda_envs import CondaEnv, find_conda_env, parse_conda_envs
from adroit_publish.errors import ConfigError


def problems_of(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_conda_envs(text.encode())
    return str(caught.value).splitlines()


def test_an_env_is_read_with_its_defaults() -> None:
    text = f"""
x-common: &common {{platform: linux/arm64}}
sklearn:
  image: adroit-env/sklearn:2026.11
  environment: ./conda_envs/sklearn/environment.yml
torch:
  <<: *common
  image: "registry.example:5000/env/torch@sha256:{"0" * 64}"
  python: /usr/bin/python3
  owner: us
"""
    envs = parse_conda_envs(text.encode())
    assert envs["sklearn"] == CondaEnv(
        name="sklearn",
        image="adroit-env/sklearn:2026.11",
        platform="linux/amd64",
        python="/opt/conda/envs/adroit/bin/python",
        environment="conda_envs/sklearn/environment.yml",
    )
    assert (envs["torch"].platform, envs["torch"].python) == ("linux/arm64", "/usr/bin/python3")
    assert envs["torch"].environment is None


@pytest.mark.parametrize(
    "image",
    ["https://r/x", "A/B:1", "a b", "u:p@host/x", "'x:'", "x@sha256:12", "'../x'", "x:y:z", "x//y"],
)
def test_what_is_no_image_reference_is_refused(image: str) -> None:
    assert problems_of(f"e:\n  image: {image}\n")[0].startswith("conda_envs.yaml:2: env 'e': ")


def test_all_problems_are_reported_together() -> None:
    text = (
        "a: {}\n"
        "b:\n  imagge: x\n  environment: /etc/x\n  platform: linux\n  python: bin/python\n"
        "c: [x]\n"
    )
    problems = problems_of(text)
    assert [int(problem.split(":")[1]) for problem in problems] == [1, 3, 4, 5, 6, 7, 7]
    assert "'image' meant" in problems[1]


def test_an_unknown_env_names_the_nearest() -> None:
    envs = parse_conda_envs(b"sklearn: {image: x}\n")
    assert find_conda_env(envs, "sklearn").image == "x"
    with pytest.raises(ConfigError, match="sklearn"):
        find_conda_env(envs, "sklaern")
