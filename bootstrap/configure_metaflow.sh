#!/usr/bin/env bash
# Writes the configuration that Metaflow reads: config.json, or config_NAME.json of a profile, in
# ~/.metaflowconfig or METAFLOW_HOME.
#
#   bootstrap/configure_metaflow.sh [--profile NAME] [options]
#
#   --datastore s3://BUCKET/PREFIX       needed; where artifacts are kept
#   --service-url URL                    needed; the metadata service
#   --ui-url URL                         needed; what links to runs begin with
#   --service-internal-url URL           the metadata service, as steps on a cluster reach it; needed
#                                        for them where --service-url is this machine's (127.0.0.1)
#   --sagemaker-role ARN                 the role that SageMaker jobs run as
#   --sagemaker-image IMAGE              the image that they run in
#   --kubernetes-namespace NAME          where steps on Kubernetes run
#   --kubernetes-service-account NAME    as whom
#   --kubernetes-image IMAGE             in which image
#
#   --databricks-host URL                the workspace, into ~/.databrickscfg (or the file that
#                                        DATABRICKS_CONFIG_FILE names); its token comes from
#                                        DATABRICKS_TOKEN, or is asked for, never from an option
#   --databricks-profile NAME            as which profile of that file; DEFAULT without it
#
#   --profile NAME                       config_NAME.json; METAFLOW_PROFILE=NAME uses it
#   --yes                                replace a file that differs without asking
#   --show                               print the file that is there, and change nothing
#   --check                              first ask AWS whose credentials these are, where aws is
#                                        installed
#
# What is needed and not given is asked for at a terminal, again after an answer that cannot be; then
# the Databricks workspace and its token, which an empty answer leaves out. The file holds exactly
# what was given (nothing of an older file is merged in); the file that was there stays beside it as
# .bak-UTC. A Databricks profile that is there is kept; a new one is added, and the file is private.
#
# Exit codes: 0 written, or nothing to do; 2 an option is missing or wrong; 3 python3 is missing, or
# there is no file to show; 4 the file that is there was kept; 5 it could not be read or written,
# or AWS named no identity.
[ -n "${BASH_VERSION-}" ] || exec bash "$0" "$@" # started as `zsh configure_metaflow.sh`
set -euo pipefail

profile='' yes=no show=no check=no asked=no
databricks_host='' databricks_profile=DEFAULT
settings=() # KEY=VALUE, as given

main() {
    local written=0
    parse "$@"
    command -v python3 >/dev/null || fail 3 'python3 is not installed, or not on the PATH'
    if [ "$check" = yes ]; then check_identity; fi
    if [ "$show" = yes ]; then
        config_file show
        return
    fi
    need METAFLOW_DATASTORE_SYSROOT_S3 --datastore 'Datastore (s3://BUCKET/PREFIX)'
    need METAFLOW_SERVICE_URL --service-url 'Metadata service (URL)'
    need METAFLOW_UI_URL --ui-url 'UI (URL)'
    check_service
    config_file write METAFLOW_DEFAULT_DATASTORE=s3 METAFLOW_DEFAULT_METADATA=service \
        "${settings[@]}" || written=$?
    if [ "$written" = 0 ] || [ "$written" = 4 ]; then set_up_databricks; fi
    if [ "$written" != 0 ]; then exit "$written"; fi
    if [ "${METAFLOW_PROFILE-}" = "$profile" ]; then
        return
    elif [ "$profile" ]; then
        say "to use it: export METAFLOW_PROFILE=$profile"
    else
        say "METAFLOW_PROFILE is set to '$METAFLOW_PROFILE'; to use this file: unset METAFLOW_PROFILE"
    fi
}

say() { printf '%s\n' "$1" >&2; }

fail() {
    say "configure_metaflow.sh: $2"
    exit "$1"
}

usage() { sed -n '/^#!/d; /^#/!q; s/^# \{0,1\}//p' "$0"; }

parse() {
    local flag key value
    while [ $# -gt 0 ]; do
        case "$1" in
            --yes) yes=yes ;;
            --show) show=yes ;;
            --check) check=yes ;;
            -h | --help)
                usage
                exit 0
                ;;
            *)
                flag=${1%%=*}
                key=$(key_of "$flag")
                if [ "$flag" = "$1" ]; then
                    case "${2-}" in '' | --*) fail 2 "$flag needs a value" ;; esac
                    shift
                    value=$1
                else
                    value=${1#*=}
                fi
                set_value "$key" "$flag" "$value"
                ;;
        esac
        shift
    done
}

