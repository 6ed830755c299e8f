#!/usr/bin/env bash
# Keeps Metaflow's services of a cluster reachable on this machine, until Ctrl-C.
#
#   bootstrap/metaflow_port_forwarding.sh [options]
#
#   --context NAME                  kubectl's context; kubectl's current one without it
#   --namespace NAME                where the services are; the context's own without it
#   --service NAME:LOCAL:REMOTE     a service (or deployment/NAME, pod/NAME), the port here, the port
#                                   there; repeatable, and instead of the default:
#                                   metaflow-service:8080:8080      the metadata service
#                                   metaflow-ui:8083:8083           the UI's backend
#                                   metaflow-ui-static:3000:3000    the UI's pages
#   --max-wait SECONDS              the longest wait before a restart; 30 without it
#   --once                          end, with 5, where one ends, instead of restarting it
#
# One line for each change of state; at a terminal also what is forwarded, how to stop it, and at the
# end what was reached. A forward that ends, or no longer answers, is started again
# after 1 s, then 2, 4, ... up to --max-wait; one that held longer than its last wait begins at 1 s.
#
# Exit codes: 0 ended by Ctrl-C, TERM or HUP; 2 bad usage; 3 kubectl is missing; 4 a local port is in
# use already; 5 a forward ended (--once). However it ends, short of KILL, no child is left.
[ -n "${BASH_VERSION-}" ] || exec bash "$0" "$@" # started as `zsh metaflow_port_forwarding.sh`
set -euo pipefail

tick_s=0.3         # between two looks at all of them
start_limit_s=20   # to answer for the first time
check_every_s=5    # once it answers
failed_in_a_row=2  # this many checks without an answer, and it is down
end_limit_s=3      # from TERM to KILL
kubectl=(kubectl)
max_wait_s=30 once=no logs='' context='' namespace=''
# One entry for each service, in the same order. pids: the leader of kubectl's process group, 0 while
# it waits. states: starting, up, waiting. since_s, next_s: of $SECONDS.
names=() locals=() remotes=() pids=() states=() since_s=() next_s=() waits_s=() failed=() reached=()

main() {
    local i
    parse "$@"
    command -v kubectl >/dev/null || fail 3 'kubectl is not installed, or not on the PATH'
    for i in "${!names[@]}"; do
        if port_is_open "${locals[i]}"; then
            fail 4 "${names[i]}: port ${locals[i]} is in use on this machine;" \
                "end what has it, or pick another: --service ${names[i]}:PORT:${remotes[i]}"
        fi
    done
    trap end_all EXIT
    trap 'exit 0' INT TERM HUP PIPE
    logs=$(mktemp -d)
    tell_a_person "forwarding from ${context:-the current context}, namespace" \
        "${namespace:-its own}; Ctrl-C stops it"
    for i in "${!names[@]}"; do start "$i"; done
    while :; do
        for i in "${!names[@]}"; do look_at "$i"; done
        sleep "$tick_s"
    done
}

tell_a_person() { if [ -t 1 ]; then printf '%s\n' "$*" || :; fi; }

fail() {
    local code=$1
    shift
    printf 'metaflow_port_forwarding.sh: %s\n' "$*" >&2
    exit "$code"
}

usage() { sed -n '/^#!/d; /^#/!q; s/^# \{0,1\}//p' "$0"; }

parse() {
    local flag value each
    while [ $# -gt 0 ]; do
        case "$1" in
            -h | --help)
                usage
                exit 0
                ;;
            --once)
                once=yes
                shift
                continue
                ;;
            --context | --namespace | --service | --max-wait)
                flag=$1 value=${2-}
                case "$value" in '' | -*) fail 2 "$flag needs a value" ;; esac
                shift 2
                ;;
            --context=?* | --namespace=?* | --service=?* | --max-wait=?*)
                flag=${1%%=*} value=${1#*=}
                shift
                ;;
            *) fail 2 "unknown option '$1'; see --help" ;;
        esac
        case "$flag" in
            --context) context=$value kubectl+=("$flag=$value") ;;
            --namespace) namespace=$value kubectl+=("$flag=$value") ;;
            --service) add_service "$value" ;;
            --max-wait)
                [[ $value =~ ^[1-9][0-9]{0,4}$ ]] || fail 2 "--max-wait: '$value' is not seconds"
                max_wait_s=$value
                ;;
        esac
    done
    if [ "${#names[@]}" = 0 ]; then
        for each in metaflow-service:8080:8080 metaflow-ui:8083:8083 metaflow-ui-static:3000:3000; do
            add_service "$each"
        done
    fi
}

add_service() {
    local i each port remote name=${1%%:*}
    [[ $1 =~ ^([a-z]+/)?[a-z0-9][a-z0-9.-]*:[0-9]+:[0-9]+$ ]] ||
        fail 2 "--service: '$1' is not NAME:LOCAL:REMOTE"
    IFS=: read -r _ port remote <<<"$1"
    for each in "$port" "$remote"; do
        if [[ ! $each =~ ^[1-9][0-9]{0,4}$ ]] || [ "$each" -gt 65535 ]; then
            fail 2 "--service: '$1': $each is not a port"
        fi
    done
    for i in ${names[@]+"${!names[@]}"}; do
        [ "${locals[i]}" != "$port" ] || fail 2 "--service: two want the local port $port"
    done
    names+=("$name") locals+=("$port") remotes+=("$remote")
    pids+=(0) states+=(waiting) since_s+=(0) next_s+=(0) waits_s+=(0) failed+=(0) reached+=(no)
}

