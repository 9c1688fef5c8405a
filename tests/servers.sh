#!/bin/sh
# Installs the servers that the tests start, if they are missing and we may: Debian, as root or with sudo.
set -eu
PATH=$PATH:/usr/sbin:/sbin

missing=
for program in redis-server memcached; do
  command -v "$program" >/dev/null || missing="$missing $program"
done
[ -n "$missing" ] || exit 0

sudo=
[ "$(id -u)" = 0 ] || sudo="sudo -n"
echo "=== installing$missing"
# shellcheck disable=SC2086
if ! { $sudo apt-get update -qq && DEBIAN_FRONTEND=noninteractive $sudo apt-get install -qq -y \
    --no-install-recommends $missing; }; then
  echo "!!! The tests need$missing. Install them with your package manager and try again." >&2
  exit 1
fi
