#!/bin/sh
# Deploys, calls and removes an API on this machine, without AWS or Docker. Run it with `make demo`.
set -eu
cd "$(dirname "$0")"

# Prints a command as you would type it, then runs it.
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
