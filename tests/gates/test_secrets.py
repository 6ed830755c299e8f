"""Secrets of many kinds are found in the files of a bundle, and what only looks like them is not.

No secret stands here: each is made by its form from a seeded generator.
"""

from __future__ import annotations

import base64
import json
import random
import string
import time
from pathlib import Path

import pytest

from adroit_publish.bundle.content import InlineFile
from adroit_publish.bundle.digest import Digest
from adroit_publish.config.file_names import is_generated, is_never_packed, secret_kind
from adroit_publish.errors import RefusedError
from adroit_publish.gates.secrets.check import TEXT_BYTES, check_secrets
from adroit_publish.gates.secrets.kinds import secrets_in

RANDOM = random.Random(15)
ALNUM, HEX, B64 = string.ascii_letters + string.digits, "0123456789abcdef", string.ascii_letters
B64 += string.digits + "+/"


def some(count: int, alphabet: str = ALNUM) -> str:
    made = "".join(RANDOM.choices(alphabet, k=count))
    return made[:-2] + "7k" if alphabet in (ALNUM, B64) else made


def segment(value: dict[str, str]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def pem(label: str) -> str:
    body = "\n".join(some(64, B64) for _ in range(6))
    return f"-----BEGIN {label}-----\n{body}\n-----END {label}-----\n"


JWT = f"{segment({'alg': 'HS256'})}.{segment({'sub': 'svc'})}.{some(43)}"
NOTEBOOK = json.dumps(
    {"cells": [{"cell_type": "code", "source": ["import os\n", f'api_key = "{some(40)}"\n']}]},
    indent=1,
)
PLANTED = {
    # By name.
    "prod.env": "PASSWORD=hunter2\n",
    "id_rsa": "whatever",
    "keys/id_ed25519": "whatever",
    ".aws/credentials": "[default]\n",
    ".netrc": "machine h login u password p\n",
    ".git-credentials": "https://u:p@h\n",
    ".databrickscfg": "[DEFAULT]\n",
    ".pypirc": "[pypi]\n",
    ".npmrc": "x\n",
    ".pgpass": "h:5432:d:u:p\n",
    "credentials.json": "{}",
    "credentials": "x",
    "secrets/prod.pem": "x",
    "secrets/tls.key": "x",
    "store.p12": "\x00\x01",
    "trust.jks": "x",
    "terraform.tfstate": "{}",
    "prod.tfvars": "x",
    "client_secret_1.json": "{}",
    "service-account.json": "{}",
    ".ssh/config": "x",
    ".docker/config.json": "{}",
    ".kube/config": "x",
    ".streamlit/secrets.toml": "x",
    # By content.
    "github.py": f'TOKEN = "ghp_{some(36)}"',
    "github_fine.py": f'T = "github_pat_{some(22)}_{some(59)}"',
    "slack.py": f'send("xoxb-{some(12, string.digits)}-{some(12, string.digits)}-{some(24)}")',
    "slack_app.py": f'T = "xapp-1-A{some(10)}-{some(12, string.digits)}-{some(40)}"',
    "slack_hook.py": f"https://hooks.slack.com/services/T{some(8)}/B{some(8)}/{some(24)}",
    "databricks.py": f"os.environ['DATABRICKS_TOKEN'] = 'dapi{some(32, HEX)}'",
    "databricks.yaml": f"host: x\ntoken: dapi{some(32, HEX)}-2\n",
    "jwt.py": f'HEADERS = {{"x": "{JWT}"}}',
    "aws.py": f'boto3.client("s3", aws_access_key_id="AKIA{some(16, string.ascii_uppercase)}")',
    "aws_secret.py": f'aws_secret_access_key="{some(40, B64)}"',
    "aws.ini": f"aws_secret_access_key = {some(40, B64)}\n",
    "gitlab.yaml": f"url: x\npat: glpat-{some(20)}\n",
    "google.py": f'KEY = "AIza{some(35)}"',
    "account.json": json.dumps({"private_key": pem("PRIVATE KEY")}),
    "key.py": 'KEY = """' + pem("RSA PRIVATE KEY") + '"""',
    "openssh.txt": pem("OPENSSH PRIVATE KEY"),
    "encrypted.txt": pem("ENCRYPTED PRIVATE KEY"),
    "stripe.py": f'stripe.api_key = "sk_live_{some(24)}"',
    "openai.py": f'client = OpenAI("sk-proj-{some(48)}")',
    "anthropic.py": f'client = Anthropic("sk-ant-api03-{some(80)}")',
    "hub.py": f'login("hf_{some(34)}")',
    "npm.txt": f"//registry.npmjs.org/:_authToken=npm_{some(36)}",
    "pypi.toml": f"password = pypi-AgEIcHlwaS5vcmc{some(80)}",
    "sendgrid.py": f'K = "SG.{some(22)}.{some(43)}"',
    "twilio.py": f'client = Client("AC{some(32, HEX)}", token)',
    "azure.py": f'"DefaultEndpointsProtocol=https;AccountKey={some(86, B64)}=="',
    "vault.sh": f"export VAULT_TOKEN=hvs.{some(24)}",
    "database.py": f'URL = "postgresql://app:{some(12)}@db.prod.internal:5432/x"',
    "requirements.txt": f"--extra-index-url https://ci:{some(20)}@pypi.corp.net/simple\nnumpy\n",
    "login.py": 'PASSWORD = "Tr0ub4dor&3"',
    "settings.yaml": "db:\n  password: S3cr-9tPw!x\n",
    "settings.json": json.dumps({"api_key": some(32), "debug": True}),
    "settings.py": f'SECRET_KEY = "{some(50)}"',
    "request.sh": f"curl -H 'Authorization: Bearer {some(40)}' https://x",
    "netrc.txt": f"machine api.corp.net login ci password {some(14)}\n",
    "analysis.ipynb": NOTEBOOK,
    "docker.txt": f'{{"auths": {{"h": {{"auth": "{some(40, B64)}"}}}}}}',
}  # fmt: skip


def files(**by_path: str | bytes) -> dict[str, InlineFile]:
    texts = {
        path: text if isinstance(text, bytes) else text.encode() for path, text in by_path.items()
    }
    return {path: InlineFile(data) for path, data in texts.items()}


def refusal(path: str, text: str | bytes) -> str:
    with pytest.raises(RefusedError) as refused:
        check_secrets(files(**{f"source/projects/m/{path}": text}), ())
    return str(refused.value)


def test_of_sixty_planted_secrets_hardly_one_is_missed():
    assert len(PLANTED) >= 60
    missed = []
    for path, content in files(
        **{f"source/projects/m/{path}": text for path, text in PLANTED.items()}
    ).items():
        try:
            check_secrets({path: content}, ())
            missed.append(path)
        except RefusedError:
            continue
    assert len(missed) <= 0.05 * len(PLANTED), missed


URL_SAFE = ALNUM + "-_"
DRAWN = {
    "gitlab.py": lambda some: f'T = "glpat-{some(20)}"',
    "vault.py": lambda some: f'"hvs.{some(95)}"',
    "anthropic.py": lambda some: f'K = "sk-ant-api03-{some(93)}AA"',
    "google.py": lambda some: f'K = "AIza{some(34)}Z"',
    "goo.py": lambda some: f'"GOCSPX-{some(28)}"',
    "docker.sh": lambda some: f"export T=dckr_pat_{some(27)}",
    "openai.py": lambda some: f'K = "sk-proj-{some(48)}"',
    "pypi.toml": lambda some: f"password = pypi-AgEIcHlwaS5vcmc{some(90)}",
    "request.py": lambda some: f'h = {{"Authorization": "Bearer {some(40)}"}}',
    "terraform.py": lambda some: f'T = "{some(14)}.atlasv1.{some(60)}1"',
    "database.py": lambda some: f'"postgresql://app:{some(14)}9z@db.prod.io/x"',
}  # fmt: skip
"""Files that each hold a token of random characters, as its issuer draws them."""


@pytest.mark.parametrize("path", DRAWN)
def test_of_random_tokens_of_a_kind_one_in_a_hundred_is_missed_at_most(path):
    chance = random.Random(11)
    texts = [DRAWN[path](lambda n: "".join(chance.choices(URL_SAFE, k=n))) for _ in range(600)]
    missed = [text for text in texts if not list(secrets_in(text + "\n", path))]
    assert len(missed) <= 6, missed


@pytest.mark.parametrize("text", [
    "password: Tr0ub4dor-3x\n", "password: gH7#kLm2pQ9x-v2\n",
    "x: sk-ant-api03-k3J9dPq2LmZx8VbN4tRw-AA\n",
    "api_key: k3J9dPq2LmZx8VbN4tRw.01\n", "url: https://u:gH7kLm2pQ9x_12@db.prod.io/\n",
])  # fmt: skip
def test_a_short_last_part_makes_no_token_a_placeholder(text):
    assert list(secrets_in(text, "a.yaml"))


@pytest.mark.parametrize("text", [
    'T = "glpat-aaaaaaaaaaaaaaaaaaaa"', 'T = "hvs.xxxxxxxxxxxxxxxxxxxxxxxxxxxx"',
    'K = "sk-ant-api03-0101010101010101010101010101"', "password: abc_0101",
])  # fmt: skip
def test_a_token_that_shows_its_form_alone_is_a_placeholder(text):
    assert not list(secrets_in(text + "\n", "a.yaml"))


def lines_of_code(number: int) -> str:
    """A file as repositories of models have them: all that is nearly a secret, and is none."""
    chance = random.Random(number)

    def hexa(count: int) -> str:
        return "".join(chance.choices(HEX, k=count))

    def text(count: int) -> str:
        return "".join(chance.choices(ALNUM, k=count))

    lines = (
        'API_KEY = os.environ["API_KEY"]',
        'password = getpass.getpass("Password: ")',
        "token = request.headers['Authorization'].removeprefix('Bearer ')",
        "client = Client(token=settings.github_token, secret=settings.secret_key)",
        'DATABASE_URL = "postgresql://user:password@localhost:5432/test"',
        'parser.add_argument("--token", default=None, help="GitHub token, ghp_...")',
        'AWS_ACCESS_KEY_ID = "AKIAIOSFODNN7EXAMPLE"',
        f'EXPECTED_SHA256 = "{hexa(64)}"',
        f'assert digest == "{hexa(40)}"',
        f'image = "registry.example.com/env@sha256:{hexa(64)}"',
        f'RUN_ID = "{hexa(32)}"',
        f'request_id = "{hexa(8)}-{hexa(4)}-4{hexa(3)}-a{hexa(3)}-{hexa(12)}"',
        'SECRET_NAME = "prod/models/feature-store-2024"',
        'secret_arn: "arn:aws:secretsmanager:us-east-1:123456789012:secret:prod-a1B2c3"',
        'tokenizer = AutoTokenizer.from_pretrained("bert-base-uncased-v2")',
        'special_tokens = {"pad_token": "<pad>", "bos_token": "<|endoftext|>", "token_type": "w1"}',
        'self.token_embedding_key = f"{prefix}.token_embedding.weight"',
        'raise ValueError("password must have 8 characters, a digit and a symbol")',
        'headers = {"Authorization": f"Bearer {token}"}',
        'MARKER = "-----BEGIN RSA PRIVATE KEY-----"',
        'PASSWORD_FIELD = "user.password.v2"',
        f'PNG = "data:image/png;base64,{text(120)}"',
        "export TOKEN=${TOKEN:?set it}",
        "password: ${{ secrets.PYPI_PASSWORD }}",
        "    api_key: !vault secret/data/prod#key_1",
        'jdbc = "jdbc:postgresql://" + host + ":" + port',
        "next_page_token = response.get('nextPageToken')",
        'ETAG = "W/\\"' + text(27) + '\\""',
        f"numpy==2.1.3 --hash=sha256:{hexa(64)}",
        f'"integrity": "sha512-{text(86)}=="',
        "def test_secret_token(self): pass",
        "# password = 'changeme' is the default of the image",
        'credential_provider = "workload-identity-v2"',
    )
    return "\n".join(chance.choices(lines, k=40)) + "\n"


def test_of_a_thousand_files_of_real_looking_code_two_at_most_alarm():
    suffixes = ("py", "yaml", "json", "toml", "txt", "md", "sh", "ipynb", "lock", "cfg")
    alarms = []
    for number in range(1000):
        path = f"source/projects/m/file_{number}.{suffixes[number % len(suffixes)]}"
        try:
            assert check_secrets(files(**{path: lines_of_code(number)}), ()) == ()
        except RefusedError as refused:
            alarms.append(str(refused.got))
    assert len(alarms) <= 2, alarms


@pytest.mark.parametrize("package", ["http", "email", "asyncio", "urllib", "unittest", "logging"])
def test_python_itself_alarms_nobody(package):
    root = Path(random.__file__).parent
    sources = {f"source/{path.name}": path.read_bytes() for path in (root / package).glob("*.py")}
    assert sources
    assert check_secrets(files(**sources), ()) == ()


def test_a_refusal_names_file_line_and_kind_and_never_the_secret():
    token = f"ghp_{some(36)}"
    message = refusal("client.py", f"import os\n\nTOKEN = '{token}'\n")
    assert "projects/m/client.py:3: GitHub token" in message
    assert token not in message
    assert token[4:] not in message
    password = "Tr0ub4dor&3"
    message = refusal("a.py", f'x = 1\ndb_password = "{password}"\n')
    assert "a.py:2: value of db_password" in message
    assert password not in message


def test_a_waiver_names_the_digest_of_the_file_and_stands_in_the_findings():
    data = f"TOKEN = 'ghp_{some(36)}'\n".encode()
    digest = str(Digest.of(data))
    assert digest in refusal("client.py", data)
    given = files(**{"source/a.py": data, "source/b.py": b"x = 1\n"})
    (finding,) = check_secrets(given, (digest,))
    assert (finding.name, finding.what) == (f"secret:{digest}", "waived: a.py:1: GitHub token")
    with pytest.raises(RefusedError):  # other bytes, other digest
        check_secrets(files(**{"source/a.py": data + b"\n"}), (digest,))


def test_all_secrets_are_in_one_message():
    given = {f"source/{n}.py": f"T = 'ghp_{some(36)}'\n" for n in range(3)}
    with pytest.raises(RefusedError) as refused:
        check_secrets(files(**given), ())
    assert [line.split(":")[0] for line in str(refused.value.got).split("\n")] == [
        "0.py", "1.py", "2.py",
    ]  # fmt: skip


def test_files_of_the_model_are_looked_at_and_a_pickle_may_hold_a_token():
    token = f"dapi{some(32, HEX)}"
    with pytest.raises(RefusedError) as refused:
        check_secrets(files(**{"model/conda.yaml": f"- --x=https://u:{some(20)}@h.corp/s\n"}), ())
    assert "model/conda.yaml:1: password in a URL" in str(refused.value)
    pickled = b"\x80\x04\x00" + token.encode() + b"."
    with pytest.raises(RefusedError) as refused:
        check_secrets(files(**{"model/python_model.pkl": pickled}), ())
    assert "model/python_model.pkl: Databricks token" in str(refused.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
def test_the_line_is_right_in_any_encoding(encoding):
    text = f"# é\nT = 'ghp_{some(36)}'\n".encode(encoding)
    assert "a.py:2: GitHub token" in refusal("a.py", text)


def test_certificates_and_public_keys_are_no_secrets():
    for label in ("CERTIFICATE", "PUBLIC KEY", "CERTIFICATE REQUEST"):
        assert check_secrets(files(**{"source/ca.pem": pem(label)}), ()) == ()
    assert "ca.pem" in refusal("ca.pem", pem("CERTIFICATE") + pem("PRIVATE KEY"))


@pytest.mark.parametrize(
    "part",
    [
        "-----BEGIN PRIVATE KEY-----\nAa: " + " " * 99,
        '"//registry.corp/:_x=1",',
        "password='",
        "eq=",
        "token ",
        "aws key ",
        "1234567890:",
        "://a:",
        "-----BEGIN ",
        "machine a login b ",
    ],
)
def test_a_long_line_takes_no_longer_than_its_length(part):
    data = (part * (1 << 20))[: 1 << 20].encode()
    before = time.process_time()
    assert check_secrets({"model/vocab.json": InlineFile(data)}, ()) == ()
    assert time.process_time() - before < 10  # it is a tenth of that; what is squared never ends


def test_a_key_that_is_encrypted_is_a_key():
    head = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,0A1B\n\n"
    assert "k.txt:1: private key" in refusal("k.txt", head + some(64, B64) + "\n")


def test_of_a_large_text_the_beginning_is_searched_and_a_finding_says_so():
    token = f"ghp_{some(36)}\n".encode()
    large = b"1,2,3\n" * (TEXT_BYTES // 6 + 1)
    assert "big.csv:1" in refusal("big.csv", token + large)
    (finding,) = check_secrets(files(**{"model/big.csv": large + token}), ())
    assert finding.name == "unsearched:model/big.csv"


def test_of_a_large_binary_file_its_first_bytes_alone_are_read():
    class Weights:
        size_bytes = 2 << 30

        def open(self):
            class Stream(InlineFile(b"").open().__class__):
                def read(self, size=-1):
                    assert 0 <= size <= 1 << 16
                    return b"\0" * size

            return Stream()

    assert check_secrets({"model/weights.bin": Weights()}, ()) == ()


@pytest.mark.parametrize(
    "path",
    [
        ".env",
        ".env.production",
        "a/.env",
        ".venv/x.py",
        "a/venv/x.py",
        "lib/site-packages/x.py",
        "mlruns/0/x.yaml",
        ".metaflow/x",
        "a/.ipynb_checkpoints/x.py",
        "a/__pycache__/x.pyc",
        ".pytest_cache/x",
        ".DS_Store",
    ],
)
def test_what_is_never_packed(path):
    assert is_never_packed(path)


@pytest.mark.parametrize(
    "path", ["env.py", "environment/x.py", "cache/lru.py", "a/mlruns.py", "x.py"]
)
def test_what_only_sounds_like_it_is_packed(path):
    assert not is_never_packed(path)
    assert secret_kind(path) is None
    assert not is_generated(path)


@pytest.mark.parametrize(
    "path", ["credentials.py", "secrets.py", "id_rsa.pub", "identity.json", "id_mapping.json"]
)
def test_code_about_secrets_is_no_secret_by_name(path):
    assert secret_kind(path) is None
