"""Start Ray as the script in AWS's image does, on free ports so that nothing collides."""

from __future__ import annotations

from pathlib import Path

from benchmarks.comparison.competitors.base import Launch, Site

# AWS's adapter on port 8080 is left out. Requests go to Ray's own port, which favours Ray.
_SCRIPT = """\
set -e
ray start --head --disable-usage-stats --include-dashboard=false --temp-dir="$RAY_TMP" \
    --port="$RAY_PORT" --ray-client-server-port="$CLIENT_PORT" \
    --dashboard-agent-listen-port="$AGENT_PORT"
serve start --http-host 127.0.0.1 --http-port "$HTTP_PORT"
serve run --non-blocking config.yaml
exec sleep infinity
"""


def start_ray(site: Site, folder: Path, modules: str) -> Launch:
    """Run the application that ``config.yaml`` in ``folder`` names; ``modules`` is PYTHONPATH."""
    http, cluster, client, agent = site.ports[:4]
    return Launch(
        ("sh", "-c", _SCRIPT),
        folder,
        {
            "PYTHONPATH": modules,
            "RAY_ADDRESS": f"127.0.0.1:{cluster}",
            # Ray puts sockets below it, whose paths are limited to 107 characters.
            "RAY_TMP": str(site.folder / "r"),
            "RAY_PORT": str(cluster),
            "CLIENT_PORT": str(client),
            "AGENT_PORT": str(agent),
            "HTTP_PORT": str(http),
            "RAY_raylet_start_wait_time_s": "120",
        },
    )
