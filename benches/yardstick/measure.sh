#!/usr/bin/env bash
# Measures every workload over peers that are started afresh for each, and prints the tables.
#   measure.sh FILE ROUNDS PEER...     JSON lines are appended to FILE; ratios are to the first peer
# WORKLOADS chooses some workloads, COMPARE adds options of `yardstick compare`, such as "--seconds 2".
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
home=${YARDSTICK_HOME:-$HOME/.cache/yardstick}
yardstick=$home/target/release/yardstick
file=$1
rounds=$2
shift 2
# Two measurements at once spoil each other: the second waits.
mkdir -p "$home"
exec 9>"$home/lock"
flock 9
YARDSTICK_RUN=$(mktemp -d)
export YARDSTICK_RUN
trap '"$here/peers.sh" stop; rm -rf "$YARDSTICK_RUN"' EXIT

for _ in $(seq "$rounds"); do
  for workload in ${WORKLOADS:-idle fanout pairs request wide slow}; do
    "$here/peers.sh" stop
    mapfile -t servers < <("$here/peers.sh" start "$@" 9>&-)
    # A failed run has its line in FILE; the others go on.
    # shellcheck disable=SC2086
    "$yardstick" compare --workload "$workload" --runs 1 ${COMPARE:-} "${servers[@]/#/--server=}" \
      >>"$file" 2>/dev/null || true
  done
done
"$yardstick" summary <"$file"
