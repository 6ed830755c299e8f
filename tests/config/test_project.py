from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from adroit_publish.config.project import DEFAULT_EXCLUDES, excluded, parse_project
from adroit_publish.config.rollout import Rollout
from adroit_publish.errors import ConfigError

FILE = "projects/m/config.yaml"
WHOLE = b"""
model_name: &model_name m
serve:
  handler:
    class_path: adroit.serving.mlflow_handler:MlflowHandler
    kwargs:
      model_name: *model_name
      log_features_percent: 0.1
  workers: 2
source:
  include: [projects/common/]
  exclude: ["experiments/**"]
verify:
  rtol: 1.0e-3
security:
  allow_pickle_globals: [numpy.core.multiarray._reconstruct]
team: search
"""
LEAST = "model_name: m\nserve: {handler: {class_path: a.b:C}}\n"


def problems_of(text: str, directory: str = "m") -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_project(text.encode(), FILE, directory)
    return str(caught.value).splitlines()


def test_a_whole_config_is_read() -> None:
    project = parse_project(WHOLE, FILE, "projects/m")
    assert project.model_name == "m"
    assert project.handler.class_path == "adroit.serving.mlflow_handler:MlflowHandler"
    assert project.handler.kwargs == {"model_name": "m", "log_features_percent": 0.1}
    assert project.include == ("projects/common",)
    assert project.exclude == ("experiments/**",)
    assert project.rtol == 1e-3
    assert project.allow_pickle_globals == ("numpy.core.multiarray._reconstruct",)
    handler = {"class_path": project.handler.class_path, "kwargs": project.handler.kwargs}
    assert project.serve == {"handler": handler, "workers": 2}
    json.dumps(project.serve, allow_nan=False)


def test_the_least_config_has_defaults() -> None:
    project = parse_project(LEAST.encode(), FILE, "m")
    assert (project.include, project.exclude, project.rtol) == ((), (), 1e-6)
    assert project.handler.kwargs == {}
    assert project.allow_pickle_globals == ()


def test_a_comment_does_not_change_the_serve_section() -> None:
    one = parse_project(LEAST.encode(), FILE, "m").serve
    other = "# c\nmodel_name: m\nserve:\n  handler:   # c\n    class_path: 'a.b:C'\n"
    assert parse_project(other.encode(), FILE, "m").serve == one


def test_all_problems_are_reported_together() -> None:
    text = (
        "model_name: other\n"
        "serve:\n  handler:\n    class_path: a.b\n    kwarg: {}\n"
        "    kwargs: {log_features_percent: 101}\n"
        "sourse: {}\n"
        "verify:\n  rtol: -1\n  atol: 1\n"
        "security:\n  allow_pickle_globals: ['os.*', 5]\n"
    )
    problems = problems_of(text)
    assert [int(problem.split(":")[1]) for problem in problems] == [1, 4, 5, 6, 7, 9, 10, 12]
    assert "they must be equal" in problems[0]
    assert "'kwargs' meant" in problems[2]
    assert "'source' meant" in problems[4]


@pytest.mark.parametrize(
    "name", ["../m", ".m", "a..b", "m/x", "m x", "-m", "m_", "a._b", "ü", "''"]
)
def test_an_unsafe_model_name_is_refused(name: str) -> None:
    assert problems_of(LEAST.replace("m\n", f"{name}\n", 1), name)[0].startswith(f"{FILE}:1: ")


@pytest.mark.parametrize("name", ["m", "Example_Metaflow", "a--b", "a.b-c_d", "2m"])
def test_a_model_name_that_can_name_a_repository_is_taken(name: str) -> None:
    text = LEAST.replace("m\n", f"{name}\n", 1).encode()
    assert parse_project(text, FILE, name).model_name == name


@pytest.mark.parametrize("percent", ["-0.1", "100.5", "'5'", "true", ".nan", "[1]"])
def test_log_features_percent_is_a_percentage(percent: str) -> None:
    text = LEAST.replace("a.b:C", f"a.b:C, kwargs: {{log_features_percent: {percent}}}")
    assert "from 0 to 100" in "\n".join(problems_of(text))


