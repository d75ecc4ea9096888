#!/usr/bin/env bash
# Whether `switchboard bench` finds what the yardstick finds: both in turn on the same broker, on core 0, each with its
# client on core 1; the figures that both have, and their ratio.
#   agree.sh FILE [ROUNDS]     JSON lines are appended to FILE
# LENGTH is the seconds of a measured phase (default 3).
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
home=${YARDSTICK_HOME:-$HOME/.cache/yardstick}
switchboard=${CARGO_TARGET_DIR:-$here/../target}/dist/switchboard
file=$1
rounds=${2:-3}
length=${LENGTH:-3}
# Two measurements at once spoil each other: the second waits.
mkdir -p "$home"
exec 9>"$home/lock"
flock 9
YARDSTICK_RUN=$(mktemp -d)
export YARDSTICK_RUN
trap '"$here/yardstick/peers.sh" stop; rm -rf "$YARDSTICK_RUN"' EXIT

# bench WORKLOAD [OPTIONS]: a line that says which tool it is of.
bench() {
  taskset -c 1 "$switchboard" bench "$@" --seconds "$length" --url "$url" --pid "${server##*pid=}" --json >>"$file"
}

for _ in $(seq "$rounds"); do
  for workload in fanout request; do
    "$here/yardstick/peers.sh" stop
    server=$("$here/yardstick/peers.sh" start switchboard 9>&-)
    url=${server#*=}
    url=${url%,pid=*}
    "$home/target/release/yardstick" compare --workload "$workload" --runs 1 --seconds "$length" --server "$server" \
      >>"$file" 2>/dev/null
    bench "$workload"
    [ "$workload" = request ] || bench "$workload" --rate 20
  done
done

python3 - "$file" <<'EOF'
import json, statistics, sys

figures = {}
for line in map(json.loads, open(sys.argv[1])):
    if "figures" in line:
        found = {("yardstick", name): value for name, value in line["figures"].items()}
    else:
        paced = line["rate"] > 0
        found = {("bench", ("paced_" if paced else "") + "cpu_s_per_million"): line["cpu_s_per_million"]}
        if paced or line["workload"] == "request":
            found |= {("bench", f"{name}_us"): value for name, value in line["latency_us"].items()}
        if not paced:
            name = "round_trips_per_s" if line["workload"] == "request" else "deliveries_per_s"
            found["bench", name] = line["messages_per_s"]
    for (tool, name), value in found.items():
        figures.setdefault((line["workload"], name), {}).setdefault(tool, []).append(value)

print(f"{'':<34}{'yardstick':>14}{'bench':>14}{'ratio':>8}")
for (workload, name), by_tool in figures.items():
    if len(by_tool) == 2:
        theirs, ours = (statistics.median(by_tool[tool]) for tool in ("yardstick", "bench"))
        print(f"{workload + ' ' + name:<34}{theirs:>14.3f}{ours:>14.3f}{ours / theirs:>8.2f}")
EOF
