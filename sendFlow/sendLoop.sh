#!/bin/sh
# Load an application with a trace, pass after pass, until Ctrl-C.
usage() {
    cat <<'USAGE'
usage: sh sendFlow/sendLoop.sh [options] [-- options of locust]

Without arguments: Online Boutique at http://localhost:30001, the published trace (76 minutes a pass), until Ctrl-C.

  --host URL          gateway                                  SENDFLOW_HOST         http://localhost:30001
  --application NAME  boutique, bookinfo or train_ticket       SENDFLOW_APPLICATION  boutique
  --trace FILE        .req: users a line, 5 s each             SENDFLOW_TRACE        sendFlow/random-100max.req
  --workers N         N worker processes of Locust; 0: none    SENDFLOW_WORKERS      0
  --passes N          end after N passes; 0: never             SENDFLOW_PASSES       0
  --scale X           users are multiplied by this             SENDFLOW_SCALE        1
  --period S          seconds a value                          SENDFLOW_PERIOD       5
  --output DIR        CSV files of every pass                  SENDFLOW_OUTPUT       runs/locust
  --master-port P     where workers meet (loopback)            SENDFLOW_MASTER_PORT  5557

Every pass writes <DIR>/<UTC time>-<application>_stats.csv, _stats_history.csv, _failures.csv and _exceptions.csv.
USAGE
}

root=$(cd "$(dirname "$0")/.." && pwd) || exit 1
host=${SENDFLOW_HOST:-http://localhost:30001}
application=${SENDFLOW_APPLICATION:-boutique}
trace=${SENDFLOW_TRACE:-$root/sendFlow/random-100max.req}
workers=${SENDFLOW_WORKERS:-0}
passes=${SENDFLOW_PASSES:-0}
output=${SENDFLOW_OUTPUT:-$root/runs/locust}
port=${SENDFLOW_MASTER_PORT:-5557}
stop_timeout=10 # seconds that a user has to finish its task, so that no request is cut off
grace=30        # seconds that Locust has to end after a signal

fail() {
    echo "sendLoop.sh: $*" >&2
    exit 2
}

while [ $# -gt 0 ]; do
    case $1 in
        -h | --help) usage; exit 0 ;;
        --) shift; break ;;
        --host | --application | --trace | --workers | --passes | --scale | --period | --output | --master-port)
            [ $# -ge 2 ] || fail "$1: a value is missing"
            case $1 in
                --host) host=$2 ;;
                --application) application=$2 ;;
                --trace) trace=$2 ;;
                --workers) workers=$2 ;;
                --passes) passes=$2 ;;
                --scale) SENDFLOW_SCALE=$2; export SENDFLOW_SCALE ;;
                --period) SENDFLOW_PERIOD=$2; export SENDFLOW_PERIOD ;;
                --output) output=$2 ;;
                --master-port) port=$2 ;;
            esac
            shift 2 ;;
        *) usage >&2; fail "unknown argument $1" ;;
    esac
done

case $application in
    train_ticket) locustfile=load_generator_train.py ;;
    boutique | boutique_real | bookinfo | *.yaml | *.yml) locustfile=load_generator.py ;;
    *) fail "--application $application: expected boutique, boutique_real, bookinfo or train_ticket" ;;
esac

# Refuse what is no integer within bounds: option, value, least, most (at most nine digits).
whole() {
    case $2 in
        '' | *[!0-9]* | ??????????*) fail "$1: expected an integer from $3 to $4, found '$2'" ;;
    esac
    if [ "$2" -lt "$3" ] || [ "$2" -gt "$4" ]; then
        fail "$1: expected an integer from $3 to $4, found '$2'"
    fi
}
whole --workers "$workers" 0 1000
whole --passes "$passes" 0 999999999
whole --master-port "$port" 1 65535
case $host in
    *[![:graph:]]*) fail "--host '$host': expected a URL such as http://localhost:30001" ;;
    http://[!/:?#]* | https://[!/:?#]*) ;;
    *) fail "--host '$host': expected a URL such as http://localhost:30001" ;;
esac
[ -r "$trace" ] || fail "--trace $trace: no such file; make it with: python sendFlow/make_trace.py"
if [ -x "$root/.venv/bin/locust" ]; then
    locust=$root/.venv/bin/locust
else
    locust=$(command -v locust) || fail "no locust in .venv/bin or on PATH: make install"
fi
mkdir -p "$output" || exit 1
SENDFLOW_APPLICATION=$application SENDFLOW_TRACE=$trace
export SENDFLOW_APPLICATION SENDFLOW_TRACE

leader=
followers=

# Ask a process to end, wait for it, and kill it after the grace time.
end() {
    kill -TERM "$1" 2>/dev/null
    waited=0
    while kill -0 "$1" 2>/dev/null; do
        [ "$waited" -lt "$grace" ] || kill -KILL "$1" 2>/dev/null
        sleep 1
        waited=$((waited + 1))
    done
}

end_all() {
    [ -z "$leader" ] || end "$leader" # first: it collects what its workers counted
    for follower in $followers; do
        end "$follower"
    done
}

stop() {
    trap '' INT TERM HUP
    end_all
    echo "sendLoop.sh: stopped"
    exit 0
}
trap stop INT TERM HUP

# Background jobs of a script ignore Ctrl-C, so that only this script decides when Locust ends.
pass=0
while [ "$passes" -eq 0 ] || [ "$pass" -lt "$passes" ]; do
    pass=$((pass + 1))
    name=$(date -u +%Y%m%dT%H%M%SZ)-$(basename "$application" .yaml)
    [ ! -e "$output/${name}_stats.csv" ] || name=$name-$pass
    echo "sendLoop.sh: pass $pass: $application at $host, $trace -> $output/${name}_stats.csv"
    roles=
    followers=
    if [ "$workers" -gt 0 ]; then
        roles="--master --master-bind-host 127.0.0.1 --master-bind-port $port --expect-workers $workers"
    fi
    # shellcheck disable=SC2086
    "$locust" -f "$root/sendFlow/$locustfile" --headless --host "$host" --stop-timeout "$stop_timeout" --loglevel WARNING \
        --only-summary --csv "$output/$name" $roles "$@" </dev/null &
    leader=$!
    number=0
    while [ "$number" -lt "$workers" ]; do
        number=$((number + 1))
        "$locust" -f "$root/sendFlow/$locustfile" --worker --master-host 127.0.0.1 --master-port "$port" --loglevel WARNING "$@" </dev/null &
        followers="$followers $!"
    done
    wait "$leader"
    status=$?
    leader=
    # 0: all well; 1: some requests failed, which the CSV says
    if [ "$status" -gt 1 ] || [ ! -s "$output/${name}_stats.csv" ]; then
        end_all
        fail "locust ended with status $status: see its message above"
    fi
    for follower in $followers; do
        wait "$follower"
    done
    followers=
done