@pytest.mark.parametrize("rtol", ["0", "1e-6", "0.5"])
def test_rtol_may_be_zero_and_written_with_an_exponent(rtol: str) -> None:
    text = f"{LEAST}verify: {{rtol: {rtol}}}\n"
    assert parse_project(text.encode(), FILE, "m").rtol == float(rtol)


def test_a_verification_may_set_dummies_and_accept_findings() -> None:
    text = f"{LEAST}verify: {{env: {{MY_SVC_API_KEY: dummy}}, accept: ['import:optuna.x']}}\n"
    project = parse_project(text.encode(), FILE, "m")
    assert project.env == {"MY_SVC_API_KEY": "dummy"}
    assert project.accept == ("import:optuna.x",)


@pytest.mark.parametrize(
    ("verify", "problem"),
    [
        ("env: [A]", "must be a mapping"),
        ("env: {A-B: x}", "is not a name"),
        ("env: {AWS_SECRET_ACCESS_KEY: x}", "belongs to the sandbox"),
        ("env: {LD_PRELOAD: x}", "belongs to the sandbox"),
        ("env: {PYTHONPATH: x}", "belongs to the sandbox"),
        ("env: {PYTHONHASHSEED: '0'}", "belongs to the sandbox"),
        ("env: {PATH: x}", "belongs to the sandbox"),
        ("env: {ADROIT_NONCE: x}", "belongs to the sandbox"),
        ("env: {PORT: 80}", "must be a string"),
        ('env: {A: "x\\0"}', "must be a string"),
        ("accept: [optuna]", "an entry is import:, module: or shadow:"),
        ("accept: ['import:*']", "an entry is import:, module: or shadow:"),
    ],
)
def test_what_a_verification_may_not_set_or_accept_is_named(verify: str, problem: str) -> None:
    assert problem in "\n".join(problems_of(f"{LEAST}verify: {{{verify}}}\n"))


@pytest.mark.parametrize("missing", ["", "serve:\n", "serve: {}\n", "serve: {handler: }\n"])
def test_a_missing_handler_is_named(missing: str) -> None:
    assert "is missing" in problems_of(f"model_name: m\n{missing}")[0]


@pytest.mark.parametrize(
    "pattern", ["'!keep.py'", "/", "''", "'[z-a]'", "'*a*a*a*a*a*a*a*a*a*a*a'"]
)
def test_a_pattern_without_meaning_is_refused(pattern: str) -> None:
    assert "'exclude'" in problems_of(f"{LEAST}source: {{exclude: [{pattern}]}}\n")[0]


def test_the_defaults_keep_training_and_documents_out() -> None:
    for path in (
        "config.yaml",
        "flow.py",
        "tests/test_x.py",
        "a/tests/b/c.py",
        "README.md",
        "a/b.ipynb",
    ):
        assert excluded(path, DEFAULT_EXCLUDES), path
    for path in (
        "model.py",
        "tests.py",
        "my_flow.py",
        "a/config.yaml.j2",
        "mytests/a.py",
        "a.md.py",
    ):
        assert not excluded(path, DEFAULT_EXCLUDES), path


