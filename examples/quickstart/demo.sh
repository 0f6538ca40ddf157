#!/bin/sh
# The main job on this machine: no AWS account, no Docker. Run it with `make demo`.
set -eu
cd "$(dirname "$0")"

# Runs a command after showing it as it would be typed.
say() {
	shown=
	for word; do
		case $word in *' '*) word="\"$word\"" ;; esac
		shown="$shown $word"
	done
	printf '\n\033[1m$%s\033[0m\n' "$shown" >&2
	"$@"
}

trap 'say fdeploy teardown' EXIT

say fdeploy up
say fdeploy invoke "the plot is thin but I loved it"
say fdeploy invoke --api "My order arrived late and broken."
