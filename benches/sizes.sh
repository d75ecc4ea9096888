#!/usr/bin/env bash
# Messages small and large, beside nats-server: deliveries and bytes a second, and the server's CPU, at full speed.
#   sizes.sh FILE [ROUNDS]     JSON lines are appended to FILE
# SIZES chooses some, in bytes of payload; the last of the default makes an envelope of 1 MiB, which is the most that
# either takes. The yardstick's payloads are 47 bytes at least: those of 16 are benches/small's.
# LENGTH is the seconds of a measured phase (default 3).
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
home=${YARDSTICK_HOME:-$HOME/.cache/yardstick}
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

cargo bench --quiet --locked --manifest-path "$here/../Cargo.toml" --bench small --no-run

# start: fresh servers, in `servers`.
start() {
  "$here/yardstick/peers.sh" stop
  mapfile -t servers < <("$here/yardstick/peers.sh" start switchboard nats 9>&-)
}

# A failed run has its line in FILE, or none; the others go on.
for round in $(seq "$rounds"); do
  for size in ${SIZES:-16 256 4096 65536 1048400}; do
    if [ "$size" -lt 47 ]; then
      start
      taskset -c 1 cargo bench --quiet --locked --manifest-path "$here/../Cargo.toml" --bench small -- \
        "$length" "$round" "${servers[@]}" >>"$file" || true
      continue
    fi
    for workload in fanout pairs; do
      start
      # Fewer receivers and fewer messages on the way where they are large: they stay under half of a queue.
      clients=100 window=16
      [ "$workload" = pairs ] || [ "$size" -gt 4096 ] || { clients=1000 window=64; }
      [ "$size" -le 65536 ] || { clients=10 window=2; }
      "$home/target/release/yardstick" compare --workload "$workload" --runs 1 --rate 0 --size "$size" \
        --clients "$clients" --window "$window" --seconds "$length" "${servers[@]/#/--server=}" 2>/dev/null |
        sed "s/^{/{\"size\":$size,/" >>"$file" || true
    done
  done
done

python3 - "$file" <<'EOF'
import json, statistics, sys

runs = {}
for line in map(json.loads, open(sys.argv[1])):
    for name, value in line.get("figures", {}).items():
        runs.setdefault((line["workload"], line["size"]), {}).setdefault((line["server"], name), []).append(value)
    if "error" in line:
        print("failed:", line)
unit = {1048400: "1 MiB"} | {size: f"{size >> 10} KiB" for size in (4096, 65536)}
print("| | payload | deliveries/s | nats | MB/s | nats | CPU s a million | nats | ratio |")
print("|---|---|---|---|---|---|---|---|---|")
for (workload, size), figures in sorted(runs.items()):
    def median(server, name):
        return statistics.median(figures.get((server, name), [float("nan")]))
    cells = [workload, unit.get(size, f"{size} B")]
    speeds = [median(server, "deliveries_per_s") for server in ("switchboard", "nats")]
    cells += [f"{speed:,.0f}" for speed in speeds] + [f"{speed * size / 1e6:,.0f}" for speed in speeds]
    ours, theirs = (median(server, "cpu_s_per_million") for server in ("switchboard", "nats"))
    cells += [f"{ours:.3g}", f"{theirs:.3g}", f"{ours / theirs:.2f}"]
    print("| " + " | ".join(cells) + " |")
EOF
