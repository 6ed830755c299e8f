"""The script that a training job runs: Metaflow's code package, then one task of a flow. Pure.

It works under ``/opt/ml``, where the job's volume is, and leaves three things behind: the task in
Metaflow's datastore, its log there as well, and, where the step failed, the last lines it printed
as ``/opt/ml/output/failure``, which SageMaker gives back as the job's reason. SIGTERM, which a
stopped or interrupted job gets, is passed on to the step.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

_FRAME = r"""#!/usr/bin/env bash
# Training job {name}: task {task}, attempt {attempt}.
{exports}
export TMPDIR=/opt/ml/tmp MFLOG_STDOUT=/opt/ml/metaflow/stdout MFLOG_STDERR=/opt/ml/metaflow/stderr
rm -rf /opt/ml/metaflow  # an interrupted spot job starts again on the same volume
mkdir -p "$TMPDIR" /opt/ml/metaflow /opt/ml/output
cd /opt/ml/metaflow || exit 1
if python -c 'import boto3, requests' 2>/dev/null; then
    export METAFLOW_SKIP_INSTALL_DEPENDENCIES=1
fi

{topology}
set_up() {{
{package}
}}

# What the step prints goes on to the terminal, and to the log that Metaflow keeps.
run_step() {{
    mkfifo out err
    python -m metaflow.mflog.tee task "$MFLOG_STDOUT" <out & local tee_out=$!
    python -m metaflow.mflog.tee task "$MFLOG_STDERR" <err >&2 & local tee_err=$!
    {step} >out 2>err &
    local step=$! code
    trap 'kill -TERM "$step" 2>/dev/null' TERM
    wait "$step"; code=$?
    while kill -0 "$step" 2>/dev/null; do wait "$step"; code=$?; done
    for _ in $(seq 50); do
        kill -0 "$tee_out" 2>/dev/null || kill -0 "$tee_err" 2>/dev/null || break
        sleep 0.2
    done
    return "$code"
}}

set_up > >(grep --line-buffered -v '^\[save_logs\]') 2> >(tee set_up >&2) && run_step
code=$?
python -m metaflow.mflog.save_logs >/dev/null 2>&1
if [ "$code" != 0 ]; then
    cat /opt/ml/metaflow/set_up "$MFLOG_STDERR" 2>/dev/null | sed 's/^\[MFLOG[^]]*\]//' |
        tail -n 5 | tail -c 1000 >/opt/ml/output/failure
fi
exit "$code"
"""


_TOPOLOGY = r"""
# Which of the instances this is, as SageMaker tells it.
read -r NODE_RANK MAIN < <(python - <<'PYTHON'
import json
try:
    with open("/opt/ml/input/config/resourceconfig.json") as file:
        config = json.load(file)
except FileNotFoundError:  # an image that is tried by hand
    config = {"current_host": "127.0.0.1", "hosts": ["127.0.0.1"]}
hosts = sorted(config["hosts"])
print(hosts.index(config["current_host"]), hosts[0])
PYTHON
)
GPUS=$(nvidia-smi -L 2>/dev/null | grep -c '^GPU')
[ "$GPUS" -gt 0 ] || GPUS=1
if [ "$NODE_RANK" != 0 ]; then export MF_PATHSPEC="$MF_PATHSPEC-node-$NODE_RANK"; fi
"""


def torchrun(instances: int, processes: int | None) -> tuple[str, ...]:
    """Returns the words before a step's command that run it in several processes.

    Args:
        instances: Of the job.
        processes: On each; None for as many as there are GPUs.
    """
    return (
        "python", "-m", "torch.distributed.run", f"--nnodes={instances}",
        f"--nproc_per_node={processes or '$GPUS'}", '--node_rank="$NODE_RANK"',
        '--master_addr="$MAIN"', "--master_port=29500", "-m",
        "metaflow_extensions.adroit.plugins.sagemaker.ranks",
    )  # fmt: skip


def run_script(
    name: str,
    task: str,
    attempt: int,
    package: Sequence[str],
    step: Sequence[str],
    exports: Mapping[str, str],
    before: Sequence[str] = (),
    launcher: Sequence[str] = (),
) -> str:
    """Returns the script.

    Args:
        name: The job's.
        task: ``FLOW/RUN/STEP/TASK``.
        attempt: Counted from 0.
        package: Metaflow's commands to get and unpack the code package, as it gives them: to stand
            between double quotes.
        step: The command of the step, the interpreter first, each word as a shell has to read it.
        exports: Environment of the step.
        before: Shell commands that run before it, in one shell; one that fails ends the job.
        launcher: What runs the step's program in the interpreter's place, from ``torchrun``.
    """
    own = {"PYTHONUNBUFFERED": "x", "MF_PATHSPEC": task, "MF_DATASTORE": "s3"}
    exports = own | {"MF_ATTEMPT": str(attempt)} | dict(exports)
    [unpack] = shlex.split(f'"{" && ".join(package)}"')
    commands = [unpack, *(f"eval {shlex.quote(command)}" for command in before)]
    program = [*launcher, *step[step.index("-u") + 1 :]] if launcher else step
    return _FRAME.format(
        name=name,
        task=task,
        attempt=attempt,
        exports="\n".join(f"export {key}={shlex.quote(exports[key])}" for key in sorted(exports)),
        topology=_TOPOLOGY if launcher else "",
        package=" &&\n".join(commands),
        step=" ".join(["exec", *program]),
    )
