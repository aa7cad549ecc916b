from __future__ import annotations

import pytest
from portaflow_local.reason import why

STOPPING = """\
26/11/25 10:00:00 INFO SparkContext: Invoking stop() from shutdown hook
26/11/25 10:00:01 INFO ShutdownHookManager: Deleting directory /scratch/spark-1
"""

ON_A_WORKER = """\
26/11/25 10:00:00 ERROR Executor: Exception in task 0.0 in stage 0.0 (TID 0)
org.apache.spark.api.python.PythonException: Traceback (most recent call last):
  File "/job.py", line 5, in <lambda>
ValueError: an earlier one

\tat org.apache.spark.api.python.BasePythonRunner.handle(PythonRunner.scala:1)
Traceback (most recent call last):
  File "/job.py", line 7, in <module>
    main()
py4j.protocol.Py4JJavaError: An error occurred while calling o1.collect.
: org.apache.spark.SparkException: Job aborted due to stage failure
Caused by: org.apache.spark.api.python.PythonException: Traceback (most recent call last):
  File "/job.py", line 5, in <lambda>
    1 / 0
    ~~^~~
ZeroDivisionError: division by zero

\tat org.apache.spark.api.python.BasePythonRunner.handle(PythonRunner.scala:1)
\t... 1 more

"""

FROM_JAVA = """\
Traceback (most recent call last):
  File "/job.py", line 7, in <module>
    main()
py4j.protocol.Py4JJavaError: An error occurred while calling o1.load.
: java.io.FileNotFoundException: file:/none
\tat java.base/java.io.File.none(File.java:1)
"""

ANALYSIS = """\
Traceback (most recent call last):
  File "/job.py", line 7, in <module>
    main()
pyspark.errors.exceptions.captured.AnalysisException: [PATH_NOT_FOUND] Path does not exist
"""

JAVA = """\
Exception in thread "main" org.apache.spark.SparkException: it went wrong
\tat Main$.main(Main.scala:1)
Caused by: java.lang.RuntimeException: first
\tat Main$.main(Main.scala:1)
\t... 3 more
Caused by: java.lang.IllegalStateException: at the bottom
\tat Main$.main(Main.scala:1)
"""

CLEANING_UP = """\
Traceback (most recent call last):
  File "/job.py", line 1, in <module>
KeyError: 'the cause'
Exception ignored in: <function X.__del__ at 0x7f>
Traceback (most recent call last):
  File "/x.py", line 1, in __del__
ConnectionError: only the clean-up
"""

NO_CLASS = "the job said this\n26/11/25 10:00:00 ERROR SparkSubmit: Failed to load class X.\n"


@pytest.mark.parametrize(
    ("log", "told"),
    [
        (ON_A_WORKER + STOPPING, "ZeroDivisionError: division by zero"),
        (
            FROM_JAVA + STOPPING,
            "py4j.protocol.Py4JJavaError: An error occurred while calling o1.load.\n"
            ": java.io.FileNotFoundException: file:/none",
        ),
        (ANALYSIS + STOPPING, ANALYSIS.splitlines()[-1]),
        (
            JAVA + STOPPING,
            'Exception in thread "main" org.apache.spark.SparkException: it went wrong\n'
            "Caused by: java.lang.IllegalStateException: at the bottom",
        ),
        (CLEANING_UP, "KeyError: 'the cause'"),
        (NO_CLASS + STOPPING, NO_CLASS.strip()),
        ("it exits with a message\n" + STOPPING, "it exits with a message"),
        (STOPPING, STOPPING.strip()),
        ("", ""),
    ],
)
def test_the_reason_is_the_cause_and_not_the_chatter_after_it(log: str, told: str) -> None:
    assert why(log) == told
