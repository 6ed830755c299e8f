"""What models ask of an environment against what it holds: who is refused, and in which words."""

from __future__ import annotations

import json

import pytest

from adroit_publish.bundle.content import InlineFile
from adroit_publish.config.environment_yml import parse_environment
from adroit_publish.errors import VerificationError
from adroit_publish.gates.env_contract import EnvRow, ObservedEnv, check_env, compare, listed_env
from adroit_publish.gates.model_requirements import model_requirements

RUNTIME = {
    "mlflow-skinny": "3.17.2",
    "numpy": "2.4.6",
    "pandas": "3.1.1",
    "starlette": "1.0.0",
    "uvicorn": "0.40.0",
}


def wanted(requirements="", python=None, **files):
    texts = {"requirements.txt": requirements} | {
        name.replace("__", ".").replace("_slash_", "/"): text for name, text in files.items()
    }
    readable = {name: InlineFile(text.encode()) for name, text in texts.items()}
    return model_requirements(readable, python)


def env(python="3.11.7", platform=None, without=(), **packages):
    held = RUNTIME | {name.replace("_", "-"): version for name, version in packages.items()}
    held = {name: version for name, version in held.items() if name not in without}
    return ObservedEnv(python, held, platform=platform)


def row_of(requirement, observed, accept=()):
    """The one row of a model that has this one requirement; None where a marker rules it out."""
    rows = compare(wanted(requirement), observed, accept).rows
    (row,) = [row for row in rows if row.by != "runtime"] or [None]
    return row


def verdict(requirement, **packages):
    return row_of(requirement, env(**packages)).verdict


def test_what_mlflow_writes_beside_the_example_model_is_held_by_its_env():
    report = compare(
        wanted(
            "mlflow-skinny==3.17.2\nnumpy==2.4.6\nscikit-learn==1.9.1",
            "3.11.7",
            conda__yaml=(
                "channels: [conda-forge]\ndependencies:\n- python=3.11.7\n- pip<=23.2.1\n"
                "- pip:\n  - mlflow-skinny==3.17.2\n  - numpy==2.4.6\n  - scikit-learn==1.9.1\n"
            ),
            python_env__yaml=(
                "python: 3.11.7\nbuild_dependencies: [pip==23.2.1]\n"
                "dependencies: [-r requirements.txt]\n"
            ),
        ),
        env(scikit_learn="1.9.1"),
    )
    assert {row.verdict for row in report.rows} == {"ok"}
    assert [(row.name, row.by) for row in report.rows if row.by != "runtime"] == [
        ("python", "MLmodel"),
        ("mlflow-skinny", "requirements.txt"),
        ("numpy", "requirements.txt"),
        ("scikit-learn", "requirements.txt"),
    ]
    json.dumps(report.as_dict())


@pytest.mark.parametrize(
    ("requirement", "got", "verdict_wanted", "why"),
    [
        ("pkg==1.2.3", "1.2.3", "ok", ""),
        ("pkg", "0.1", "ok", ""),
        ("pkg==1.2.3", "1.2.9", "differs", "another patch version"),
        ("pkg==1.2.3", "1.4.0", "differs", "another minor version"),
        ("pkg==1.2.3", "2.2.3", "refused", "another major version"),
        ("pkg==1!1.2", "1.2", "refused", "another major version"),
        ("pkg==2.1.0+cu118", "2.1.0+cpu", "differs", "another build"),
        ("pkg==2.1.0", "2.1.0+cpu", "ok", ""),
        ("pkg==1.2.3", "1.2.3rc1", "differs", "another build"),
        ("pkg>=2", "2.5.0rc1", "ok", ""),
        ("pkg<2", "2.0.0", "refused", "outside the range that is asked for"),
        ("pkg>=1.3", "1.2.9", "refused", "outside the range that is asked for"),
        ("pkg!=1.2.3", "1.2.3", "refused", "outside the range that is asked for"),
        ("pkg==1.2.*", "1.3.0", "refused", "outside the range that is asked for"),
        ("pkg==1.2.*", "1.2.8", "ok", ""),
        ("pkg==1.2.3", "unknown", "unchecked", "its version cannot be compared"),
        ("pkg==1.2.3", None, "refused", "not installed"),
    ],
)
def test_a_version_is_judged_by_its_distance(requirement, got, verdict_wanted, why):
    row = row_of(requirement, env(**({"pkg": got} if got else {})))
    assert (row.verdict, row.why, row.got) == (verdict_wanted, why, got)


