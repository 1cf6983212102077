#!/bin/sh
# Chromium for the tests of the viewer. Without it they are skipped, and the last line of a test run counts them.
set -eu

for name in chromium chromium-browser google-chrome; do
    if command -v "$name" > /dev/null; then exit 0; fi
done
if [ "${HIPER_CHROMIUM:-}" ]; then exit 0; fi
if [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
    echo "installing chromium for the tests of the viewer"
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium > /dev/null && exit 0
fi
echo "no Chromium: the tests of the viewer are skipped. Install it (Debian: apt-get install chromium), or name it in HIPER_CHROMIUM" >&2
