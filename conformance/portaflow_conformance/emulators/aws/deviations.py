"""Where the local AWS is known to differ."""

from __future__ import annotations

from ..place import Deviation

DEVIATIONS: tuple[Deviation, ...] = (
    Deviation(
        "S3",
        "lists keys in the order of their bytes",
        "a directory tree: `a/b` before `a-b`",
        key="s3_order",
    ),
    Deviation(
        "S3",
        "keeps keys such as `a//b`, `./a` and `../a`",
        "does not keep them as written",
        key="s3_keys",
    ),
    Deviation(
        "S3",
        "takes URLs signed by version 2",
        "takes those by version 4 alone",
        key="s3_version_2",
    ),
    Deviation(
        "S3",
        "takes bodies whose chunks are signed one by one by keys of STS",
        "501 NotImplemented; clients do not sign so by https",
        key="s3_chunks",
    ),
    Deviation(
        "EMR",
        "runs steps as the user hadoop on the machines of a cluster",
        "runs them on this machine as who runs the stand-in, Spark as local[2]",
        key="emr_steps_here",
    ),
    Deviation(
        "EMR",
        "runs bootstrap actions on each machine, with sudo",
        "once, as who runs the stand-in; Spark has a connector to GCS when it is told of GCS",
        key="emr_bootstrap_once",
    ),
    Deviation(
        "EMR",
        "has Hive, Pig, Hadoop's commands and s3-dist-cp, and gives properties to a jar",
        "runs Spark, jars, scripts and programs of this machine; another step fails and says so",
        key="emr_commands",
    ),
    Deviation(
        "EMR",
        "installs the applications of its release, and tells their versions",
        "runs the Spark that is installed, and tells no version",
        key="emr_versions",
    ),
    Deviation(
        "EMR",
        "changes the number of machines as a scaling policy says",
        "keeps the policy; machines have names and states alone",
        key="emr_scaling",
    ),
    Deviation(
        "EMR",
        "counts all that runs in an account against its quotas",
        "refuses one cluster of more than 2,000 cores, and counts no others",
        key="emr_quota",
    ),
    Deviation(
        "EMR",
        "knows the account's subnets, keys, security groups, roles and images",
        "takes each that looks like one",
        key="emr_network",
    ),
    Deviation(
        "EMR",
        "keeps the logs of a step some minutes late; of Hadoop a syslog, too",
        "keeps them every two seconds, and before it tells of the step's end",
        key="emr_logs",
    ),
    Deviation(
        "EMR",
        "has studios, notebooks, sessions, application UIs, DescribeJobFlows, DescribeReleaseLabel",
        "answers them with 501 NotImplemented",
        key="emr_calls",
    ),
    Deviation(
        "EMR",
        "lets what runs on a cluster call whatever its network reaches",
        "lets it call the stand-ins that run; every other host is refused by https",
        key="emr_reach",
    ),
    Deviation(
        "EMR Serverless",
        "runs Spark and Hive, streaming, retries, sessions, and has dashboards",
        "runs Spark in batch mode; the rest answers 501 NotImplemented and names it",
        key="serverless_batch",
    ),
    Deviation(
        "EMR Serverless",
        "takes an image, or a Python environment from `spark.archives`",
        "runs the Python that runs the stand-in",
        key="serverless_python",
    ),
    Deviation(
        "EMR Serverless",
        "bounds workers by capacities and by the account's quota, and tells what a run has used",
        "keeps capacities, refuses one job of more than 2,000 cores, runs each as local[2], and "
        "tells its time alone",
        key="serverless_capacity",
    ),
    Deviation(
        "EKS",
        "makes clusters; access entries say who may do what",
        "has one, `portaflow`, when the stand-in for Kubernetes runs too; who calls may do all",
        key="eks_one",
    ),
    Deviation(
        "EC2",
        "runs machines, and tells what each cost on spot in the last 90 days",
        "tells what a few types cost in two regions since the day of its table; the rest answers "
        "501 NotImplemented",
        key="ec2_spot",
    ),
    Deviation(
        "Price List",
        "tells what all of AWS costs, and all regions",
        "a few types of EC2 and EMR in two regions, by a table for trying out; EMR's own price is "
        "a guess",
        key="price_list",
    ),
    Deviation(
        "IAM",
        "refuses what a policy does not allow, and roles that are not there or do not trust",
        "checks signatures; takes each role that looks like one, and no policy",
        key="iam_policies",
    ),
    Deviation(
        "all",
        "each account has its own state",
        "one account; a process has one stand-in for AWS at a time",
        key="aws_one_account",
    ),
)
