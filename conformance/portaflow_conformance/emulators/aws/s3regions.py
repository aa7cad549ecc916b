"""In which region each bucket is, and what S3 answers at the address of another."""

from __future__ import annotations

import re

from .s3calls import S3Call, error

FIRST = "us-east-1"  # where a bucket is that was asked for without a place
_ANYWHERE = ("CreateBucket", "GetBucketLocation", "ListBuckets")
_CONSTRAINT = re.compile(rb"<LocationConstraint>\s*([\w-]+)\s*</LocationConstraint>")
_OLD = {"EU": "eu-west-1"}
_MOVED = (
    "The bucket you are attempting to access must be addressed using the specified endpoint. "
    "Please send all future requests to this endpoint."
)


class Regions:
    """Of a bucket that nobody has told of, the store itself says whether it is there."""

    def __init__(self) -> None:
        self._of: dict[str, str] = {}

    def home(self, bucket: str) -> str:
        """Where a bucket is; "" when that is not known."""
        return self._of.get(bucket, "")

    def made(self, bucket: str, region: str) -> None:
        self._of[bucket] = region

    def gone(self, bucket: str) -> None:
        self._of.pop(bucket, None)

    def elsewhere(self, call: S3Call, verb: str) -> bytes:
        """What a call is answered that has come to, or was signed for, the wrong region."""
        home = self.home(call.bucket)
        if not home or call.operation in _ANYWHERE:
            return b""
        if call.region not in ("", home):
            where = {"Endpoint": f"{call.bucket}.s3.{home}.amazonaws.com", "Bucket": call.bucket}
            return error(301, "PermanentRedirect", _MOVED, verb, where, home)
        if call.signed not in ("", home):  # the address without a region leads to each of them
            why = f"The authorization header is malformed; the region '{call.signed}' is wrong; "
            code = "AuthorizationHeaderMalformed"
            return error(400, code, f"{why}expecting '{home}'", verb, {"Region": home}, home)
        return b""


def wanted(body: bytes) -> str:
    """Where a bucket is to be made."""
    found = _CONSTRAINT.search(body)
    asked = found[1].decode() if found else FIRST
    return _OLD.get(asked, asked)


def location(region: str) -> bytes:
    """The answer to GetBucketLocation, which has no name for the first region."""
    space = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
    named = "" if region == FIRST else region
    return f"<LocationConstraint {space}>{named}</LocationConstraint>".encode()


def refused(call: S3Call, region: str, verb: str) -> bytes:
    """What is said to who asks at the address of one region for a bucket in another.

    That of the first region, and that without one, make buckets everywhere.
    """
    if call.region in ("", FIRST, region):
        return b""
    asked = "unspecified" if region == FIRST else region
    why = f"The {asked} location constraint is incompatible for the region specific endpoint "
    code = "IllegalLocationConstraintException"
    return error(400, code, f"{why}this request was sent to.", verb)
