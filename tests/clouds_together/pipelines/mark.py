"""Leaves a run's token as its output, its result and its log, once its gate is open.

    mark.py TOKEN OUTPUT RESULT [GATE]

A gate is an object: there, or not there yet.
"""

import json
import sys
import time

import obstore
from obstore.store import from_url


def at(uri):
    scheme, _, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    return from_url(f"{scheme}://{bucket}"), key


def is_open(gate):
    try:
        obstore.head(*at(gate))
    except FileNotFoundError:
        return False
    return True


token, output, result, *gates = sys.argv[1:]
print("at the gate of", token, flush=True)
while not all(map(is_open, filter(None, gates))):
    time.sleep(0.2)
obstore.put(*at(f"{output}/part"), token.encode())
obstore.put(*at(result), json.dumps({"token": token}).encode())
print("token", token, flush=True)
