#!/usr/bin/env bash
# Runs a command with a Docker Engine of its own and images made of Debian's packages:
#
#   sudo tests/containers/engine.sh make containers
#
# For a Debian machine that has no engine, or that reaches no registry of images. It needs root, 4 GB of disk and about a
# quarter of an hour the first time. Everything is kept in $ENGINE_DIRECTORY (default /var/tmp/token-worker-engine).
# Where Docker runs and reaches a registry, `make containers` alone does the same with the official images.
set -euo pipefail

here="$(cd "$(dirname "$0")" && pwd)"
root="$(cd "$here/../.." && pwd)"
directory="${ENGINE_DIRECTORY:-/var/tmp/token-worker-engine}"
namespace=token-worker-engine
export DOCKER_HOST="unix://$directory/engine.sock" DOCKER_BUILDKIT=0
[ $# -gt 0 ] || { sed -n '2,10s/^# \{0,1\}//p' "$0"; exit 2; }
[ "$(id -u)" = 0 ] || { echo "Run it as root, for example with sudo." >&2; exit 1; }
mkdir -p "$directory"

install_packages() {
  command -v dockerd debootstrap >/dev/null 2>&1 && [ -x /usr/sbin/dockerd ] && [ -x /usr/sbin/debootstrap ] && return
  # Nothing is started as a service.
  DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends \
    docker.io containerd runc iptables iproute2 util-linux debootstrap
}

mirror() { # the one that this machine uses
  grep -rhoE 'https?://[^ ]+/debian/?( |$)' /etc/apt/sources.list /etc/apt/sources.list.d 2>/dev/null | head -1 | tr -d ' '
}

make_root() { # name, suite, packages
  [ -e "$directory/$1.done" ] && return
  rm -rf "${directory:?}/$1"
  local script=()
  [ -e "/usr/share/debootstrap/scripts/$2" ] || script=(/usr/share/debootstrap/scripts/sid)
  debootstrap --variant=minbase --include="$3" "$2" "$directory/$1" "$(mirror)" "${script[@]}" \
    >"$directory/$1.log"
  touch "$directory/$1.done"
}

start_engine() { # command prefix, options
  local prefix=$1
  shift
  # --oom-score-adjust 0 for machines on which root may not lower it.
  $prefix dockerd --data-root "$directory/data" --exec-root "$directory/exec" --pidfile "$directory/engine.pid" \
    --host "$DOCKER_HOST" --oom-score-adjust 0 --storage-driver overlay2 "$@" >"$directory/engine.log" 2>&1 &
  engine=$!
  for _ in $(seq 150); do
    docker info >/dev/null 2>&1 && return
    kill -0 $engine 2>/dev/null || break
    sleep 0.2
  done
  tail -5 "$directory/engine.log" >&2
  exit 1
}

stop_engine() {
  kill "$engine" 2>/dev/null && wait "$engine" 2>/dev/null || true
}

import_image() { # root, tag
  docker image inspect "base:$1" >/dev/null 2>&1 ||
    tar --one-file-system -C "$directory/$1" --exclude=./var/cache/apt --exclude=./var/lib/apt/lists -c . |
    docker import - "base:$1" >/dev/null
}

build_images() {
  import_image python
  import_image stores
  local context="$directory/context"
  rm -rf "$context"
  cp -r "$here/stand_ins" "$context"
  cp /etc/ssl/certs/ca-certificates.crt "$context/" # those by which this machine reaches the package index
  docker build -q -t python:3.13-slim -f "$context/python.Dockerfile" "$context"
  docker build -q -t postgres:18 -t valkey/valkey:9 -f "$context/stores.Dockerfile" "$context"
  docker build -q --network=host -t token-refresh-worker --target production "$root"
  docker build -q --network=host -t token-refresh-worker-dev --target dev "$root"
}

install_packages
make_root python trixie python3,python3-venv,python3-pip,ca-certificates
make_root stores forky postgresql-18,valkey-server,valkey-tools

engine=
trap stop_engine EXIT
# First in the machine's network, because the build needs the package index, then in a namespace, so that the containers'
# networks and published ports stay apart from the machine's.
start_engine "" --bridge=none --iptables=false
build_images
stop_engine
ip netns add "$namespace" 2>/dev/null || true
nsenter --net="/run/netns/$namespace" ip link set lo up
start_engine "nsenter --net=/run/netns/$namespace"
PREBUILT=1 nsenter --net="/run/netns/$namespace" "$@"