@pytest.mark.parametrize("name", ["cloudpickle", "scikit-learn", "torch", "xgboost", "lightgbm"])
def test_a_minor_version_that_breaks_saved_objects_is_refused(name):
    held = {name.replace("-", "_"): "1.4.2"}
    assert verdict(f"{name}==1.4.1", **held) == "differs"
    row = row_of(f"{name}==1.5.2", env(**held))
    assert row == EnvRow(
        name,
        "==1.5.2",
        "requirements.txt",
        "1.4.2",
        "refused",
        f"another minor version of {name} need not load what this one saved",
    )


@pytest.mark.parametrize(
    ("got", "verdict_wanted"),
    [("3.11.7", "ok"), ("3.11.2", "differs"), ("3.12.7", "refused"), (None, "unchecked")],
)
def test_python_may_differ_in_its_patch_version_alone(got, verdict_wanted):
    (row,) = [r for r in compare(wanted(python="3.11.7"), env(got)).rows if r.by == "MLmodel"]
    assert row.verdict == verdict_wanted


def test_python_is_read_from_the_other_files_where_mlmodel_is_silent():
    for files in (
        {"python_env__yaml": "python: 3.10.4\n"},
        {"conda__yaml": "dependencies: [python=3.10]\n"},
    ):
        (row,) = [r for r in compare(wanted(**files), env()).rows if r.by.endswith(".yaml")]
        assert (row.name, row.verdict) == ("python", "refused")
        assert "pickles and bytecode" in row.why


@pytest.mark.parametrize("missing", ["starlette", "uvicorn", "pandas", "numpy", "mlflow-skinny"])
def test_an_env_that_cannot_run_the_runtime_is_refused_by_name(missing):
    with pytest.raises(VerificationError) as error:
        check_env((), env(without=(missing,)), env_name="bare")
    message = str(error.value)
    assert f"{missing}: nothing, runtime wants" in message
    assert "make build_env ENV=bare" in message
    assert f"--accept-env-mismatch={missing}" in message
    assert error.value.exit_code == 6


def test_an_env_with_a_python_too_old_for_the_runtime_is_refused():
    with pytest.raises(VerificationError, match=r"python: 3\.9\.18, runtime wants >=3\.10"):
        check_env((), env("3.9.18"), env_name="old")


def test_all_mismatches_are_in_one_message_and_a_waiver_takes_each_away_by_any_spelling():
    asked = wanted("Scikit_Learn==1.5.0\nshap==0.44\nnumpy==2.4.1", "3.12.1")
    observed = env(scikit_learn="1.4.0")
    with pytest.raises(VerificationError) as error:
        check_env(asked, observed, env_name="e", accept={"SHAP"})
    assert str(error.value.got).splitlines() == [
        "python: 3.11.7, MLmodel wants ==3.12.1: pickles and bytecode are of one minor version of "
        "Python",
        "scikit-learn: 1.4.0, requirements.txt wants ==1.5.0: another minor version of "
        "scikit-learn need not load what this one saved",
    ]
    names = {"SHAP", "python", "scikit.learn", "numpy"}
    report = check_env(asked, observed, env_name="e", accept=names)
    assert report.accepted == ("python", "scikit-learn", "shap")
    assert [r.verdict for r in report.rows if r.name == "numpy"] == ["ok", "differs"]


@pytest.mark.parametrize(("asks", "holds"), [("mlflow", "mlflow-skinny"), ("mlflow-skinny",) * 2])
def test_mlflow_and_its_skinny_part_stand_in_for_each_other(asks, holds):
    assert row_of(f"{asks}==3.17.2", env()).verdict == "ok"
    assert row_of(f"{asks}==2.9.0", env()).verdict == "refused"
    full = ObservedEnv("3.11.7", {"mlflow": "3.17.2", "numpy": "2"})
    assert row_of("mlflow-skinny==3.17.2", full).why == "mlflow stands in for it"


def test_markers_are_those_of_the_envs_python_and_platform():
    line = 'tomli==2.0; python_version < "3.11"'
    assert row_of(line, env("3.11.7")) is None
    assert row_of(line, env("3.10.2")).verdict == "refused"
    assert row_of(line, env(None)).verdict == "unchecked"
    assert row_of('a; platform_machine == "aarch64"', env(platform="linux/amd64")) is None
    assert row_of('a; platform_machine == "aarch64"', env(platform="linux/arm64")).got is None
    assert row_of('a; sys_platform == "win32"', env(platform="linux/amd64")) is None


