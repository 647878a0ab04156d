#!/usr/bin/env bash
# Processes the changes of a prefix, each at least once. Needs a running node (`lattice up`) and jq.
#
#     examples/clients/worker.sh /orders/ [COUNT]
#
# A change is acknowledged after its work is done. If this script stops before, the change is
# redelivered to any worker once its time to acknowledge has run out. Several workers share the
# changes.
set -euo pipefail
prefix="$1"
left="${2:-}"

lattice consumer create worker-sh "$prefix" --since start --ack-wait 30s >/dev/null
while [[ -z "$left" ]] || ((left-- > 0)); do
    line="$(lattice consumer next worker-sh --json)"
    jq -r '[.attempt, .key, .value // .type] | @tsv' <<<"$line"
    lattice consumer ack worker-sh "$(jq -r .delivery <<<"$line")" >/dev/null
done
