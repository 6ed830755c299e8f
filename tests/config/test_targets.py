from __future__ import annotations

import pytest

from adroit_publish.config.targets import Targets, choose_target, parse_targets
from adroit_publish.errors import ConfigError

DESIGN = b"""default_target = "local"

[targets.local]                               # nothing but this machine: the embedded default
tracking_uri = "sqlite:///.adroit/mlflow.db"
bundles = "file:.adroit/bundles"
sitevars = "file:.adroit/sitevars.json"

[targets.eng]
profiles = ["eng"]                            # AWS profiles that mean this target
account = "123456789012"
tracking_uri = "databricks"
source_profile = "data"
bundles = "s3://nextdoor-adroit/bundles"
images = "123456789012.dkr.ecr.us-east-1.amazonaws.com/adroit"
sitevars = "s3://nextdoor-adroit/sitevars/adroit_model_versions.json"
"""
LEAST = 'tracking_uri = "databricks"\nbundles = "file:b"\n'


def parse(data: bytes = DESIGN) -> Targets:
    return parse_targets(data, "adroit.toml", "/repo")


def problems_of(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text.encode())
    return str(caught.value).splitlines()


def one(key: str, value: str) -> str | None:
    """The value that a target's key comes out as."""
    rest = "".join(line + "\n" for line in LEAST.splitlines() if not line.startswith(key))
    targets = parse(f'[targets.a]\n{rest}{key} = "{value}"\n'.encode())
    found: str | None = getattr(targets.by_name["a"], key)
    return found


def chosen(flag: str | None = None, **environ: str) -> str:
    return choose_target(parse(), flag=flag, environ=environ).name


