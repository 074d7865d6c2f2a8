#!/usr/bin/env bash
# smoke.sh SCONCE: starts the program with the shipped models, asks it in every form, stops it.
set -euo pipefail

sconce=$1
work=$(mktemp -d)
server=''
cleanup() {
  [[ -z $server ]] || kill -KILL "$server" 2>/dev/null || true
  rm -rf "$work"
}
trap cleanup EXIT

fail() {
  echo "smoke: $*" >&2
  [[ ! -s $work/answer ]] || { echo "the answer:" && cat "$work/answer"; } >&2
  [[ ! -s $work/server.log ]] || { echo "the server's log:" && tail -n 20 "$work/server.log"; } >&2
  exit 1
}

# ask STATUS curl's arguments…: the body lies in $work/answer.
ask() {
  local expected=$1 status && shift
  status=$(curl -sS -o "$work/answer" -D "$work/head" -w '%{http_code}' "$@") || fail "curl $* failed"
  [[ $status == "$expected" ]] || fail "curl $*: status $status, not $expected"
}

# labels EXPECTED…: of the last answer's predictions, in order.
labels() {
  local found
  found=$(python3 -c 'import json,sys; print(*(p["label"] for p in json.load(sys.stdin)["predictions"]), sep="|")' \
    <"$work/answer") || fail "the answer has no predictions"
  [[ $found == "$(IFS='|' && echo "$*")" ]] || fail "labels $found, not $*"
}

problem() {
  grep -qi '^content-type: application/problem+json' "$work/head" || fail "no problem document"
  grep -qF "urn:sconce:problem:$1" "$work/answer" || fail "not the problem $1"
}

# --- without a server

"$sconce" --version
"$sconce" models list
"$sconce" models verify
"$sconce" config >"$work/config.toml"
"$sconce" openapi | cmp - openapi.yaml
"$sconce" predict examples/digit.png
"$sconce" predict --json examples/digit.png | grep -q '"7"' || fail "sconce predict does not see the 7"
"$sconce" predict --model fashion-mnist --json examples/boot.png | grep -q 'Ankle boot' || fail "sconce predict sees no boot"
for model in mnist fashion-mnist; do
  "$sconce" evaluate --model "$model" --data "tests/fixtures/$model"
done
status=0
"$sconce" serve --listen nowhere 2>"$work/usage" || status=$?
[[ $status == 64 ]] || fail "a wrong address exits $status, not 64"

# --- a server

SCONCE__HTTP__DRAIN_DELAY_MS=200 "$sconce" serve --listen 127.0.0.1:0 --admin 127.0.0.1:0 --models models >"$work/server.log" 2>&1 &
server=$!
url=''
for _ in $(seq 200); do
  url=$(grep -oE 'http://127\.0\.0\.1:[1-9][0-9]*' "$work/server.log" | head -n 1) || true
  [[ -n $url ]] && curl -fs -o "$work/answer" "$url/health/ready" && break
  kill -0 "$server" 2>/dev/null || fail "the server ended"
  sleep 0.1
done
ask 200 "$url/health/ready"

digit=examples/digit.png
png='content-type: image/png'
json='content-type: application/json'
b64=$(base64 -w0 "$digit")
zeros=$(python3 -c 'print([[0] * 28] * 28)')

ask 200 --data-binary "@$digit" -H "$png" "$url/v1/predict" && labels 7
grep -qi '^server-timing: ' "$work/head" || fail "no Server-Timing"
grep -qi '^x-request-id: ' "$work/head" || fail "no X-Request-Id"
ask 200 --data-binary "@$digit" -H "$png" "$url/v1/models/mnist/versions/1/predict?top_k=2" && labels 7
ask 200 --data-binary @examples/boot.png -H "$png" "$url/v1/models/fashion-mnist/predict" && labels 'Ankle boot'
ask 200 --data-binary @examples/boot.png -H "$png" "$url/v1/predict?model=fashion-mnist" && labels 'Ankle boot'
ask 200 --data-binary @examples/scan.jpg -H 'content-type: image/jpeg' "$url/v1/predict" && labels 4
ask 200 -F "image=@$digit" -F image=@examples/scan.jpg "$url/v1/predict" && labels 7 4
ask 200 -H "$json" -d "{\"image\": \"$b64\"}" "$url/v1/predict" && labels 7
ask 200 -H "$json" -d "{\"images\": [\"$b64\", \"$b64\"]}" "$url/v1/predict" && labels 7 7
ask 200 -H "$json" -d "{\"instances\": [{\"b64\": \"$b64\"}]}" "$url/v1/predict" && labels 7
ask 200 -H "$json" -d "{\"instances\": [$zeros]}" "$url/v1/predict"

ask 415 --data-binary 'not an image' -H "$png" "$url/v1/predict" && problem unsupported-media-type
head -c 120 "$digit" >"$work/cut.png"
ask 422 --data-binary "@$work/cut.png" -H "$png" "$url/v1/predict" && problem image-broken
head -c 40000000 /dev/zero >"$work/large"
ask 413 --data-binary "@$work/large" -H "$png" "$url/v1/predict" && problem body-too-large
ask 404 --data-binary "@$digit" -H "$png" "$url/v1/models/none/predict" && problem model-not-found
ask 405 "$url/v1/predict" && problem method-not-allowed
ask 404 "$url/nowhere" && problem not-found

ask 200 "$url/health/live"
ask 200 "$url/health/startup"
ask 200 "$url/v1/models/mnist/ready"
ask 200 "$url/v1/models"
ask 200 "$url/docs"
ask 200 "$url/openapi.yaml" && cmp "$work/answer" openapi.yaml
ask 404 "$url/metrics" && problem not-found
ask 200 "$(sed -n 's/^admin on //p' "$work/server.log")/metrics"
grep -qE '^sconce_items_total\{model="mnist",outcome="ok",version="1"\} [1-9]' "$work/answer" || fail "no item was counted"
"$sconce" health --url "$url/health/ready"

kill -TERM "$server"
status=0
wait "$server" || status=$?
server=''
[[ $status == 0 ]] || fail "SIGTERM: exit code $status"
echo "smoke: all as promised"
