#!/usr/bin/env bash
# What a second thread costs: the CPU of a delivery with the broker on one core (the scheduler of one thread), on two
# cores with one worker, and on two with two, in one run of the yardstick. Its client is wherever the system puts it, so
# it shares the two cores.
#   scale-up.sh FILE [ROUNDS]     JSON lines are appended to FILE; ratios are to one thread
# WORKLOADS chooses some workloads, LENGTH is the seconds of a measured phase (default 3).
# COUNTS=FOLDER counts system calls there, with `perf` and as root: who finds a lock taken waits by futex, and so does a
# worker that has nothing to do; a writev takes all that a session has to be sent.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)/yardstick
home=${YARDSTICK_HOME:-$HOME/.cache/yardstick}
yardstick=$home/target/release/yardstick
file=$1
rounds=${2:-3}
length=${LENGTH:-3}
# Two measurements at once spoil each other: the second waits.
mkdir -p "$home"
exec 9>"$home/lock"
flock 9
run=$(mktemp -d)
stop() {
  for name in one worker two; do
    YARDSTICK_RUN=$run/$name "$here/peers.sh" stop
  done
}
trap 'stop; rm -rf "$run"' EXIT

# start NAME CORES: prints the --server value.
start() {
  YARDSTICK_RUN=$run/$1 SERVER_CORE=$2 "$here/peers.sh" start switchboard 9>&- | sed "s/^switchboard=/$1:switchboard=/"
}

count() {
  mkdir -p "$COUNTS"
  perf stat -x, -p "${2##*pid=}" -o "$COUNTS/$workload.$1.csv" --append -e context-switches,cpu-migrations \
    -e syscalls:sys_enter_futex,syscalls:sys_enter_writev,syscalls:sys_enter_sendto,syscalls:sys_enter_recvfrom \
    -e syscalls:sys_enter_epoll_wait,syscalls:sys_enter_write 9>&- &
}

for _ in $(seq "$rounds"); do
  for workload in ${WORKLOADS:-fanout pairs request}; do
    stop
    one=$(start one 0)
    worker=$(TOKIO_WORKER_THREADS=1 start worker 0,1)
    two=$(start two 0,1)
    if [ -n "${COUNTS:-}" ]; then
      count one "$one"
      count worker "$worker"
      count two "$two"
    fi
    # A failed run has its line in FILE; the others go on.
    "$yardstick" compare --workload "$workload" --runs 1 --no-pin --seconds "$length" \
      --server "$one" --server "$worker" --server "$two" >>"$file" 2>/dev/null || true
  done
done
stop
wait
"$yardstick" summary <"$file"

[ -z "${COUNTS:-}" ] || python3 - "$file" "$COUNTS" "$length" <<'EOF'
import json, pathlib, statistics, sys

runs = {}
for line in map(json.loads, open(sys.argv[1])):
    if figures := line.get("figures"):
        runs.setdefault((line["workload"], line["server"]), []).append(figures)
print(f"\n{'full speed, median':<24}{'futex a million':>18}{'deliveries a writev':>22}")
for (workload, server), figures in runs.items():
    counts = []
    for line in pathlib.Path(sys.argv[2], f"{workload}.{server}.csv").read_text().splitlines():
        if line.startswith("#"):
            counts.append({})
        elif line:
            value, _, name = line.split(",")[:3]
            counts[-1][name.removeprefix("syscalls:sys_enter_")] = int(value)
    # With the second to warm up.
    millions = [(run.get("deliveries_per_s") or run["round_trips_per_s"]) * (float(sys.argv[3]) + 1) / 1e6 for run in figures]
    both = list(zip(millions, counts))
    futex = statistics.median(count["futex"] / million for million, count in both)
    writes = statistics.median(1e6 * million / count["writev"] for million, count in both)
    print(f"{workload + ' ' + server:<24}{futex:>18.0f}{writes:>22.1f}")
EOF