def test_requirements_files_are_read_as_pip_reads_them():
    text = (
        "# a comment\n--index-url https://u:secret@example.org/simple\n\n"
        "a==1.0 \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\n"
        "b[extra] >= 2 # why\n-r more/others.txt\n-r more/others.txt\n-c constraints.txt\n"
    )
    found = wanted(text, more_slash_others__txt="c<3\n-r ../requirements.txt\n-r gone.txt\n")
    assert [(w.name, w.specifier, bool(w.unchecked)) for w in found] == [
        ("a", "==1.0", False),
        ("b", ">=2", False),
        ("c", "<3", False),
        ("more/gone.txt", "", True),
        ("constraints", "", True),
    ]


@pytest.mark.parametrize(
    ("line", "name", "specifier"),
    [
        ("shop @ git+https://user:secret@example.org/shop.git@main", "shop", ""),
        ("git+https://user:secret@example.org/x.git#egg=Shop_Core", "shop-core", ""),
        ("-e git+ssh://git@example.org/x.git#subdirectory=a&egg=shop", "shop", ""),
        ("https://u:secret@example.org/shop-1.2-py3-none-any.whl?sig=secret", "shop", "==1.2"),
        ("code/shop-1.2.tar.gz", "shop", "==1.2"),
        ("shop-1.2-py3-none-any.whl", "shop", "==1.2"),
        ("https://u:secret@example.org/archive", "an address", ""),
        ("./local", "an address", ""),
    ],
)
def test_an_address_is_looked_up_by_its_name_and_never_shown(line, name, specifier):
    (found,) = wanted(line)
    assert (found.name, found.specifier) == (name, specifier)
    assert bool(found.unchecked) == (name == "an address")
    assert "secret" not in repr(found)


def test_what_cannot_be_read_is_shown_as_unchecked_and_not_dropped():
    rows = compare(
        wanted("not a requirement!\n", conda__yaml="a: [\n", python_env__yaml="[]\n"), env()
    ).rows
    assert [(r.name, r.verdict) for r in rows if r.by != "runtime"] == [
        ("not a requirement!", "unchecked"),
        ("conda.yaml", "unchecked"),
        ("python_env.yaml", "unchecked"),
    ]
    (binary,) = model_requirements({"requirements.txt": InlineFile(b"\xff\xfe")}, None)
    assert binary.unchecked


# What an environment.yml lists, on a target without images.

LISTING = """
dependencies:
  - python=3.11
  - conda-forge::numpy=2.4.6
  - pip:
      - mlflow-skinny==3.17.2
      - pandas>=3
      - scikit-learn==1.9.1
"""
BRINGS = {
    "mlflow-skinny": ["starlette", "uvicorn", "cloudpickle"],
    "scikit-learn": ["numpy", "scipy"],
}


def listed(text=LISTING, brings=BRINGS):
    environment = parse_environment(text.encode(), "environment.yml")
    return listed_env(environment, lambda name: brings.get(name, []), "environment.yml")


def test_a_model_that_requires_what_the_listed_env_does_not_bring_is_refused():
    """As the issue has it: xgboost is installed on the publisher's machine, and not in the env."""
    wanted = model_requirements({"requirements.txt": InlineFile(b"xgboost==3.0\n")}, "3.11.7")
    with pytest.raises(VerificationError) as error:
        check_env(wanted, listed(), env_name="sklearn")
    assert error.value.got == "xgboost: nothing, requirements.txt wants ==3.0: not installed"


def test_what_is_listed_is_compared_by_its_pin_and_what_it_brings_is_taken_for_there():
    lines = b"scikit-learn==1.8.0\nnumpy==2.4.6\nscipy==1.2\npandas==3.1\n"
    wanted = model_requirements({"requirements.txt": InlineFile(lines)}, "3.11.7")
    report = compare(wanted, listed())
    verdicts = {row.name: row.verdict for row in report.rows if row.by != "runtime"}
    assert verdicts == {
        "python": "ok",
        "scikit-learn": "refused",
        "numpy": "ok",
        "scipy": "unchecked",
        "pandas": "unchecked",
    }
    assert report.as_dict()["looked_at"] == "environment.yml"


def test_what_a_listed_package_may_bring_is_unchecked_where_nobody_knows_what_it_does():
    wanted = model_requirements({"requirements.txt": InlineFile(b"xgboost==3.0\n")}, None)
    env = listed(brings={**BRINGS, "scikit-learn": None})
    assert not env.complete
    assert [row.verdict for row in compare(wanted, env).rows if row.name == "xgboost"] == [
        "unchecked"
    ]


def test_another_python_than_the_listed_one_is_refused():
    wanted = model_requirements({}, "3.12.1")
    assert [row.name for row in compare(wanted, listed()).refused] == ["python"]


def test_a_list_without_what_serves_is_not_the_whole_env():
    assert listed("dependencies: [python=3.11]\n") is None
