"""Pods and Jobs, on a cluster of one's own, on EKS and on GKE; each succeeds or fails."""

import os
from datetime import datetime

from airflow.providers.amazon.aws.operators.eks import EksPodOperator
from airflow.providers.cncf.kubernetes.operators.job import KubernetesJobOperator
from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.providers.google.cloud.operators.kubernetes_engine import GKEStartPodOperator
from airflow.sdk import DAG

DEFERRABLE = os.environ["DEFERRABLE"] == "1"
RUN = {"image": "busybox", "cmds": ["sh", "-c"], "get_logs": True, "deferrable": DEFERRABLE}
XCOM = "echo '{\"answer\": 42}' > /airflow/xcom/return.json"


def pods(kind: type[KubernetesPodOperator], name: str, **where: str) -> None:
    """One that leaves a value for XCom, one that fails; both say their names."""
    more = {**RUN, **where, "poll_interval": 1}
    good, bad = f"{name}-good", f"{name}-bad"
    kind(task_id=good, arguments=[f"echo said by {good}; {XCOM}"], do_xcom_push=True, **more)
    kind(task_id=bad, arguments=[f"echo said by {bad}; exit 3"], **more)


with DAG("kubernetes", start_date=datetime(2026, 1, 1), schedule=None) as dag:
    pods(KubernetesPodOperator, "pod")
    pods(EksPodOperator, "eks", cluster_name="portaflow", pod_name="eks", region="us-east-1")
    pods(
        GKEStartPodOperator,
        "gke",
        cluster_name="portaflow",
        location="us-central1",
        project_id=os.environ["GOOGLE_CLOUD_PROJECT"],
    )
    for name, script in {"good": "echo said by job-good", "bad": "exit 3"}.items():
        KubernetesJobOperator(
            task_id=f"job-{name}",
            name=f"job-{name}",
            arguments=[script],
            backoff_limit=0,
            wait_until_job_complete=True,
            job_poll_interval=1,
            **RUN,
        )
