"""Where the local AWS is known to differ."""

from __future__ import annotations

from ..place import Deviation

DEVIATIONS: tuple[Deviation, ...] = (
    Deviation(
        "S3", "lists keys in the order of their bytes", "a directory tree: `a/b` before `a-b`"
    ),
    Deviation("S3", "keeps keys such as `a//b`, `./a` and `../a`", "does not keep them as written"),
    Deviation("S3", "takes URLs signed by version 2", "takes those by version 4 alone"),
    Deviation(
        "EMR Serverless",
        "runs Spark and Hive, streaming, retries, sessions, and has dashboards",
        "runs Spark in batch mode; the rest answers 501 NotImplemented and names it",
    ),
    Deviation(
        "EMR Serverless",
        "takes an image, or a Python environment from `spark.archives`",
        "runs the Python that runs the stand-in",
    ),
    Deviation(
        "EMR",
        "runs steps as the cluster's own user on its nodes",
        "runs them on this machine, Spark as local[2]",
    ),
    Deviation("EMR", "runs bootstrap actions", "accepts them and runs none"),
    Deviation(
        "EMR",
        "takes Hive, Pig and other commands in steps",
        "command-runner.jar with spark-submit only; another step fails and says so",
    ),
    Deviation(
        "EKS",
        "makes clusters; access entries say who may do what",
        "has one, `portaflow`, when the stand-in for Kubernetes runs too; who calls may do all",
    ),
    Deviation(
        "IAM",
        "refuses what a policy does not allow",
        "checks signatures in S3 alone, and no policy",
    ),
    Deviation(
        "all",
        "each account has its own state",
        "one account; a process has one stand-in for AWS at a time",
    ),
)
