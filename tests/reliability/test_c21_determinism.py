"""C21: whoever publishes, wherever, whenever: the same content has the same digest."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys

from tests.support.checkouts import FLOW, git, make_checkout

RUNS = 100 if os.environ.get("ADROIT_FULL") == "1" else 10
PUBLISH = """
import os, sys
os.umask(int(sys.argv[1], 8))
from adroit_publish import publish
print(publish("a", verify="none").manifest_digest)
"""
ZONES = ("UTC", "Asia/Kathmandu", "America/St_Johns", "Pacific/Kiritimati")
LOCALES = ("C", "C.UTF-8", "POSIX")
UMASKS = ("0022", "0077", "0002", "0000")


def test_c21_the_digest_depends_on_content_alone(tmp_path, trained, capsys):
    first = make_checkout(tmp_path / "first", trained.tracking_uri, {"a": trained.good[0]})
    names = ["z.py", "a.py", "B.py", "é.py", "run.sh", "sub/a.py", "sub-a.py", "sub/é/b.py"]
    for name in names:
        path = first / "projects" / "doubler" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"NAME = {name!r}\n", encoding="utf-8")
    (first / "projects/doubler/run.sh").chmod(0o755)
    git(first, "add", "-A")
    git(first, "commit", "-qm", "names of all kinds")
    digests = set()
    randomness = random.Random(21)
    for number in range(RUNS):
        root = tmp_path / f"user{number}" / ("deep/" * (number % 3)) / "clone"
        git(tmp_path, "clone", "-q", str(first), str(root))
        _disturb(root, randomness)
        done = subprocess.run(
            [sys.executable, "-c", PUBLISH, randomness.choice(UMASKS)],
            cwd=randomness.choice([root, root / "projects" / "doubler"]),
            env=os.environ
            | {
                "PYTHONPATH": str(FLOW.parent),
                "TZ": randomness.choice(ZONES),
                "LC_ALL": randomness.choice(LOCALES),
                "PYTHONHASHSEED": str(number),
                "USER": f"user{number}",
                "HOME": str(root.parent),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        digests.add(done.stdout.split()[-1])
        shutil.rmtree(root)
    with capsys.disabled():
        print(f"\nC21 injected={RUNS} fired={RUNS} violations={len(digests) - 1}")
    assert len(digests) == 1


def _disturb(root, randomness):
    """Other mtimes, and directories whose entries were made in another order."""
    project = root / "projects" / "doubler"
    files = [path for path in project.rglob("*") if path.is_file()]
    randomness.shuffle(files)
    for path in files:
        data, mode = path.read_bytes(), path.stat().st_mode
        path.unlink()
        path.write_bytes(data)
        path.chmod(mode)
        moment = randomness.randrange(0, 2**31)
        os.utime(path, (moment, moment))
