"""What drivers have written: objects `{uri}.000000000` and so on, as Dataproc keeps it."""

from __future__ import annotations

from portaflow.backend import LogChunk
from portaflow.errors import NotFoundError, UnavailableError

from .connect import Access, TokenSource, told

_CHUNK = 2**20  # bytes returned at once


def read(access: Access, uri: str, cursor: str, ended: bool) -> LogChunk:
    """What follows `cursor`; the end is there when the job has ended and all was read.

    The last object grows while the job runs, put anew each time; the others stay as they are.
    """
    number, start = map(int, (cursor or "0:0").split(":"))
    if not uri:
        return LogChunk(data=b"", cursor=cursor, end=ended)
    data = b""
    while len(data) < _CHUNK:
        piece, more = _object(access, uri, number, start)
        data, start = data + piece, start + len(piece)
        if not more:
            break
        number, start = number + 1, 0
    # One more, empty answer tells the end: what ended while it was read may have more.
    return LogChunk(data=data, cursor=f"{number}:{start}", end=ended and not data)


def _object(access: Access, uri: str, number: int, start: int) -> tuple[bytes, bool]:
    """The rest of one object, and whether another one follows it."""
    import obstore
    from obstore.exceptions import BaseError
    from obstore.store import GCSStore

    bucket, _, key = uri.removeprefix("gs://").partition("/")
    with told(f"output {uri}"):
        credentials = TokenSource(access)
    try:
        store = GCSStore(bucket, credential_provider=credentials)
        folder, _, _ = key.rpartition("/")
        listed = [o["path"] for page in obstore.list(store, folder) for o in page]
        following = f"{key}.{number + 1:09}" in listed
        if f"{key}.{number:09}" not in listed:
            return b"", False
        body = bytes(obstore.get(store, f"{key}.{number:09}").bytes())
    except FileNotFoundError as error:
        raise NotFoundError(f"output {uri}: is not there any more: {error}") from error
    except (BaseError, OSError) as error:
        raise UnavailableError(f"output {uri}: {str(error)[:300]}") from error
    return body[start:], following
