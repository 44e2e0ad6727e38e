#!/bin/sh
# Installs Debian's Chromium for the browser tests where that is possible without a question; otherwise says why they will be skipped.
set -u
for name in chromium chromium-browser google-chrome; do
    if command -v "$name" >/dev/null 2>&1; then exit 0; fi
done
skip() { echo "browser tests will be SKIPPED: $1" >&2; exit 0; }
command -v apt-get >/dev/null 2>&1 || skip "no Chromium on PATH, and no apt-get to install it with"
[ "$(id -u)" = 0 ] || skip "no Chromium on PATH; install it with: sudo apt-get install chromium"
echo "installing Chromium for the browser tests (apt-get install chromium)"
export DEBIAN_FRONTEND=noninteractive
apt-get -qq -o Acquire::Retries=1 -o Acquire::http::Timeout=30 update \
    && apt-get -qq -y -o Acquire::Retries=1 -o Acquire::http::Timeout=30 install --no-install-recommends chromium >/dev/null \
    || skip "apt-get could not install Chromium (its messages are above)"