PATTERNS = [
    "experiments/**",
    "tests/",
    "*.md",
    "/a.py",
    "a/b.py",
    "**/c",
    "a/**/c",
    "a/*",
    "?.py",
    "[ab].py",
    "[!ab].py",
    "a*b",
    "x/",
    "/x/",
    "a\\*b",
    "data",
    "**",
    "a/**/",
    "[]a].py",
    "*.p[yz]",
    "a.b",
]
PATHS = [
    "a.py", "b.py", "c.py", "x/a.py", "a/b.py", "x/a/b.py", "c", "a/c", "a/x/c", "a/x/y/c", "a/x",
    "experiments/a.py", "experiments/x/b.md", "x/experiments/a", "tests/t.py", "x/tests/t.py",
    "tests", "data/a", "x/data", "a*b", "axxb", "x/b", "a.b/c", "aXb", "].py", "README.md", "a.pz",
    "x/y/a.md",
]  # fmt: skip


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_excludes_what_git_would_ignore(pattern: str, tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    (tmp_path / ".gitignore").write_text(pattern + "\n")
    asked = subprocess.run(
        ["git", "-C", str(tmp_path), "check-ignore", "--no-index", "--stdin"],
        input="\n".join(PATHS),
        capture_output=True,
        text=True,
        check=False,
    )
    ignored = asked.stdout.splitlines()
    assert [path for path in PATHS if excluded(path, [pattern])] == ignored


def test_a_model_may_not_be_called_like_a_part_of_the_store() -> None:
    text = b"model_name: blobs\nserve: {handler: {class_path: 'a:B'}}\n"
    with pytest.raises(ConfigError, match="part of every store"):
        parse_project(text, "projects/blobs/config.yaml", "blobs")


@pytest.mark.parametrize(
    ("serve", "said"),
    [
        ("workers: 0", "'workers' is 0"),
        ("workers: two", "'workers' is 'two'"),
        ("workers: true", "'workers' is True"),
        ("thread_safe: yes", "'thread_safe' is 'yes'"),
        ("batch: 64", "must be a mapping"),
        ("batch: {max_rows: 1}", "'max_rows' is 1"),
        ("batch: {max_wait_ms: -1}", "'max_wait_ms' is -1"),
        ("batch: {rows: 4}", "unknown key 'rows'"),
        ("resources: {cpu: lots, memory: 4Gi}", "'resources.cpu' is 'lots'"),
        ("resources: [1]", "'resources' is a mapping"),
        ("worker: 2", "is 'workers' meant?"),
    ],
)
def test_what_serve_says_of_processes_is_checked(serve, said):
    text = "model_name: a\nserve:\n  handler: {class_path: 'm:C'}\n  " + serve + "\n"
    with pytest.raises(ConfigError, match=re.escape(said)):
        parse_project(text.encode(), "config.yaml", "projects/a")


def test_what_serve_says_of_processes_is_kept_with_the_rest():
    text = (
        "model_name: a\nserve:\n  handler: {class_path: 'm:C'}\n  workers: 4\n  thread_safe: true\n"
        "  batch: {max_rows: 64, max_wait_ms: 0.5}\n  resources: {cpu: 2, memory: 4Gi, gpu: 0}\n"
    )
    serve = parse_project(text.encode(), "config.yaml", "projects/a").serve
    assert (serve["workers"], serve["thread_safe"]) == (4, True)
    assert serve["batch"] == {"max_rows": 64, "max_wait_ms": 0.5}
    assert serve["resources"] == {"cpu": 2, "memory": "4Gi", "gpu": 0}


def test_how_a_rollover_goes_has_defaults_that_are_a_sample() -> None:
    rollout = parse_project(LEAST.encode(), FILE, "m").rollout
    assert (rollout.min_requests, rollout.bake_s, rollout.quiet_s) == (500, 600.0, 3600.0)
    assert (rollout.steps, rollout.margin, rollout.latency_margin) == ((100.0,), 0.01, 1.0)


def test_how_a_rollover_goes_is_read() -> None:
    text = (
        LEAST + "rollout: {steps: [1, 50, 100], min_requests: 60, bake: 30m, quiet: 1d, "
        "margin: 0.02, latency_margin: 0.5, approve_at: [50], by_region: true}\n"
    )
    assert parse_project(text.encode(), FILE, "m").rollout == Rollout(
        (1.0, 50.0, 100.0), 60, 1800.0, 86400.0, 0.02, 0.5, (50.0,), (), True
    )


@pytest.mark.parametrize(
    "rollout",
    ["{bake: soon}", "{min_requests: -1}", "{steps: [50, 10]}", "{margin: 2}", "{paces: 3}"],
)
def test_what_no_rollover_can_go_by_is_named(rollout: str) -> None:
    (problem,) = problems_of(f"{LEAST}rollout: {rollout}\n")
    assert rollout.strip("{").partition(":")[0] in problem