def test_the_file_of_the_design_is_read_with_absolute_paths() -> None:
    targets = parse()
    local, eng = targets.by_name["local"], targets.by_name["eng"]
    assert targets.default == "local"
    assert local.tracking_uri == "sqlite:////repo/.adroit/mlflow.db"
    assert local.bundles == "file:/repo/.adroit/bundles"
    assert local.sitevars == "file:/repo/.adroit/sitevars.json"
    assert (local.profiles, local.account, local.images) == ((), None, None)
    assert (eng.profiles, eng.account, eng.source_profile) == (("eng",), "123456789012", "data")
    assert eng.bundles == "s3://nextdoor-adroit/bundles"
    assert (eng.images_endpoint, eng.images_auth) == (None, None)


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("bundles", "file:/a/b/", "file:/a/b"),
        ("bundles", "file:///a/b", "file:/a/b"),
        ("bundles", "file:../b", "file:/b"),
        ("bundles", "s3://bucket/", "s3://bucket"),
        ("sitevars", "file:../s.json", "file:/s.json"),
        ("sitevars", "s3://bucket/a/s.json", "s3://bucket/a/s.json"),
        ("sitevars", "ssm:/adroit/versions", "ssm:/adroit/versions"),
        ("sitevars", "ssm:eu-west-1/adroit", "ssm:eu-west-1/adroit"),
        ("tracking_uri", "sqlite:////x/m.db", "sqlite:////x/m.db"),
        ("tracking_uri", "file:./ml runs", "file:///repo/ml%20runs"),
        ("tracking_uri", "https://mlflow.example/", "https://mlflow.example"),
        ("tracking_uri", "http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("tracking_uri", "http://[::1]:5000", "http://[::1]:5000"),
        ("tracking_uri", "databricks://prod", "databricks://prod"),
        ("images", "localhost:5000/adroit", "localhost:5000/adroit"),
        ("images_endpoint", "http://localhost:5000", "http://localhost:5000"),
        ("images_auth", "ecr", "ecr"),
        ("signing_key", "file:keys/team.pem", "file:/repo/keys/team.pem"),
        ("signing_key", "awskms:alias/adroit", "awskms:alias/adroit"),
    ],
)
def test_an_address_comes_out_in_one_form(key: str, value: str, wanted: str) -> None:
    assert one(key, value) == wanted


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("bundles", "gs://bucket/x"),
        ("bundles", "s3://b/../c"),
        ("bundles", "s3://bucket//x"),
        ("bundles", "s3://KEY:SECRET@bucket/x"),
        ("bundles", "file:"),
        ("bundles", "file:~/b"),
        ("bundles", "file://host/b"),
        ("bundles", "bundles"),
        ("bundles", "ssm:/adroit"),
        ("sitevars", "s3://bucket"),
        ("sitevars", "s3://bucket/"),
        ("sitevars", "s3://bucket/a/"),
        ("sitevars", "s3://KEY:SECRET@bucket/x"),
        ("sitevars", "file:"),
        ("sitevars", "ssm:adroit"),
        ("sitevars", "ssm:/"),
        ("sitevars", "ssm://adroit"),
        ("sitevars", "ssm:/a/"),
        ("sitevars", "ssm:/AWS/x"),
        ("sitevars", "ssm:eu-west-1/aws/x"),
        ("sitevars", "ssm:EU/x"),
        ("sitevars", "ssm:/a b"),
        ("sitevars", "ssm:" + 15 * "/a"),
        ("tracking_uri", "http://mlflow.example"),
        ("tracking_uri", "http://127.0.0.1.example"),
        ("tracking_uri", "http://localhost@example.com"),
        ("tracking_uri", "https://user:SECRET@mlflow.example"),
        ("tracking_uri", "https://mlflow.example/?token=SECRET"),
        ("tracking_uri", "https://["),
        ("tracking_uri", "sqlite:///"),
        ("tracking_uri", "postgresql://u:SECRET@h/db"),
        ("images_endpoint", "http://registry.example"),
        ("images_endpoint", "file:/x"),
        ("images", "https://registry.example/x"),
        ("images", "registry.example/A B"),
        ("images_auth", "basic"),
        ("signing_key", "keys/team.pem"),
        ("signing_key", "https://user:SECRET@kms.example/key"),
        ("signing_key", "awskms:"),
        ("signature_max_age", "soon"),
        ("account", "1234"),
        ("source_profile", ""),
    ],
)
def test_an_address_that_is_not_allowed_is_refused_without_its_secret(key: str, value: str) -> None:
    with pytest.raises(ConfigError, match=r"adroit\.toml:\d: target 'a'") as caught:
        one(key, value)
    assert f"'{key}'" in str(caught.value)
    assert "SECRET" not in str(caught.value)


def test_a_target_may_have_a_sitevar_for_each_region() -> None:
    table = '{ us = "file:us.json", eu = "ssm:eu-west-1/adroit" }'
    target = parse(f"[targets.a]\n{LEAST}sitevars = {table}\n".encode()).by_name["a"]
    addresses = {"us": "file:/repo/us.json", "eu": "ssm:eu-west-1/adroit"}
    assert (target.sitevars, target.sitevar_addresses) == (None, addresses)
    assert list(target.sitevar_addresses) == ["us", "eu"]  # the order that steps take


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("{}", "an address of its own"),
        ('{ us = "file:s.json", eu = "file:./s.json" }', "an address of its own"),
        ('{ us = "nowhere" }', "'us' must be file:PATH"),
        ("{ us = 1 }", "'us' must be an address"),
        ('{ "a/b" = "file:s.json" }', "'a/b'"),
    ],
)
def test_a_region_without_an_address_of_its_own_is_refused(table: str, said: str) -> None:
    (problem,) = problems_of(f"[targets.a]\n{LEAST}sitevars = {table}\n")
    assert problem.startswith("adroit.toml:4: target 'a': 'sitevars'") or "adroit.toml" in problem
    assert said in problem


