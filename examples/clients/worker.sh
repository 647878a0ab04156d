#!/usr/bin/env bash
# Works through the changes of a prefix, each at least once: needs the node (`lattice up`) and jq.
#
#     examples/clients/worker.sh /orders/ [COUNT]
#
# A change is acknowledged when its work is done. If this script dies before, it comes again, to
# whoever asks, once the time to acknowledge it is over. Start several: they share the work.
set -euo pipefail
prefix="$1"
left="${2:-}"

lattice consumer create worker-sh "$prefix" --from start --ack-wait 30s >/dev/null
while [[ -z "$left" ]] || ((left-- > 0)); do
    line="$(lattice consumer next worker-sh --json)"
    jq -r '[.attempt, .key, .value // .type] | @tsv' <<<"$line"
    lattice consumer ack worker-sh "$(jq -r .delivery <<<"$line")" >/dev/null
done
