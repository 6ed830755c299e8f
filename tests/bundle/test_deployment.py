"""The documents that run a version, against the rules of those who read them."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from ruamel.yaml import YAML

from adroit_publish.bundle.deployment import KINDS, ServedVersion, manifests
from adroit_publish.bundle.digest import Digest
from adroit_publish.cli.render import print_yaml
from adroit_publish.errors import ConfigError
from tests.support.checkouts import make_checkout
from tests.versions.test_commands import run

VERSION = "v0b5c5b2f-3f0c9a1b2c3d"
LABEL = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")  # RFC 1035, which Services ask for
LABEL_VALUE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
NAMES = ["example_metaflow", "Rank.er", "2nd__model", "x" * 120, "a-" * 40, "ends-in-" + "9" * 21]


def served(model_name="example_metaflow", **serve):
    return ServedVersion(
        model_name,
        VERSION,
        Digest.of(b"bundle"),
        "registry.example:5000/adroit/example_metaflow",
        Digest.of(b"manifest"),
        serve,
    )


IMAGE = f"registry.example:5000/adroit/example_metaflow@{Digest.of(b'manifest')}"


def container(kind, **serve):
    document = manifests(kind, served(**serve))[0]
    template = document["spec"].get("template") or {"spec": document["spec"]["predictor"]}
    (only,) = template["spec"]["containers"]
    return only


@pytest.mark.parametrize("kind", ["deployment", "kserve"])
def test_a_cluster_runs_the_image_by_digest_and_with_no_more_rights_than_it_needs(kind):
    found = container(kind)
    assert found["image"] == IMAGE
    assert found["ports"][0]["containerPort"] == 8080
    assert found["readinessProbe"]["httpGet"] == {"path": "/ping", "port": 8080}
    assert found["env"] == [{"name": "ADROIT_VERSION", "value": VERSION}]
    assert "resources" not in found
    security = found["securityContext"]
    assert security["readOnlyRootFilesystem"]
    assert security["runAsNonRoot"]
    assert security["capabilities"] == {"drop": ["ALL"]}


@pytest.mark.parametrize("kind", ["deployment", "kserve"])
def test_resources_are_those_of_the_config_as_strings(kind):
    resources = {"requests": {"cpu": 0.5, "memory": "2Gi"}, "limits": {"nvidia.com/gpu": 1}}
    assert container(kind, resources=resources)["resources"] == {
        "requests": {"cpu": "0.5", "memory": "2Gi"},
        "limits": {"nvidia.com/gpu": "1"},
    }


def test_a_deployment_waits_for_a_slow_model_and_lets_a_request_end():
    deployment, service = manifests("deployment", served())
    found = container("deployment")
    assert found["startupProbe"]["httpGet"]["path"] == "/ping"
    assert (
        found["startupProbe"]["failureThreshold"] * found["startupProbe"]["periodSeconds"] >= 1200
    )
    assert found["livenessProbe"]["httpGet"]["path"] == "/health"  # /ping says no while it drains
    spec = deployment["spec"]["template"]["spec"]
    assert spec["terminationGracePeriodSeconds"] > 60 + 8
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert service["spec"]["selector"].items() <= labels.items()
    assert service["spec"]["ports"][0]["targetPort"] == found["ports"][0]["name"]


def test_kserve_is_given_nothing_that_knative_refuses():
    """Source: Knative Serving, pkg/apis/serving/fieldmask.go at commit ec4128ad."""
    (document,) = manifests("kserve", served())
    assert document["apiVersion"] == "serving.kserve.io/v1beta1"
    predictor, found = document["spec"]["predictor"], container("kserve")
    of_pod = {"automountServiceAccountToken", "containers", "enableServiceLinks", "volumes"}
    assert predictor.keys() == of_pod | {"timeout"}  # the last is KServe's own
    assert "startupProbe" not in found
    assert found["securityContext"].keys() == {
        "capabilities",
        "readOnlyRootFilesystem",
        "runAsNonRoot",
        "runAsUser",
    }
    assert found["name"] == "kserve-container"
    assert found["ports"][0]["name"] == "http1"


@pytest.mark.parametrize("name", NAMES)
def test_names_and_labels_are_what_kubernetes_takes(name):
    for kind in ("deployment", "kserve"):
        for document in manifests(kind, served(name)):
            metadata = document["metadata"]
            assert LABEL.fullmatch(metadata["name"] + "-predictor")
            assert metadata["name"].endswith(VERSION)
            assert all(LABEL_VALUE.fullmatch(value) for value in metadata["labels"].values())
            assert metadata["annotations"]["adroit/model-name"] == name


@pytest.mark.parametrize("name", NAMES)
def test_sagemaker_takes_the_requests(name):
    import botocore.session
    from botocore.validate import ParamValidator

    (document,) = manifests("sagemaker", served(name))
    assert list(document) == ["CreateModel", "CreateEndpointConfig"]
    service = botocore.session.get_session().get_service_model("sagemaker")
    for operation, request in document.items():
        shape = service.operation_model(operation).input_shape
        assert not ParamValidator().validate(request, shape).has_errors()
        assert request.keys() <= shape.members.keys()
    (variant,) = document["CreateEndpointConfig"]["ProductionVariants"]
    for got in (document["CreateModel"]["ModelName"], variant["VariantName"]):
        assert re.fullmatch(r"[a-zA-Z0-9]([a-zA-Z0-9-]{0,62})", got)
    assert document["CreateModel"]["PrimaryContainer"]["Image"] == IMAGE
    assert variant["ModelName"] == document["CreateModel"]["ModelName"]


def test_sagemaker_gets_the_instances_of_the_config():
    wanted = {"instance_type": "ml.g5.xlarge", "instance_count": 3}
    (document,) = manifests("sagemaker", served(sagemaker=wanted))
    (variant,) = document["CreateEndpointConfig"]["ProductionVariants"]
    assert (variant["InstanceType"], variant["InitialInstanceCount"]) == ("ml.g5.xlarge", 3)


@pytest.mark.parametrize(
    ("serve", "said"),
    [
        ({"resources": []}, "'requests' and 'limits'"),
        ({"resources": {"cpu": 1}}, "'requests' and 'limits'"),
        ({"resources": {"limits": 3}}, "'resources.limits'"),
        ({"resources": {"limits": {"memory": "2 GB"}}}, "'resources.limits.memory' is '2 GB'"),
        ({"resources": {"limits": {"memory": "-1"}}}, "no quantity"),
        ({"resources": {"limits": {"cpu": True}}}, "no quantity"),
        ({"sagemaker": {"instance": "ml.m5.large"}}, "'instance_type' and 'instance_count'"),
        ({"sagemaker": {"instance_type": "m5.large"}}, "'m5.large'"),
        ({"sagemaker": {"instance_count": 0}}, "'sagemaker.instance_count' is 0"),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_a_wrong_wish_is_told_whatever_the_kind(kind, serve, said):
    with pytest.raises(ConfigError, match=re.escape(said)):
        manifests(kind, served(**serve))


@pytest.mark.parametrize("kind", ["deployment", "kserve"])
def test_resources_in_three_words_are_requests_and_limits(kind):
    found = container(kind, resources={"cpu": 2, "memory": "4Gi", "gpu": 1})["resources"]
    assert found["requests"] == {"cpu": "2", "memory": "4Gi"}
    assert found["limits"] == {"memory": "4Gi", "nvidia.com/gpu": "1"}  # no CPU is throttled
    without = container(kind, resources={"cpu": "500m", "memory": "4Gi", "gpu": 0})["resources"]
    assert without["limits"] == {"memory": "4Gi"}


@pytest.mark.parametrize(
    "resources",
    [
        {"cpu": "two", "memory": "4Gi"},
        {"cpu": 2, "memory": "4 GB"},
        {"cpu": 2, "memory": "4Gi", "gpu": "one"},
        {"cpu": 2, "memory": "4Gi", "gpu": -1},
        {"cpu": True, "memory": "4Gi"},
    ],
)
def test_resources_that_are_none_are_told(resources):
    with pytest.raises(ConfigError, match=r"'resources\."):
        manifests("deployment", served(resources=resources))


@pytest.mark.parametrize("kind", ["deployment", "kserve", "cluster"])
def test_features_find_the_agent_on_the_node_and_metrics_their_flavor(kind):
    handler = {"handler": {"kwargs": {"log_features_percent": 0.1}}}
    version = replace(served(**handler), flavor="ranker_eu")
    document = manifests(kind, version)[0]
    template = document["spec"].get("template") or {"spec": document["spec"]["predictor"]}
    variables = {one["name"]: one for one in template["spec"]["containers"][0]["env"]}
    node = variables["DD_AGENT_HOST"]["valueFrom"]["fieldRef"]["fieldPath"]
    assert (node, variables["ADROIT_FLAVOR"]["value"]) == ("status.hostIP", "ranker_eu")
    assert document["metadata"]["annotations"]["adroit/flavor"] == "ranker_eu"


def test_a_cluster_gets_what_keeps_scales_guards_and_watches_the_pods():
    documents = {document["kind"]: document for document in manifests("cluster", served())}
    assert list(documents) == [
        "Deployment",
        "Service",
        "PodDisruptionBudget",
        "HorizontalPodAutoscaler",
        "NetworkPolicy",
        "ServiceMonitor",
    ]
    labels = documents["Deployment"]["spec"]["template"]["metadata"]["labels"]
    policy = documents["NetworkPolicy"]["spec"]
    for selector in (
        documents["PodDisruptionBudget"]["spec"]["selector"],
        documents["ServiceMonitor"]["spec"]["selector"],
        policy["podSelector"],
    ):
        assert selector["matchLabels"].items() <= labels.items()
    scaled = documents["HorizontalPodAutoscaler"]["spec"]
    assert scaled["scaleTargetRef"]["name"] == documents["Deployment"]["metadata"]["name"]
    assert documents["Deployment"]["spec"]["replicas"] == scaled["minReplicas"]
    (port,) = documents["Service"]["spec"]["ports"]
    assert policy["ingress"][0]["ports"][0]["port"] == port["targetPort"]
    assert documents["ServiceMonitor"]["spec"]["endpoints"][0]["port"] == port["name"]
    assert documents["Service"]["metadata"]["labels"].items() >= labels.items()


def test_yaml_that_is_printed_reads_back_as_the_same_documents(capsys):
    documents = manifests("deployment", served(resources={"limits": {"cpu": 1}}))
    print_yaml(documents)
    text = capsys.readouterr().out
    assert list(YAML(typ="safe", pure=True).load_all(text)) == documents
    assert f"image: {IMAGE}\n" in text  # on one line


# From the command line.


@pytest.fixture(scope="module")
def published(tmp_path_factory, trained):
    from adroit_publish import publish

    root = tmp_path_factory.mktemp("d") / "repo"
    make_checkout(root, trained.tracking_uri, {"a": trained.good[0]})
    release = publish("a", root=root, verify="none")
    with (root / "adroit.toml").open("a") as file:
        file.write(
            '\n[targets.images]\ntracking_uri = "sqlite:///x.db"\n'
            'bundles = "file:.adroit/bundles"\n'
            'images = "registry.example:5000/adroit"\n'
        )
    return root, release


def test_the_command_prints_what_each_kind_is_read_as(published):
    root, release = published
    image = f"registry.example:5000/adroit/doubler@{release.manifest_digest}"
    asked = ("manifest", release.version, "--target", "images", "--kind")
    documents = list(YAML(typ="safe", pure=True).load_all(run(root, *asked, "deployment").stdout))
    assert [document["kind"] for document in documents] == ["Deployment", "Service"]
    assert documents[0]["spec"]["template"]["spec"]["containers"][0]["image"] == image
    assert json.loads(run(root, *asked, "deployment", "--json").stdout) == documents
    requests = json.loads(run(root, *asked, "sagemaker").stdout)
    assert requests["CreateModel"]["PrimaryContainer"]["Image"] == image
    annotations = documents[0]["metadata"]["annotations"]
    assert annotations["adroit/bundle-id"] == str(release.bundle_id)


def test_a_version_without_an_image_is_refused_with_the_way_out(published):
    root, release = published
    done = run(root, "manifest", release.version, "--kind", "kserve", check=False)
    assert done.returncode == 4
    assert "target local, which has no images" in done.stderr
    assert run(root, "manifest", release.version, "--kind", "swarm", check=False).returncode == 2
