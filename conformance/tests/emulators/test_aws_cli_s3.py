"""S3 as the unmodified AWS CLI sees it."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("boto3")

from portaflow_conformance.emulators.clouds import Clouds, emulate

AWS = Path(sys.executable).parent / "aws"  # of the distribution awscli, which `make` installs


def _aws(clouds: Clouds, *words: str) -> str:
    done = subprocess.run(
        [str(AWS), *words], env=clouds.environ(), capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _sum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_aws_cli_copies_syncs_lists_and_removes(tmp_path: Path) -> None:
    tree, back = tmp_path / "tree", tmp_path / "back"
    (tree / "sub").mkdir(parents=True)
    large = tree / "large.bin"
    large.write_bytes(os.urandom(2**20) * 60)
    (tree / "sub" / "ü & b.txt").write_text("hello\n", "utf-8")
    (tree / "empty").touch()
    with emulate("aws", pace=0) as clouds:
        _aws(clouds, "s3", "mb", "s3://data")
        _aws(clouds, "s3", "cp", "--quiet", str(large), "s3://data/one/large.bin")
        assert clouds.control.count("aws:s3.UploadPart") >= 7  # of 8 MB each
        assert clouds.control.count("aws:s3.CompleteMultipartUpload") == 1
        _aws(clouds, "s3", "cp", "--quiet", "s3://data/one/large.bin", str(tmp_path / "again"))
        assert _sum(tmp_path / "again") == _sum(large)

        _aws(clouds, "s3", "sync", "--quiet", str(tree), "s3://data/tree")
        puts = clouds.control.count("aws:s3.PutObject")
        _aws(clouds, "s3", "sync", "--quiet", str(tree), "s3://data/tree")
        assert clouds.control.count("aws:s3.PutObject") == puts  # nothing was new
        (tree / "empty").write_text("not any more")
        _aws(clouds, "s3", "sync", "--quiet", str(tree), "s3://data/tree")
        assert clouds.control.count("aws:s3.PutObject") == puts + 1
        _aws(clouds, "s3", "sync", "--quiet", "s3://data/tree", str(back))
        there, here = (
            {str(path.relative_to(top)): _sum(path) for path in top.rglob("*") if path.is_file()}
            for top in (tree, back)
        )
        assert there == here
        assert len(here) == 3

        listed = _aws(clouds, "s3", "ls", "s3://data/tree/").splitlines()
        assert [line.split()[-1] for line in listed] == ["sub/", "empty", "large.bin"]
        assert [line.split()[-2] for line in listed[1:]] == ["12", str(60 * 2**20)]
        told = _aws(clouds, "s3", "ls", "--recursive", "--summarize", "s3://data")
        assert "Total Objects: 4" in told

        _aws(clouds, "s3", "rm", "--quiet", "--recursive", "s3://data/tree")
        words = ("s3api", "list-objects-v2", "--bucket", "data", "--output", "json")
        assert [one["Key"] for one in json.loads(_aws(clouds, *words))["Contents"]] == [
            "one/large.bin"
        ]
        head = ("s3api", "head-object", "--bucket", "data", "--key", "one/large.bin")
        assert json.loads(_aws(clouds, *head, "--output", "json"))["ContentLength"] == 60 * 2**20
        _aws(clouds, "s3", "rb", "--force", "s3://data")
        assert _aws(clouds, "s3", "ls") == ""