key_of() {
    case "$1" in
        --profile) printf profile ;;
        --datastore) printf METAFLOW_DATASTORE_SYSROOT_S3 ;;
        --service-url) printf METAFLOW_SERVICE_URL ;;
        --ui-url) printf METAFLOW_UI_URL ;;
        --service-internal-url) printf METAFLOW_SERVICE_INTERNAL_URL ;;
        --sagemaker-role) printf METAFLOW_SAGEMAKER_IAM_ROLE ;;
        --sagemaker-image) printf METAFLOW_SAGEMAKER_IMAGE ;;
        --kubernetes-namespace) printf METAFLOW_KUBERNETES_NAMESPACE ;;
        --kubernetes-service-account) printf METAFLOW_KUBERNETES_SERVICE_ACCOUNT ;;
        --kubernetes-image) printf METAFLOW_KUBERNETES_CONTAINER_IMAGE ;;
        --databricks-host) printf databricks_host ;;
        --databricks-profile) printf databricks_profile ;;
        *) fail 2 "unknown option '$1'; see --help" ;;
    esac
}

set_value() {
    local key=$1 flag=$2 value=$3
    [ -n "$value" ] || fail 2 "$flag needs a value"
    case "$key=$value" in
        METAFLOW_DATASTORE_SYSROOT_S3=s3://[!/]* | *_URL=http://[!/]* | *_URL=https://[!/]*) ;;
        METAFLOW_DATASTORE_SYSROOT_S3=*) fail 2 "$flag: '$value' is not s3://BUCKET/PREFIX" ;;
        *_URL=*) fail 2 "$flag: '$value' is not http://HOST or https://HOST" ;;
        databricks_host=*) is_workspace "$value" || fail 2 "$flag: '$value' is not https://HOST" ;;
        databricks_profile=[!-]*) case "$value" in *[!A-Za-z0-9._-]*) bad_profile "$value" ;; esac ;;
        databricks_profile=*) bad_profile "$value" ;;
        profile=[!-]*) case "$value" in *[!A-Za-z0-9._-]*) bad_profile "$value" ;; esac ;;
        profile=*) bad_profile "$value" ;;
    esac
    case "$key" in
        profile) profile=$value ;;
        databricks_host) databricks_host=$value ;;
        databricks_profile) databricks_profile=$value ;;
        *) settings+=("$key=$value") ;;
    esac
}

is_workspace() {
    case "$1" in
        *[!A-Za-z0-9.:/_-]*) return 1 ;;
        https://[!/]*) return 0 ;;
    esac
    is_this_machine "$1"
}

bad_profile() { fail 2 "a profile's name: '$1' is not made of letters, digits, '.', '_', '-'"; }

need() {
    local key=$1 flag=$2 question=$3 setting answer
    for setting in ${settings[@]+"${settings[@]}"}; do
        case "$setting" in "$key="*) return ;; esac
    done
    [ -t 0 ] || fail 2 "$flag is missing"
    asked=yes
    while true; do
        printf '%s: ' "$question" >&2
        IFS= read -r answer || fail 2 "$flag is missing"
        if (set_value "$key" "$flag" "$answer"); then break; fi
    done
    set_value "$key" "$flag" "$answer"
}

# A job on another machine takes 127.0.0.1 for its own.
check_service() {
    local setting service='' internal='' remote=''
    for setting in "${settings[@]}"; do
        case "$setting" in
            METAFLOW_SERVICE_URL=*) service=${setting#*=} ;;
            METAFLOW_SERVICE_INTERNAL_URL=*) internal=${setting#*=} ;;
            METAFLOW_SAGEMAKER_*=* | METAFLOW_KUBERNETES_*=*) remote=yes ;;
        esac
    done
    if is_this_machine "$internal"; then
        fail 2 "--service-internal-url: '$internal' is this machine, and no job reaches it"
    elif [ -n "$internal" ] || ! is_this_machine "$service"; then
        return
    elif [ -n "$remote" ]; then
        fail 2 "--service-url: '$service' is this machine, and no job reaches it; add --service-internal-url URL"
    fi
    say "$service is this machine: steps on other machines need --service-internal-url URL"
}

