#!/usr/bin/env bash
# Sourced by bash or zsh: this shell works on this checkout, with Metaflow configured.
#
#   source bootstrap/activate_metaflow.sh [--aws-profile NAME] [PROFILE]
#   deactivate_metaflow
#
# PROFILE                METAFLOW_PROFILE, a file of configure_metaflow.sh; without one the variable
#                        stays as it is. A script with arguments of its own says '' for "none": a
#                        shell hands a script's arguments on to what it sources without any.
# --aws-profile NAME     AWS_PROFILE; without it the variable stays as it is
#
# Also set: METAFLOW_USER, where it is not (from SUDO_USER or USER, never root, as Metaflow has it);
# PYTHONPATH, with the checkout in front, where metaflow_extensions/ is found; and the checkout's
# .venv, where there is one. Sourcing it again starts from what the shell had before the first time.
# aws_data_login, aws_eng_login and aws_sso_login [PROFILE] log in by `aws sso login`, unless the shell
# has its own.
# deactivate_metaflow restores every variable, set or unset, exported or not, and removes itself.

if [ -n "${ZSH_VERSION-}" ]; then
    case "${ZSH_EVAL_CONTEXT-}" in *:file) _adroit_sourced=yes ;; *) _adroit_sourced=no ;; esac
    eval '_adroit_file=${(%):-%x}' # what zsh calls BASH_SOURCE; bash could not parse it
elif [ -n "${BASH_VERSION-}" ]; then
    _adroit_file=${BASH_SOURCE[0]}
    if (return 0 2>/dev/null); then _adroit_sourced=yes; else _adroit_sourced=no; fi
else
    _adroit_sourced=no
fi
if [ "$_adroit_sourced" = no ]; then
    printf '%s\n' 'activate_metaflow.sh changes the shell that sources it, and has to be sourced, by' \
        'bash or zsh: source bootstrap/activate_metaflow.sh' >&2
    exit 2
fi

_adroit_activate() {
    local file="$1" root profile='' aws_profile='' user=''
    shift
    while [ $# -gt 0 ]; do
        case "$1" in
            -h | --help)
                sed -n '/^#!/d; /^#/!q; s/^# \{0,1\}//p' "$file"
                return
                ;;
            --aws-profile=?*) aws_profile=${1#*=} ;;
            --aws-profile)
                case "${2-}" in
                    '' | -*)
                        printf 'activate_metaflow.sh: --aws-profile needs a value\n' >&2
                        return 2
                        ;;
                esac
                aws_profile=$2
                shift
                ;;
            -* | */*)
                printf "activate_metaflow.sh: unknown argument '%s'; see --help\n" "$1" >&2
                return 2
                ;;
            *)
                if [ "$profile" ]; then
                    printf "activate_metaflow.sh: one profile, not '%s' and '%s'\n" "$profile" "$1" >&2
                    return 2
                fi
                profile=$1
                ;;
        esac
        shift
    done
    root=$(CDPATH='' builtin cd -- "$(dirname -- "$file")/.." >/dev/null && pwd -P) || return

    if [ -n "${_adroit_restore+set}" ]; then deactivate_metaflow; fi
    _adroit_remember METAFLOW_PROFILE METAFLOW_USER AWS_PROFILE PYTHONPATH \
        PATH VIRTUAL_ENV VIRTUAL_ENV_PROMPT PYTHONHOME
    _adroit_define
    # By eval: a shell whose alias has that name could not even parse the definition.
    # shellcheck disable=SC2016
    _adroit_unless_there aws_data_login 'aws sso login --profile data "$@"'
    # shellcheck disable=SC2016
    _adroit_unless_there aws_eng_login 'aws sso login --profile eng "$@"'
    # shellcheck disable=SC2016
    _adroit_unless_there aws_sso_login 'aws sso login --profile "${1:-${AWS_PROFILE:-default}}"'

    if [ "$profile" ]; then export METAFLOW_PROFILE="$profile"; fi
    if [ "$aws_profile" ]; then export AWS_PROFILE="$aws_profile"; fi
    for user in "${METAFLOW_USER-}" "${SUDO_USER-}" "${USER-}" ''; do
        case "$user" in '' | root) ;; *) break ;; esac
    done
    if [ "$user" ]; then export METAFLOW_USER="$user"; else unset METAFLOW_USER; fi
    case "${PYTHONPATH-}:" in
        "$root:"*) export PYTHONPATH ;;
        *) export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" ;;
    esac
    if [ -x "$root/.venv/bin/python" ]; then
        export VIRTUAL_ENV="$root/.venv"
        case "$PATH:" in "$root/.venv/bin:"*) ;; *) export PATH="$root/.venv/bin:$PATH" ;; esac
        unset PYTHONHOME VIRTUAL_ENV_PROMPT
        hash -r 2>/dev/null || :
    fi
    _adroit_report "$root"
}

# Makes _adroit_restore, the commands that bring the variables back as they are now.
_adroit_remember() {
    local name attributes put
    _adroit_restore=''
    for name in "$@"; do
        if eval "[ -z \"\${$name+set}\" ]"; then
            _adroit_restore="$_adroit_restore unset $name;"
            continue
        fi
        if [ -n "${ZSH_VERSION-}" ]; then
            put='typeset -g +x'
            eval "attributes=\${(t)$name}"
            case "$attributes" in *export*) put='export' ;; esac
        else
            put='export -n'
            attributes=$(declare -p "$name") # declare -x NAME="..."
            attributes=${attributes#declare -}
            case "${attributes%% *}" in *x*) put='export' ;; esac
        fi
        _adroit_restore="$_adroit_restore $put $name=$(eval "printf %q \"\$$name\"");"
    done
}

_adroit_define() {
    deactivate_metaflow() {
        eval "$_adroit_restore"
        unset _adroit_restore
        unset -f deactivate_metaflow
        hash -r 2>/dev/null || :
    }
}

_adroit_unless_there() {
    if ! command -v "$1" >/dev/null; then
        eval "$1() { $2; }"
        _adroit_restore="$_adroit_restore unset -f $1;"
    fi
}

_adroit_report() {
    local config
    printf 'metaflow: %s, user %s, %s; deactivate_metaflow ends it\n' \
        "${METAFLOW_PROFILE:-default profile}" "${METAFLOW_USER:-unknown}" "$1" >&2
    if [ -z "${METAFLOW_USER-}" ]; then
        printf 'metaflow: Metaflow refuses root; say who you are: export METAFLOW_USER=NAME\n' >&2
    fi
    config=${METAFLOW_HOME:-${HOME-}/.metaflowconfig}/config_${METAFLOW_PROFILE-}.json
    if [ -n "${METAFLOW_PROFILE-}" ] && [ ! -e "$config" ]; then
        printf 'metaflow: %s is missing; make it: bootstrap/configure_metaflow.sh --profile %s\n' \
            "$config" "$METAFLOW_PROFILE" >&2
    fi
}

if _adroit_activate "$_adroit_file" "$@"; then
    unset -f _adroit_activate _adroit_remember _adroit_define _adroit_unless_there _adroit_report
    unset _adroit_file _adroit_sourced
else
    unset -f _adroit_activate _adroit_remember _adroit_define _adroit_unless_there _adroit_report
    unset _adroit_file _adroit_sourced
    return 2
fi
