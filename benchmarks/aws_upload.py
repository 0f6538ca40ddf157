"""Speed and memory of an upload, compared with ``aws s3 cp`` to the same AWS double.

    python -m benchmarks.aws_upload [--mb 300] [--rounds 3] [--aws aws]

Both send to ministack's S3 on this machine, which takes most of the time. Install ``aws`` into its
own environment: ``python -m venv ...; pip install awscli``.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from fastai_deploy.files import sha256
from tests.aws_double.process import REGION, running_double

PIECE = 1_000_000
ACCOUNT = "123456789012"
BUCKET = "bench"
_SEND = """
import sys
from pathlib import Path
from fastai_deploy.aws.bucket import Bucket
from fastai_deploy.aws.session import open_aws
from fastai_deploy.aws.upload import Uploads
from fastai_deploy.files import sha256
path, key = Path(sys.argv[1]), sys.argv[2]
aws = open_aws(None)
uploads = Uploads(aws, Bucket('bench', aws.account, ours=True), lambda _event: None, {})
uploads.file(path, key, sha256=sys.argv[3])
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--mb", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--aws", default="aws")
    options = parser.parse_args()
    size = options.mb * PIECE
    with tempfile.TemporaryDirectory() as name, running_double() as double:
        path = Path(name) / "model.tar.gz"
        # In pieces: the processes started below at first count this process's memory as theirs.
        with path.open("wb") as file:
            for _ in range(options.mb):
                file.write(os.urandom(PIECE))
        digest = sha256(path)
        double.session(ACCOUNT).client("s3").create_bucket(
            Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION}
        )
        environ = {**os.environ, **double.environment(ACCOUNT)}
        print(f"{options.mb} MB\n{'':<28} {'s':>6} {'MB/s':>6} {'peak MB':>8}")
        for number in range(options.rounds):
            key = f"key-{number}"
            ours = [sys.executable, "-c", _SEND, str(path), f"a-{key}", digest]
            theirs = [options.aws, "s3", "cp", "--no-progress", str(path), f"s3://{BUCKET}/b-{key}"]
            again = [sys.executable, "-c", _SEND, str(path), f"a-{key}", digest]
            timed("fdeploy upload", ours, environ, size)
            timed("aws s3 cp", theirs, environ, size)
            timed("fdeploy upload, unchanged", again, environ, size)


def timed(name: str, command: list[str], environ: dict[str, str], size: int) -> None:
    began = time.perf_counter()
    pid = os.posix_spawnp(command[0], command, environ)
    _, status, usage = os.wait4(pid, 0)
    seconds = time.perf_counter() - began
    if status:
        raise SystemExit(f"{name} ended with status {status}")
    peak = usage.ru_maxrss / 1024  # Linux counts in KiB
    print(f"{name:<28} {seconds:>6.2f} {size / 1e6 / seconds:>6.0f} {peak:>8.0f}", flush=True)


if __name__ == "__main__":
    main()
