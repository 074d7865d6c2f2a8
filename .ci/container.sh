#!/usr/bin/env bash
# container.sh TARGET: builds the image and runs it as strictly as it promises to run, alone and with volumes. Needs the
# environment that containers.sh makes. TARGET, this machine's target folder, spares the second build of candle.
set -euo pipefail

target=$1
image=sconce:ci
name=sconce-ci-$$
# Below the ports that systems give to outgoing connections.
port=$((20000 + $$ % 12000))
while (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do port=$((port + 1)); done
url=http://127.0.0.1:$port
volumes=("$name-data" "$name-cache" "$name-models")
cleanup() {
  podman rm -f -t 0 "$name" >/dev/null 2>&1 || true
  podman volume rm -f "${volumes[@]}" >/dev/null 2>&1 || true
}
trap cleanup EXIT

fail() {
  echo "container: $*" >&2
  podman logs "$name" >&2 || true
  exit 1
}

# What was compiled here runs there only if both have the same C library.
warm=()
if grep -q '^VERSION_CODENAME=bookworm' /etc/os-release; then
  registry=${CARGO_HOME:-$HOME/.cargo}/registry
  mkdir -p "$target" "$registry"
  warm=(-v "$target:/host-target" -v "$registry:$registry" --build-arg CARGO_TARGET_DIR=/host-target)
fi
buildah bud --isolation chroot --pull-never --layers --format docker "${warm[@]}" -t "$image" .

bytes=$(podman image inspect --format '{{.Size}}' "$image")
echo "measured: image of $(awk -v b="$bytes" 'BEGIN { printf "%.1f", b / 1e6 }') MB"
user=$(podman image inspect --format '{{.Config.User}}' "$image")
[[ $user == 65532:65532 ]] || fail "the image's user is '$user'"

# start PODMAN'S ARGUMENTS…: runs the image and waits until it is ready. Nothing but volumes can be written: no /tmp either.
start() {
  podman run -d --name "$name" --network host --read-only --read-only-tmpfs=false --cap-drop=all \
    --security-opt no-new-privileges --cpus 1 -e SCONCE__HTTP__LISTEN="127.0.0.1:$port" \
    -e SCONCE__ADMIN__ADDRESS= -e SCONCE__HTTP__DRAIN_DELAY_MS=200 "$@" "$image"
  for _ in $(seq 300); do
    curl -fs -o /dev/null "$url/health/ready" && return
    [[ $(podman inspect --format '{{.State.Running}}' "$name") == true ]] || fail "it ended"
    sleep 0.1
  done
  fail "it is not ready"
}

# Stops it as Kubernetes and Compose do, and removes the container.
stop() {
  podman stop -t 20 "$name" >/dev/null
  local code
  code=$(podman inspect --format '{{.State.ExitCode}}' "$name")
  [[ $code == 0 ]] || fail "SIGTERM: exit code $code"
  podman rm "$name" >/dev/null
}

# ask PART curl's arguments…: the answer must hold the part.
ask() {
  local part=$1 answer && shift
  answer=$(curl -sS "$@") || fail "curl $* failed"
  grep -qF "$part" <<<"$answer" || fail "'$part' is not in the answer to curl $*: $answer"
}

start --memory 256m
answer=$(curl -fsS --data-binary @examples/digit.png -H 'content-type: image/png' "$url/v1/predict") || fail "no answer"
grep -q '"label":"7"' <<<"${answer//\": \"/\":\"}" || fail "not a 7: $answer"
podman healthcheck run "$name" || fail "podman healthcheck run"
uid=$(awk '/^Uid:/ {print $2}' "/proc/$(podman inspect --format '{{.State.Pid}}' "$name")/status")
[[ $uid == 65532 ]] || fail "it runs as user $uid"
stop

for volume in data:/data cache:/cache models:/models; do
  grep -q "^ *- $volume\$" deploy/compose.yaml || fail "deploy/compose.yaml has no volume $volume"
done

# With volumes, as deploy/compose.yaml has them too: what the image holds at /models is in its volume at the start.
with_volumes() {
  start --memory 512m -v "${volumes[0]}:/data" -v "${volumes[1]}:/cache" -v "${volumes[2]}:/models" "$@"
}
# The sample of the test set serves as a dataset here: part to learn from, part to be judged on.
work=$(mktemp -d)
trap 'rm -rf "$work"; cleanup' EXIT
for file in images labels; do gunzip -c tests/fixtures/mnist/t10k-$file-*.gz >"$work/$file"; done
mkdir "$work/mnist"
# A number as four bytes, the largest first.
be32() {
  # shellcheck disable=SC2059
  printf "$(printf '\\%03o' $(($1 >> 24 & 255)) $(($1 >> 16 & 255)) $(($1 >> 8 & 255)) $(($1 & 255)))"
}
# piece FILE FROM BYTES
piece() {
  dd if="$work/$1" iflag=skip_bytes,count_bytes skip="$2" count="$3" bs=64K status=none
}
# part NAME FROM COUNT: these images in idx files.
part() {
  { printf '\0\0\010\003' && be32 "$3" && be32 28 && be32 28 && piece images $((16 + 784 * $2)) $((784 * $3)); } \
    >"$work/mnist/$1-images-idx3-ubyte"
  { printf '\0\0\010\001' && be32 "$3" && piece labels $((8 + $2)) "$3"; } >"$work/mnist/$1-labels-idx1-ubyte"
}
part train 0 600
part t10k 600 400
chmod 755 "$work" "$work/mnist" && chmod 644 "$work"/mnist/*

# The folder of the host behind a volume.
place() {
  podman volume inspect --format '{{.Mountpoint}}' "$1"
}
json='content-type: application/json'
with_volumes -v "$work/mnist:/data/datasets/mnist:ro" -e SCONCE__STORE__SAMPLING_RATE=1
for volume in "${volumes[@]}"; do
  owner=$(stat -c %u "$(place "$volume")")
  [[ $owner == 65532 ]] || fail "the volume $volume is user $owner's"
done
ask '"label":"7"' -H 'x-request-id: scan-1' -H 'content-type: image/png' --data-binary @examples/digit.png "$url/v1/predict"
ask '"outcome":"accepted"' -H "$json" "$url/v1/feedback" -d '{"id": "scan-1", "label": "7", "source": "ci"}'
ask '"id":1' -H "$json" "$url/v1/retrain" \
  -d '{"model": "mnist", "dataset": "mnist", "feedback": false, "epochs": 1, "promote": false}'
curl -sS -N --max-time 600 -o /dev/null "$url/v1/retrain/1/events" || fail "the job has no end"
# Four hundred images prove nothing, which is a verdict.
ask '"state":"refused"' "$url/v1/retrain/1"
ask '"blessed": false' "$url/v1/models/mnist/versions/2/card"
stop

with_volumes
ask '"accepted":1' "$url/v1/feedback/summary?model=mnist"
ask '"state":"refused"' "$url/v1/retrain/1"
ask '"blessed": false' "$url/v1/models/mnist/versions/2/card"
# The challenger serves beside the champion.
ask '"versions":[1,2]' "$url/v1/models/mnist"
podman run --rm --network none --read-only --read-only-tmpfs=false --cap-drop=all -v "${volumes[1]}:/cache" "$image" \
  doctor --seconds 1 >/dev/null || fail "doctor"
[[ -n $(ls "$(place "${volumes[1]}")") ]] || fail "doctor kept nothing"
stop
echo "container: all as promised"
