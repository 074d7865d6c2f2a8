#!/usr/bin/env bash
# cuda.sh SCONCE FOLDER: what a program with CUDA, linked with shims, says where CUDA's libraries are missing. Then builds the
# stand-in for them in FOLDER/driver.
set -euo pipefail

sconce=$1 driver=$2/driver
work=$(mktemp -d)
server=''
cleanup() {
  [[ -z $server ]] || kill -KILL "$server" 2>/dev/null || true
  rm -rf "$work"
}
trap cleanup EXIT

fail() {
  echo "cuda: $*" >&2
  cat "$work"/* >&2
  exit 1
}

# --- a GPU that is asked for is an error with what is missing, before anything is computed

for command in "predict examples/digit.png" "serve --listen 127.0.0.1:0 --admin 127.0.0.1:0"; do
  status=0
  # shellcheck disable=SC2086
  SCONCE__ENGINE__DEVICE=cuda:0 timeout 60 "$sconce" $command >"$work/out" 2>"$work/error" || status=$?
  ((status != 0 && status < 100)) || fail "$command without CUDA's libraries exits $status"
  for part in "device cuda:0" "libcuda.so.1 (NVIDIA's driver)" cuBLAS cuDNN LD_LIBRARY_PATH; do
    tail -n 1 "$work/error" | grep -qF "$part" || fail "$command does not say '$part'"
  done
done

# --- auto is the CPU, and says why

SCONCE__ENGINE__DEVICE=auto "$sconce" predict --json examples/digit.png | grep -q '"7"' || fail "auto sees no 7"
SCONCE__ENGINE__DEVICE=auto SCONCE__ENGINE__PRECISION=f16 SCONCE__HTTP__DRAIN_DELAY_MS=0 SCONCE__LOG__FORMAT=json \
  "$sconce" serve --listen 127.0.0.1:0 --admin 127.0.0.1:0 >"$work/out" 2>"$work/log" &
server=$!
for _ in {1..300}; do
  ! grep -q '"message":"ready"' "$work/log" || break
  kill -0 "$server" 2>/dev/null || fail "the server ended"
  sleep 0.2
done
grep '"message":"serving on the CPU"' "$work/log" | grep -qF libcuda.so.1 || fail "no reason why the CPU serves"
grep '"level":"WARN"' "$work/log" | grep -qF engine.precision || fail "no warning that f16 is given up"
kill -TERM "$server"
wait "$server" || fail "the server exits $?"
server=''

# --- a stand-in

mkdir -p "$driver"
cc -O1 -Wall -Wextra -Werror -shared -fPIC -o "$driver/libcuda.so.1" .ci/fake-driver.c
# Not links: a program is told what it has loaded by the name of the file.
for library in libcublas.so.13 libcurand.so.10 libcudnn.so.9; do
  cp "$driver/libcuda.so.1" "$driver/$library"
done
status=0
LD_LIBRARY_PATH=$driver SCONCE__ENGINE__DEVICE=cuda:1 "$sconce" predict examples/digit.png >"$work/out" 2>"$work/error" || status=$?
((status == 64)) || fail "a GPU that is not there exits $status, not 64"
grep -qF 'device cuda:1: no such GPU' "$work/error" || fail "a GPU that is not there is not told"
