"""python3 -c THIS VARIABLE=SECRET... -- COMMAND...: a command with secrets among its variables.

It runs on the first machine of a cluster of EMR, by the Python of that machine's system.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

_MACHINE = "/mnt/var/lib/info/extraInstanceData.json"  # where EMR tells a machine its region
_FIXES = {
    "ResourceNotFound": "make it with `aws secretsmanager create-secret`, or correct its name",
    "AccessDenied": "give the cluster's instance profile the right secretsmanager:GetSecretValue",
}


def main() -> None:
    end = sys.argv.index("--")
    command = sys.argv[end + 1 :]
    found = dict(_found(word) for word in sys.argv[1:end])
    os.execvpe(command[0], command, {**os.environ, **found})  # noqa: S606  no shell is wanted


def _found(word: str) -> tuple[str, str]:
    """A variable and the value of its secret; exits with the cause when there is none."""
    variable, _, secret = word.partition("=")
    try:
        value = _value(secret)
        if "\0" in value:
            raise LookupError("it has a NUL, which no variable can have")
    except (LookupError, OSError) as error:
        sys.exit(f"SecretError: secret {secret!r} for {variable} cannot be read: {error}")
    return variable, value


def _value(secret: str) -> str:
    """What Secrets Manager has under a name. Raises LookupError, OSError."""
    words = ["aws", "secretsmanager", "get-secret-value", "--secret-id", secret]
    words += ["--query", "SecretString", "--output", "json"]
    pipe = subprocess.PIPE
    asked = subprocess.run(words, env=_env(), stdout=pipe, stderr=pipe, check=False)
    if asked.returncode:
        said = " ".join(asked.stderr.decode("utf-8", "replace").split())
        fixes = [fix for code, fix in _FIXES.items() if code in said]
        raise LookupError("; ".join([said, *fixes]))
    value = json.loads(asked.stdout)
    if not isinstance(value, str):
        raise LookupError("it is binary: store it as a string")
    return value


def _env() -> dict[str, str]:
    """The variables for the AWS CLI: its first version does not find the region by itself."""
    env = dict(os.environ)
    if not env.keys() & {"AWS_REGION", "AWS_DEFAULT_REGION"}:
        try:
            with open(_MACHINE, encoding="utf-8") as file:
                env["AWS_DEFAULT_REGION"] = json.load(file)["region"]
        except (OSError, ValueError, KeyError):
            pass  # it is for the command to say that it has no region
    return env


if __name__ == "__main__":
    main()
