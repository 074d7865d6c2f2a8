#!/usr/bin/env bash
# containers.sh DIR: podman and buildah on a Debian machine without a container service, with local stand-ins under the
# names that the Dockerfile uses (registries of images are not asked). Afterwards `. DIR/env.sh`.
#
# The stand-ins prove the Dockerfile, not Google's and Rust's images: bookworm with this machine's own Rust toolchain, and
# bookworm's C library, libgcc and libstdc++ without a shell.
set -euo pipefail

dir=$(realpath -m "$1")
mkdir -p "$dir"
certificates=/etc/ssl/certs/ca-certificates.crt
debian=docker.io/library/debian:bookworm-slim
rust=docker.io/library/rust:1.95-bookworm
distroless=gcr.io/distroless/cc-debian12:nonroot

install_tools() {
  local tools=(podman buildah runc iptables mmdebstrap) missing=0
  for tool in "${tools[@]}"; do command -v "$tool" >/dev/null || missing=1; done
  if ((missing)); then
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends "${tools[@]}" containernetworking-plugins ca-certificates
  fi
}

# No systemd, a hybrid cgroup tree (which crun refuses) and no right to raise limits.
configure() {
  local files
  files=$(ulimit -Hn)
  cat >"$dir/storage.conf" <<CONF
[storage]
driver = "overlay"
graphroot = "$dir/storage"
runroot = "$dir/run"
CONF
  cat >"$dir/containers.conf" <<CONF
[containers]
default_ulimits = ["nofile=$files:$files", "nproc=4096:4096"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
CONF
  cat >"$dir/env.sh" <<CONF
export CONTAINERS_STORAGE_CONF=$dir/storage.conf CONTAINERS_CONF=$dir/containers.conf
CONF
  # shellcheck source=/dev/null
  . "$dir/env.sh"
}

mirror() {
  local sources=/etc/apt/sources.list.d/debian.sources
  if [[ -f $sources ]]; then
    awk '/^URIs/ {print $2; exit}' "$sources"
  else
    awk '/^deb / {print $2; exit}' /etc/apt/sources.list
  fi
}

make_debian() {
  mmdebstrap --quiet --variant=minbase --include=ca-certificates \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    bookworm - "$(mirror)" | podman import - "$debian"
}

make_rust() {
  local container root
  container=$(buildah from --pull-never "$debian")
  buildah run --isolation chroot "$container" -- sh -c \
    'apt-get update -qq && apt-get install -y -qq --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*'
  root=$(buildah mount "$container")
  tar -C "$(rustc --print sysroot)" --exclude=./share/doc --exclude=./share/man -c . | tar -C "$root/usr/local" -x
  cp "$certificates" "$root$certificates"
  buildah umount "$container"
  # The same path as here: cargo takes up what this machine has compiled only from the same folder of sources.
  buildah config --env CARGO_HOME="${CARGO_HOME:-$HOME/.cargo}" "$container"
  buildah commit -q --rm "$container" "$rust"
}

make_distroless() {
  local root=$dir/distroless packages=$dir/packages
  mkdir -p "$root" "$packages"
  # apt's own user writes here.
  chmod 777 "$packages"
  (cd "$packages" && apt-get download -qq libc6 libgcc-s1 libstdc++6 libgomp1 base-files netbase)
  for package in "$packages"/*.deb; do dpkg -x "$package" "$root"; done
  mkdir -p "$root/etc/ssl/certs" "$root/home/nonroot" "$root/tmp"
  chmod 1777 "$root/tmp"
  cp "$certificates" "$root$certificates"
  printf 'root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n' >"$root/etc/passwd"
  printf 'root:x:0:\nnonroot:x:65532:\n' >"$root/etc/group"
  rm -rf "$root"/usr/share/{doc,locale,lintian} "$root"/usr/lib/*/gconv
  tar -C "$root" -c . | podman import --change 'USER 65532' - "$distroless"
}

install_tools
configure
podman image exists "$debian" || make_debian
podman image exists "$rust" || make_rust
podman image exists "$distroless" || make_distroless
