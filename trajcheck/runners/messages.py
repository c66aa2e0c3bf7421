"""Outcomes as bytes and back, between a worker and its parent.

JSON, behind which a value that is bytes stands as it is. What comes from a worker is data; nothing in it can run.
"""

from __future__ import annotations

import json
from dataclasses import asdict

from trajcheck.runners.calls import Function, call
from trajcheck.runners.outcomes import Done, Failed, Outcome, Task, failed

_END = b"\n"  # of the JSON; it has no line breaks of its own


def call_encoded(function: Function, task: Task) -> bytes:
    """`call`, with the outcome encoded; a value that is neither bytes nor plain is a failure, and so is SystemExit."""
    try:
        return encode(call(function, task))
    except (Exception, SystemExit) as error:
        return encode(failed(error))


def encode(outcome: Done | Failed) -> bytes:
    """Raises TypeError or ValueError for a value that JSON cannot hold."""
    if isinstance(outcome, Failed):
        return json.dumps({"failed": asdict(outcome)}).encode() + _END
    if isinstance(outcome.value, bytes):
        return json.dumps({"bytes": len(outcome.value)}).encode() + _END + outcome.value
    return json.dumps({"done": outcome.value}).encode() + _END


def decode(message: bytes) -> Outcome:
    """What a worker sent; what no worker of this version sends is a failure."""
    try:
        head, _, rest = message.partition(_END)
        said = json.loads(head)
        if "failed" in said:
            return Failed(**said["failed"])
        return Done(rest if "bytes" in said else said["done"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        return failed(error)
