#!/usr/bin/env bash
# install_cosign.sh PLACE: cosign 3 and oras as the next Debian has them, for this architecture, beside the system.
# Debian 12 has neither. apt checks who signed them, as for any package; nothing is installed into the system.
set -euo pipefail
place=$(realpath -m "$1")
apt="$place/apt"
mkdir -p "$apt/lists/partial" "$apt/archives/partial"
keys=/usr/share/keyrings/debian-archive-keyring.gpg
mirror=$(apt-get indextargets --format "\$(REPO_URI)" | awk '/\/debian\/$/ && !found++') # this system's
echo "deb [signed-by=$keys] $mirror forky main" > "$apt/sources.list"
# A mirror may be behind: what it has was signed all the same.
apt_get() {
  apt-get -qq -o Dir::Etc::sourcelist="$apt/sources.list" -o Dir::Etc::sourceparts=/dev/null \
    -o Dir::State::lists="$apt/lists" -o Dir::Cache="$apt" -o Acquire::Languages=none -o Acquire::Check-Valid-Until=false \
    -o APT::Sandbox::User=root "$@"
}
apt_get update
(cd "$apt" && apt_get download cosign oras)
for package in "$apt"/*.deb; do dpkg --extract "$package" "$place"; done
rm -rf "$apt"
"$place/usr/bin/cosign" version > "$place/versions"
"$place/usr/bin/oras" version >> "$place/versions"
