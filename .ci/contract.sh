#!/usr/bin/env bash
# contract.sh SCONCE SCHEMATHESIS: requests made from openapi.yaml, those that it allows and those that it does not, to a server
# with models and a store. No answer is a 5xx that the contract does not name, and each is as the contract says.
set -euo pipefail

sconce=$1 schemathesis=$2
work=$(mktemp -d)
server=''
cleanup() {
  [[ -z $server ]] || kill -KILL "$server" 2>/dev/null || true
  rm -rf "$work"
}
trap cleanup EXIT

# What is promoted, labelled and erased here is a copy.
cp -r models "$work/models"
"$sconce" serve --listen 127.0.0.1:0 --admin "" --models "$work/models" --set "store.folder=$work/data" --set store.sampling_rate=1.0 \
  --set store.keep_images=true --set jobs.enabled=false --set log.filter=warn >"$work/out" 2>"$work/log" &
server=$!
for _ in {1..100}; do
  url=$(sed -n 's/^listening on //p' "$work/out")
  [[ -n $url ]] && "$sconce" health --url "$url/health/ready" >/dev/null 2>&1 && break
  sleep 0.1
done
[[ -n $url ]] || { cat "$work/log"; exit 1; }

checks=not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance
checks+=,response_schema_conformance,unsupported_method,allow_header_conformance
# Followed for as long as a job runs, events never end.
(cd "$work" && "$schemathesis" run "$OLDPWD/openapi.yaml" --url "$url" --checks "$checks" --phases examples,coverage,fuzzing \
  --exclude-path-regex '/events$' --max-examples "${EXAMPLES:-10}" --seed "${SEED:-1}" --request-timeout 60 --no-color \
  --suppress-health-check all) || { tail -n 20 "$work/log"; exit 1; }

# It still answers.
"$sconce" health --url "$url/health/ready"
if grep -q '"level":"ERROR"' "$work/log"; then
  echo "the server's log tells of errors:" && grep '"level":"ERROR"' "$work/log" | head
  exit 1
fi