def test_all_problems_are_reported_with_their_lines() -> None:
    text = (
        'defualt_target = "a"\n'
        "[targets.a]\nbundels = 1\naccount = 123456789012\n"
        '[targets.b]\nprofiles = ["p"]\n' + LEAST + '[targets.c]\nprofiles = ["p", "q"]\n' + LEAST
    )
    problems = problems_of(text)
    assert [int(problem.split(":")[1]) for problem in problems] == [1, 2, 2, 3, 4, 10]
    assert "'default_target' meant" in problems[0]
    assert "'bundles' meant" in problems[3]
    assert "held by 'b' and 'c'" in problems[5]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a = \n", 1),
        ("[targets.a]\nb = 'c\n", 2),
        ('default_target = "x"\n[targets.a]\n' + LEAST, 1),
    ],
)
def test_what_is_no_toml_and_a_wrong_default_name_the_line(text: str, line: int) -> None:
    assert problems_of(text)[0].startswith(f"adroit.toml:{line}: ")


def test_a_file_without_targets_is_refused() -> None:
    assert "[targets.NAME]" in problems_of("")[0]


def test_the_order_is_flag_variable_profile_default() -> None:
    everything = {"ADROIT_TARGET": "local", "AWS_PROFILE": "eng", "AWS_ACCESS_KEY_ID": "x"}
    assert chosen("eng", **everything) == "eng"
    assert chosen(**everything) == "local"
    assert chosen(AWS_PROFILE="eng", AWS_ACCESS_KEY_ID="x") == "eng"
    assert chosen() == "local"
    assert chosen(ADROIT_TARGET="", AWS_PROFILE="", CI="") == "local"


def test_a_profile_that_no_target_holds_never_falls_back() -> None:
    with pytest.raises(ConfigError, match="'prod'") as caught:
        chosen(AWS_PROFILE="prod")
    assert "local; " not in caught.value.what
    assert "eng (profiles: eng); local" in str(caught.value.wanted)


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE"])
def test_credentials_without_a_profile_need_a_named_target(name: str) -> None:
    with pytest.raises(ConfigError, match="named"):
        chosen(**{name: "x"})
    assert chosen("local", **{name: "x"}) == "local"


@pytest.mark.parametrize("profile", ["", "eng"])
def test_under_ci_the_target_has_to_be_named(profile: str) -> None:
    with pytest.raises(ConfigError, match="Under CI"):
        chosen(CI="true", AWS_PROFILE=profile)
    assert chosen(CI="true", ADROIT_TARGET="eng") == "eng"
    assert chosen("local", CI="1") == "local"
    assert chosen(CI="false") == "local"


def test_an_unknown_target_is_refused_with_the_known_ones() -> None:
    for flag, environ in (("prod", {}), (None, {"ADROIT_TARGET": "prod"})):
        with pytest.raises(ConfigError, match="'prod'") as caught:
            chosen(flag, **environ)
        assert "local" in str(caught.value.wanted)


def test_without_a_default_the_target_has_to_be_named() -> None:
    targets = parse(f"[targets.a]\n{LEAST}".encode())
    with pytest.raises(ConfigError, match="no default_target"):
        choose_target(targets, flag=None, environ={})


def test_a_byte_order_mark_is_skipped() -> None:
    assert parse(b"\xef\xbb\xbf" + DESIGN) == parse()


def test_the_keys_that_count_are_addresses_and_their_age_is_a_time() -> None:
    keys = 'require_signature = ["file:a.pub", "awskms:alias/b"]\nsignature_max_age = "90d"\n'
    target = parse(f"[targets.a]\n{LEAST}{keys}".encode()).by_name["a"]
    assert target.require_signature == ("file:/repo/a.pub", "awskms:alias/b")
    assert target.signature_max_age_s == 90 * 86400
    assert parse().by_name["local"].require_signature == ()


@pytest.mark.parametrize("value", ["[]", '"file:a.pub"', "[1]", '[""]', '["a.pub"]', "true"])
def test_a_demand_that_demands_nothing_is_refused(value: str) -> None:
    problems = problems_of(f"[targets.a]\n{LEAST}require_signature = {value}\n")
    assert "require_signature" in problems[0]