# In a process group of its own, so that what kubectl itself starts (a wrapper, a login helper) ends
# with it, and Ctrl-C reaches this script alone.
start() {
    local i=$1 target=${names[$1]}
    case "$target" in */*) ;; *) target=service/$target ;; esac
    set -m
    "${kubectl[@]}" port-forward --address=127.0.0.1 "$target" "${locals[i]}:${remotes[i]}" \
        </dev/null >/dev/null 2>"$logs/$i" &
    pids[i]=$!
    set +m
    disown "${pids[i]}" # so that bash tells nobody how it ended
    states[i]=starting since_s[i]=$SECONDS next_s[i]=$SECONDS failed[i]=0
}

look_at() {
    local i=$1
    case "${states[i]}" in
        waiting)
            [ "$SECONDS" -ge "${next_s[i]}" ] || return 0
            if port_is_open "${locals[i]}"; then
                down "$i" "port ${locals[i]} is in use"
            else
                start "$i"
            fi
            ;;
        starting)
            if ! kill -0 "${pids[i]}" 2>/dev/null; then
                down "$i" "$(last_words "$i")"
            elif answers "${locals[i]}"; then
                reached[i]=yes
                printf '%s: up at http://127.0.0.1:%s\n' "${names[i]}" "${locals[i]}"
                states[i]=up since_s[i]=$SECONDS next_s[i]=$((SECONDS + check_every_s))
            elif [ $((SECONDS - since_s[i])) -ge "$start_limit_s" ]; then
                down "$i" "no answer within $start_limit_s s"
            fi
            ;;
        up)
            if ! kill -0 "${pids[i]}" 2>/dev/null; then
                down "$i" "$(last_words "$i")"
            elif [ "$SECONDS" -ge "${next_s[i]}" ]; then
                next_s[i]=$((SECONDS + check_every_s))
                failed[i]=$((failed[i] + 1))
                if answers "${locals[i]}"; then
                    failed[i]=0
                elif [ "${failed[i]}" -ge "$failed_in_a_row" ]; then
                    down "$i" 'it no longer answers'
                fi
            fi
            ;;
    esac
}

down() {
    local i=$1 why=${2:+ ($2)} wait=${waits_s[$1]}
    end "$i"
    if [ "$once" = yes ]; then
        printf '%s: down%s\n' "${names[i]}" "$why"
        exit 5
    fi
    if [ "${states[i]}" = up ] && [ $((SECONDS - since_s[i])) -gt "$wait" ]; then wait=0; fi
    wait=$((wait ? 2 * wait : 1))
    wait=$((wait > max_wait_s ? max_wait_s : wait))
    printf '%s: down, again in %s s%s\n' "${names[i]}" "$wait" "$why"
    states[i]=waiting waits_s[i]=$wait next_s[i]=$((SECONDS + wait))
}

last_words() { tail -n 1 "$logs/$1" | tr -d '[:cntrl:]'; }

# Whether anything accepts a connection. bash's own, and at once: it is this machine.
port_is_open() { (: <>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# kubectl accepts connections before it knows whether anything answers them there: an answer in HTTP,
# whatever it says, is better evidence, where there is curl.
answers() {
    if command -v curl >/dev/null; then
        curl -q --silent --noproxy '*' --max-time 2 --output /dev/null "http://127.0.0.1:$1/"
    else
        port_is_open "$1"
    fi
}

end() {
    local end_s
    [ "${pids[$1]}" != 0 ] || return 0
    kill -TERM -- "-${pids[$1]}" 2>/dev/null || :
    end_s=$((SECONDS + end_limit_s))
    while kill -0 -- "-${pids[$1]}" 2>/dev/null; do
        if [ "$SECONDS" -gt "$end_s" ]; then
            kill -KILL -- "-${pids[$1]}" 2>/dev/null || :
            break
        fi
        sleep 0.05
    done
    pids[$1]=0
}

end_all() {
    local i pid
    trap '' INT TERM HUP PIPE
    # $! first: a signal may have come between the start of one and its entry in the list.
    for pid in "${!:-0}" "${pids[@]}"; do
        [ "$pid" = 0 ] || kill -TERM -- "-$pid" 2>/dev/null || :
    done
    for i in "${!names[@]}"; do end "$i"; done
    [ -z "$logs" ] || rm -rf "$logs"
    for i in "${!names[@]}"; do # last: the terminal may be gone
        case "${reached[i]}" in
            yes) tell_a_person "${names[i]}: stopped; it was reached at http://127.0.0.1:${locals[i]}" ;;
            *) tell_a_person "${names[i]}: stopped; it was never reached" ;;
        esac
    done
}

main "$@"
