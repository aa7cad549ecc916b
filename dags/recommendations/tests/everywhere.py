"""The demo on every target, and whether the same comes out.

    python dags/recommendations/tests/everywhere.py [--scale 100] [TARGET ...]

starts local clouds, runs the pipeline on each target, one after the other, and compares the
outputs of each pair. Prints a line for each; ends with 1 when a run fails or two differ.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from portaflow_conformance.emulators.clouds import emulate

ROOT = Path(__file__).parents[3]
DAG = ROOT / "dags" / "recommendations"
TARGETS = ("local", "kubernetes", "aws", "aws-serverless", "gcp", "gcp-serverless")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("targets", nargs="*", metavar="TARGET", default=TARGETS)
    parser.add_argument("--scale", type=int, default=1, help="users that each user becomes [1]")
    asked = parser.parse_args()
    images = {"train": DAG / "images" / "train"}
    with (
        tempfile.TemporaryDirectory(prefix="portaflow-everywhere-") as folder,
        emulate("aws", "gcp", "kubernetes", images=images, buckets=["portaflow"]) as clouds,
    ):
        (Path(folder) / "portaflow.toml").write_text((ROOT / "portaflow.toml").read_text())
        env = clouds.environ()

        def portaflow(what: str, *words: str) -> bool:
            began = time.monotonic()
            command = [sys.executable, "-m", "portaflow", *words]
            done = subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True)
            good = done.returncode == 0
            print(f"{what}: {'good' if good else 'BAD'}, {time.monotonic() - began:.1f} s")
            if not good:
                print(done.stdout[-3000:] + done.stderr[-3000:])
            return good

        def run(target: str) -> bool:
            words = ["run", str(DAG), "--run-id", target, "--target", target]
            # Two processors bear no more of Spark on pods.
            few = ["--set", "compute.executors=1"] if target == "kubernetes" else []
            return portaflow(f"run on {target}", *words, *few, "-p", f"scale={asked.scale}")

        def compare(a: str, b: str) -> bool:
            return portaflow(f"{a} = {b}", "compare", a, b, "--target", a, "--target-b", b)

        ran = [target for target in asked.targets if run(target)]
        same = [compare(a, b) for a, b in itertools.combinations(ran, 2)]
    return 0 if len(ran) == len(asked.targets) and all(same) else 1


if __name__ == "__main__":
    sys.exit(main())
