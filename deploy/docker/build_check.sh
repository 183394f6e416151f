#!/usr/bin/env bash
# Builds the images with buildah, without a Docker engine and without a registry, and tries what is in them.
#   build_check.sh [server] [trainer]     both, where none is named
# Needs Linux, root, buildah, debootstrap, Python with venv, and the package index that pip is set up for. The base image
# is made of Debian's packages, from MIRROR, under the name that the dockerfiles ask for. TORCH_INDEX is that of install.sh.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

[ $# -gt 0 ] || set -- server trainer
PYTHON=${PYTHON:-python3}
MIRROR=${MIRROR:-http://deb.debian.org/debian}
scratch=$(mktemp -d -p /var/tmp) # not /tmp, which may be in memory
driver=overlay
serving=

say() { echo "== $* ($SECONDS s)"; }
fail() {
  echo "build_check: $*" >&2
  exit 1
}
b() { buildah --storage-driver "$driver" --root "$scratch/storage" --runroot "$scratch/run" "$@"; }
megabytes() { du -sm "$1" | cut -f 1; }
clean_up() {
  [ -z "$serving" ] || kill "$serving" || true
  b rm --all >/dev/null || true
  umount "$scratch/storage/$driver" 2>/dev/null || true
  rm -rf --one-file-system "$scratch"
}
trap clean_up EXIT

# This machine's settings of pip in one file, and the local files that they name: lent to the build, in no layer of it.
lend_pip_settings() {
  "$PYTHON" -m venv "$scratch/pip"
  "$scratch/pip/bin/pip" config list | "$PYTHON" -c '
import ast, pathlib, sys

pairs = (line.rstrip("\n").split("=", 1) for line in sys.stdin)
settings = {name.rpartition(".")[2]: ast.literal_eval(value).split() for name, value in pairs}
lines = [name + " = " + "\n  ".join(values) for name, values in settings.items()]
pathlib.Path(sys.argv[1]).write_text("\n".join(["[global]", *lines, ""]))
words = {word for values in settings.values() for word in values}
indexes = {pathlib.Path(word.removeprefix("file://")).parent for word in words if word.startswith("file:///")}
files = {pathlib.Path(word) for word in words if word.startswith("/")}
print(*(path for path in sorted(indexes | files) if path.exists()), sep="\n")  # an index links to files beside it
' "$scratch/pip.conf" >"$scratch/lent"
  lent=(--secret "id=pip,src=$scratch/pip.conf")
  while read -r path; do [ -z "$path" ] || lent+=(--volume "$path:$path:ro"); done <"$scratch/lent"
}

make_base() {
  local container root
  container=$(b from scratch 2>/dev/null) || { driver=vfs && container=$(b from scratch); }
  root=$(b mount "$container")
  debootstrap --variant=minbase --include=ca-certificates,python3,python3-venv bookworm "$root" "$MIRROR" >"$scratch/log" ||
    fail "$(tail -n 5 "$scratch/log")"
  rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/*
  base=$(megabytes "$root")
  b config --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$container"
  b commit --quiet --rm "$container" "$1" >/dev/null
}

# Sets root, the files of the image, and user, environment, entrypoint and healthcheck, which it is run with.
build() {
  local container
  b bud --isolation chroot --pull-never --format docker "${lent[@]}" \
    ${TORCH_INDEX+--build-arg "TORCH_INDEX=$TORCH_INDEX"} -f "deploy/docker/$2" -t "$1" . >"$scratch/log" 2>&1 ||
    fail "$(tail -n 30 "$scratch/log")"
  container=$(b from --pull-never "$1")
  root=$(b mount "$container")
  b inspect "$container" >"$scratch/image.json"
  user=$(setting User)
  mapfile -t environment < <(setting Env)
  mapfile -t entrypoint < <(setting Entrypoint)
  mapfile -t healthcheck < <(setting Healthcheck Test)
  rm -rf "${scratch:?}/home"
  cp -a "$root/home/enzyme" "$scratch/home"
}

setting() {
  "$PYTHON" -c '
import functools, json, sys

found = functools.reduce(lambda found, name: (found or {}).get(name), sys.argv[2:], json.load(open(sys.argv[1]))["Docker"]["config"])
print(*([found] if isinstance(found, str) else found or ()), sep="\n")
' "$scratch/image.json" "$@"
}

# A command in the image: its user and environment, a read-only root, a home and a /tmp that can be written to.
inside() { (become "$@"); }
become() {
  # shellcheck disable=SC2016 # of the inner shell
  exec unshare --mount bash -euc '
    root=$1 home=$2 user=$3
    shift 3
    mount --bind "$root" "$root"
    mount --bind "$home" "$root/home/enzyme"
    mount --rbind /dev "$root/dev"
    mount -t proc proc "$root/proc"
    mount -t tmpfs tmpfs "$root/tmp"
    mount -o remount,bind,ro "$root"
    exec chroot --userspec="$user" "$root" env -i -C /home/enzyme "$@"
  ' inside "$root" "$scratch/home" "$user" "${environment[@]}" "$@"
}

look_around() {
  [ "$(inside id -u)" = 10001 ] || fail "$1 does not run as user 10001"
  ! inside touch /opt/venv/file 2>/dev/null || fail "the root of $1 is not read-only"
  ! inside sh -c 'command -v gcc cc g++ make' || fail "$1 has a compiler"
  ! find "$root"/opt "$root"/home "$root"/root -name pip -o -name pip.conf -o -name .cache | grep . || fail "$1 has pip, or its cache"
  sed -nE 's/^(index-url|extra-index-url|find-links|proxy) = |^  //p' "$scratch/pip.conf" >"$scratch/hosts"
  ! grep -rlFf "$scratch/hosts" "$root"/opt "$root"/home "$root"/root "$root"/etc "$scratch/image.json" ||
    fail "$1 names the package index it was built from"
  echo "$1: $(megabytes "$root") MB, of which the base $base MB and the environment $(megabytes "$root/opt/venv") MB"
}

predict_examples() {
  inside enzyme-stability predict - --strict "$@" <examples/enzymes.fasta >"$scratch/rows.csv"
  [ "$(wc -l <"$scratch/rows.csv")" = $(($(grep -c '>' examples/enzymes.fasta) + 1)) ] || fail "not every example is predicted"
}

try_server() {
  local port address waited=0
  port=$("$PYTHON" -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
  address=http://127.0.0.1:$port
  predict_examples
  become PORT="$port" "${entrypoint[@]}" 2>"$scratch/service" &
  serving=$!
  until inside PORT="$port" "${healthcheck[@]:1}" 2>"$scratch/log"; do
    kill -0 "$serving" 2>/dev/null || fail "$(cat "$scratch/service")"
    [ $((waited += 1)) -lt 60 ] || fail "$(cat "$scratch/log")"
    sleep 0.5
  done
  "$PYTHON" -c '
import json, sys, urllib.request

body = json.dumps({"records": [{"id": "example", "sequence": "MKVLAAGIVGLLLAQWERTYHG"}]}).encode()
asked = urllib.request.Request(sys.argv[1] + "/v1/predict", body, {"Content-Type": "application/json"})
(row,) = json.load(urllib.request.urlopen(asked, timeout=30))["predictions"]
print("a protein over HTTP:", row["tm_celsius"], "degC")
' "$address"
  kill "$serving"
  wait "$serving" || true # it ends by the same signal once it has cleared up
  serving=
  grep -q "Application shutdown complete" "$scratch/service" || fail "$(cat "$scratch/service")"
  ! inside PORT="$port" "${healthcheck[@]:1}" 2>/dev/null || fail "a service that has ended is called healthy"
}

try_trainer() {
  inside python3 -c 'import google.cloud.aiplatform, gcsfs, mlflow, optuna, tensorboard, torch, transformers, wandb'
  "$PYTHON" -c '
import random

choose = random.Random(0)
print("sequence,tm_celsius")
for _ in range(800):
    hot = choose.random()
    print("".join(choose.choices("AEILKRVYDGNQST", [1 + 2 * hot] * 8 + [3 - 2 * hot] * 6, k=120)), 40 + 40 * hot, sep=",")
' >"$scratch/home/learn.csv"
  inside "${entrypoint[@]}" encoder=composition head=mlp trainer.max_epochs=2 run_name=trial data.path=learn.csv 2>"$scratch/log" ||
    fail "$(cat "$scratch/log")"
  inside "${entrypoint[@]}" encoder=composition head=trees split=no_folds run_name=trees data.path=learn.csv 2>"$scratch/log" ||
    fail "$(cat "$scratch/log")"
  predict_examples --model outputs/trial
  predict_examples --model outputs/trees
}

lend_pip_settings
say "base image"
make_base "docker.io/library/$(sed -n 's/^ARG BASE=//p' deploy/docker/serve.dockerfile)"
for part in "$@"; do
  image=enzyme-stability-$part
  say "$image: build"
  case $part in
    server) build "$image" serve.dockerfile ;;
    trainer) build "$image" train.dockerfile ;;
    *) fail "$part is none of: server, trainer" ;;
  esac
  say "$image: try"
  look_around "$image"
  "try_$part"
done
say "the images can be built and do what they are for"
