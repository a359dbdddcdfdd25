#!/bin/sh
# Ends as soon as the time is good, or cannot become so now: never later than WAIT_S, and always with success.
# The station then starts; while the time is wrong TLS fails, and is tried again until it is right (board/sinks/mqtt.py).
root=${1:-}
WAIT_S=${2:-10}

# The card was made before now: a clock that says otherwise is set to that day, so that certificates are not "not yet valid".
made=$(stat -c %Y "$root/opt/beltsight/current/card.json" 2>/dev/null || echo 0)
now=$(date +%s)
if [ "$now" -lt "$made" ]; then
    date -s "@$made" >/dev/null || echo "the time cannot be set" >&2
fi

waited=0
while [ "$waited" -lt "$WAIT_S" ]; do
    # systemd-timesyncd makes this file when it has heard a server.
    [ -e "$root/run/systemd/timesync/synchronized" ] && exit 0
    # No cable: no server will be heard. Loopback has no carrier worth the name.
    linked=no
    for carrier in "$root"/sys/class/net/[!l]*/carrier; do
        [ "$(cat "$carrier" 2>/dev/null)" = 1 ] && linked=yes
    done
    # A link takes seconds to come up: the first of them are granted.
    [ "$linked" = no ] && [ "$waited" -ge 4 ] && break
    sleep 1
    waited=$((waited + 1))
done
echo "starting without a synchronized time" >&2
exit 0