is_this_machine() {
    local host=${1#*://}
    host=${host%%/*}
    case "$host" in
        localhost | localhost:* | *.localhost | *.localhost:* | 127.*.*.* | 0.0.0.0 | 0.0.0.0:* | '[::1]'*) return 0 ;;
    esac
    return 1
}

# Where questions are asked at all, or a host was given. What is left empty is left out.
set_up_databricks() {
    local token=${DATABRICKS_TOKEN-}
    if [ -z "$databricks_host" ] && [ "$asked" = no ]; then return; fi
    if databricks_file has; then return; fi
    while [ -z "$databricks_host" ]; do
        printf 'Databricks workspace (https://HOST; Enter for none): ' >&2
        IFS= read -r databricks_host || databricks_host=''
        if [ -z "$databricks_host" ]; then return; fi
        if ! is_workspace "$databricks_host"; then
            say "'$databricks_host' is not https://HOST"
            databricks_host=''
        fi
    done
    if [ -z "$token" ] && [ -t 0 ]; then
        printf 'Its token (%s/settings/user/developer/access-tokens; not shown): ' \
            "${databricks_host%/}" >&2
        IFS= read -rs token || token=''
        say ''
    fi
    if [ -z "$token" ]; then
        say "no token, so no Databricks profile was made; run this again with DATABRICKS_TOKEN set"
        return
    fi
    DATABRICKS_TOKEN=$token databricks_file add
}

databricks_file() {
    python3 -I -c "$program" databricks "$databricks_profile" "$databricks_host" "$1"
}

check_identity() {
    local identity
    if ! command -v aws >/dev/null; then
        say 'aws is not installed: whose credentials these are was not checked'
        return
    fi
    identity=$(aws sts get-caller-identity --query Arn --output text) ||
        fail 5 'AWS named no identity; check AWS_PROFILE, or run: aws sso login'
    say "AWS knows you as $identity"
}

config_file() { python3 -I -c "$program" "$1" "$profile" "$yes" "${@:2}"; }

program=$(
    cat <<'PYTHON'
import datetime
import json
import os
import re
import sys
import tempfile


def main(verb, profile, yes, *settings):
    if verb == "databricks":
        databricks(profile, yes, *settings)
        return
    # As Metaflow finds it (metaflow_config_funcs.init_config).
    home = os.environ.get("METAFLOW_HOME", "~/.metaflowconfig")
    name = f"config_{profile}.json" if profile else "config.json"
    path = os.path.expanduser(os.path.join(home, name))
    old = read(path)
    if verb == "show":
        if old is None:
            fail(3, f"{path} does not exist")
        say(path)
        sys.stdout.buffer.write(old)
        return
    new = dict(each.split("=", 1) for each in settings)
    data = encode(new)
    if old is not None:
        changed = differences(old, new)
        if not changed:
            say(f"{path}: nothing to do")
            return
        if yes != "yes":
            ask(path, changed)
    try:
        write(os.path.realpath(path), old, data)  # a link into a folder of dotfiles stays one
    except OSError as error:
        fail(5, f"{path}: {error.strerror}")
    say(f"{path}: written")


def databricks(profile, host, verb):
    """`has` ends with 1 where the file lacks the profile; `add` appends it, byte for byte."""
    path = os.path.expanduser(os.environ.get("DATABRICKS_CONFIG_FILE") or "~/.databrickscfg")
    old = read(path) or b""
    headers = re.findall(rb"^\s*\[([^\]\n]*)\]", old, re.MULTILINE)
    if verb == "has":
        if profile.encode() not in [name.strip() for name in headers]:
            sys.exit(1)
        say(f"{path}: the profile {profile} is there, and is kept")
        return
    token = os.environ["DATABRICKS_TOKEN"].strip()
    if not token.isprintable() or " " in token:
        fail(2, "the token holds a space, or what does not print")
    gap = b"" if not old else b"\n" if old.endswith(b"\n") else b"\n\n"
    added = f"[{profile}]\nhost = {host}\ntoken = {token}\n"
    try:
        write(os.path.realpath(path), None, old + gap + added.encode())
    except OSError as error:
        fail(5, f"{path}: {error.strerror}")
    say(f"{path}: the profile {profile} was added")


def read(path):
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        fail(5, f"{path}: {error.strerror}")


def encode(values):
    try:
        text = json.dumps(values, indent=4, ensure_ascii=False) + "\n"
        return text.encode()
    except UnicodeEncodeError:
        fail(2, "a value is not UTF-8")


def differences(old, new):
    try:
        before = json.loads(old)
        return sorted(key for key in {*before, *new} if before.get(key) != new.get(key))
    except (ValueError, TypeError, AttributeError):
        return ["all of it: what is there is no JSON object"]


def ask(path, changed):
    say(f"{path} is there and differs in:")
    for key in changed:
        say(f"  {key}")
    if not sys.stdin.isatty():
        fail(2, "to replace it, add --yes; the old file is kept beside it")
    print("Replace it? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        fail(4, "left as it was")


def write(path, old, data):
    folder = os.path.dirname(path)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=".config-", suffix=".tmp")  # 0600
    try:
        with open(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if old is not None:
            back_up(path, old)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def back_up(path, old):
    now = datetime.datetime.now(datetime.timezone.utc)
    base = f"{path}.bak-{now:%Y%m%dT%H%M%SZ}"
    for name in [base, *(f"{base}-{n}" for n in range(2, 100))]:
        try:
            with open(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(old)
        except FileExistsError:
            continue
        say(f"the old file is {name}")
        return
    raise FileExistsError(17, "there is a backup of this second already", base)


def say(line):
    print(line, file=sys.stderr)


def fail(code, line):
    say(f"configure_metaflow.sh: {line}")
    sys.exit(code)


try:
    main(*sys.argv[1:])
except KeyboardInterrupt:
    sys.exit(130)
PYTHON
)

main "$@"
