# shellcheck shell=bash disable=SC2034,SC2119,SC2154
# Starts servers for the scripts beside it, which source it. They have a directory `work`, a function `fail`, and stop what
# stands in `started` when they end.

started=()
# What is started as Redis, and its first arguments.
redis_server=(redis-server)

# start NAME WORDS PROGRAM...: starts a program and waits until its log, $work/NAME.log, has the words. Its process id is
# the last one of `started`.
start() {
    local name=$1 words=$2 process
    shift 2
    : >"$work/$name.log"
    "$@" >"$work/$name.log" 2>&1 &
    process=$!
    started+=("$process")
    # A debug build of nchf provisions a thousand subscribers before it listens.
    for _ in {1..600}; do
        grep -q "$words" "$work/$name.log" && return
        kill -0 "$process" 2>/dev/null || break
        sleep 0.1
    done
    return 1
}

# stop PROCESS...: waits until they have ended.
stop() {
    local process
    for process in "$@"; do kill "$process" 2>/dev/null || true; done
    for process in "$@"; do wait "$process" 2>/dev/null || true; done
}

# A port that is free now. Whoever takes it first makes the start fail, which is then tried with another one.
port() {
    local port
    while port=$((RANDOM % 20000 + 12000)); (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do :; done
    echo "$port"
}

# start_redis ARGUMENT...: sets REDIS, the store that it is.
start_redis() {
    local port
    mkdir -p "$work/redis"
    for _ in {1..5}; do
        port=$(port)
        REDIS=redis://127.0.0.1:$port
        start redis 'Ready to accept connections' "${redis_server[@]}" --bind 127.0.0.1 --port "$port" --dir "$work/redis" \
            --save '' --appendonly no "$@" && return
    done
    cat "$work/redis.log" >&2
    fail "${redis_server[*]} does not start"
}

# start_floor NAME PROGRAM STORE ARGUMENT...: on a port that the system chooses. Sets FLOOR, its base URL.
start_floor() {
    local name=$1 program=$2 store=$3
    shift 3
    start "$name" 'nchf: the floor on' "$program" bench --floor --listen 127.0.0.1:0 --store "$store" "$@" || {
        cat "$work/$name.log" >&2
        fail "the floor does not start"
    }
    FLOOR=$(sed -n 's/^nchf: the floor on //p' "$work/$name.log")
}

# start_nchf NAME PROGRAM STORE ARGUMENT...: with the demo data, on ports that the system chooses. Sets NCHF and ADMIN, the
# base URLs of both sides, and NCHF_PID.
start_nchf() {
    local name=$1 program store=$3
    program=$(realpath "$2")
    shift 3
    mkdir -p "$work/$name"
    # In a directory of its own, for whatever it writes beside its store.
    start "$name" "operator's side on" env -C "$work/$name" "$program" serve --demo --store "$store" \
        --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0 "$@" || {
        cat "$work/$name.log" >&2
        fail "nchf does not start on the store $store"
    }
    NCHF_PID=${started[-1]}
    NCHF=$(sed -n 's/^nchf: charging on //p' "$work/$name.log")
    ADMIN=$(sed -n "s|^nchf: operator's side on \(.*\)/docs$|\1|p" "$work/$name.log")
}
