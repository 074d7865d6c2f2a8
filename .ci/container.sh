#!/usr/bin/env bash
# container.sh TARGET: builds the image and runs it as strictly as it promises to run. Needs the environment that
# containers.sh makes. TARGET, this machine's target folder, spares the second build of candle.
set -euo pipefail

target=$1
image=sconce:ci
name=sconce-ci-$$
# Below the ports that systems give to outgoing connections.
port=$((20000 + $$ % 12000))
while (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do port=$((port + 1)); done
url=http://127.0.0.1:$port
cleanup() {
  podman rm -f -t 0 "$name" >/dev/null 2>&1 || true
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

podman run -d --name "$name" --network host --read-only --cap-drop=all --security-opt no-new-privileges \
  --memory 256m --cpus 1 -e SCONCE__HTTP__LISTEN="127.0.0.1:$port" -e SCONCE__HTTP__DRAIN_DELAY_MS=200 "$image"
for _ in $(seq 300); do
  curl -fs -o /dev/null "$url/health/ready" && break
  [[ $(podman inspect --format '{{.State.Running}}' "$name") == true ]] || fail "it ended"
  sleep 0.1
done

answer=$(curl -fsS --data-binary @examples/digit.png -H 'content-type: image/png' "$url/v1/predict") || fail "no answer"
grep -q '"label":"7"' <<<"${answer//\": \"/\":\"}" || fail "not a 7: $answer"
podman healthcheck run "$name" || fail "podman healthcheck run"
uid=$(awk '/^Uid:/ {print $2}' "/proc/$(podman inspect --format '{{.State.Pid}}' "$name")/status")
[[ $uid == 65532 ]] || fail "it runs as user $uid"

podman stop -t 20 "$name" >/dev/null
code=$(podman inspect --format '{{.State.ExitCode}}' "$name")
[[ $code == 0 ]] || fail "SIGTERM: exit code $code"
echo "container: all as promised"
