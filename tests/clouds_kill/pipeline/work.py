# mypy: ignore-errors
"""A task: says in the ledger that it runs, and hands on what it was handed, with its name.

    work.py TASK LEDGER OUTPUT RESULT [INPUT]

Each time that it runs it leaves an object of its own in the ledger, which no retry clears.
"""

import json
import sys
from uuid import uuid4

import obstore
from obstore.store import from_url


def at(uri):
    scheme, _, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    return from_url(f"{scheme}://{bucket}"), key


task, ledger, output, result, *inputs = sys.argv[1:]
obstore.put(*at(f"{ledger}/{task}-{uuid4().hex}"), b"")
before = [bytes(obstore.get(*at(f"{uri}/part")).bytes()).decode() for uri in inputs]
text = " ".join([*before, task])
obstore.put(*at(f"{output}/part"), text.encode())
obstore.put(*at(result), json.dumps({"text": text}).encode())
