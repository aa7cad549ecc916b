"""Secret Manager: google.cloud.secretmanager.v1.SecretManagerService."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, field
from typing import Any

import google_crc32c
from google.cloud.secretmanager_v1 import types
from google.protobuf import empty_pb2  # type: ignore[import-untyped]

from .paging import page
from .rpc import Call, Code, RefusedError, Service, invalid
from .world import copied, stamp

State: Any = types.SecretVersion.State

_PARENT = re.compile(r"projects/[^/]+")
_SECRET = re.compile(r"(projects/[^/]+)/secrets/([A-Za-z0-9_-]{1,255})")
_VERSION = re.compile(_SECRET.pattern + r"/versions/(\d+|latest)")
_LARGEST = 65_536


@dataclass(slots=True)
class _Version:
    message: Any
    data: bytes


@dataclass(slots=True)
class _Secret:
    message: Any
    number: int
    versions: list[_Version] = field(default_factory=list)


class SecretManager:
    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._all: dict[str, _Secret] = {}
        self._made = 0

    def service(self) -> Service:
        methods: dict[str, tuple[Any, Any]] = {
            "CreateSecret": (types.CreateSecretRequest, self._create),
            "GetSecret": (types.GetSecretRequest, self._get),
            "ListSecrets": (types.ListSecretsRequest, self._list),
            "DeleteSecret": (types.DeleteSecretRequest, self._delete),
            "AddSecretVersion": (types.AddSecretVersionRequest, self._add),
            "AccessSecretVersion": (types.AccessSecretVersionRequest, self._access),
            "GetSecretVersion": (types.GetSecretVersionRequest, self._get_version),
            "ListSecretVersions": (types.ListSecretVersionsRequest, self._list_versions),
            "EnableSecretVersion": (types.EnableSecretVersionRequest, self._enable),
            "DisableSecretVersion": (types.DisableSecretVersionRequest, self._disable),
            "DestroySecretVersion": (types.DestroySecretVersionRequest, self._destroy),
        }
        return Service("secretmanager", methods, private=frozenset(("payload",)))

    def _create(self, request: Any, call: Call) -> Any:
        name = f"{request.parent}/secrets/{request.secret_id}"
        if not _PARENT.fullmatch(request.parent) or not _SECRET.fullmatch(name):
            raise invalid(f"The secret '{name}' is not projects/*/secrets/[A-Za-z0-9_-]+")
        if not request.secret.HasField("replication"):
            raise invalid("Field secret.replication is required")
        with self._lock:
            if name in self._all:
                raise RefusedError(Code.ALREADY_EXISTS, f"Secret [{name}] already exists.")
            message = copied(request.secret)
            message.name = name
            message.create_time.CopyFrom(stamp())
            self._made += 1
            self._all[name] = _Secret(message, self._made)
            return copied(message)

    def _found(self, name: str) -> _Secret:
        if not _SECRET.fullmatch(name):
            raise invalid(f"The name '{name}' is not projects/*/secrets/*")
        if (found := self._all.get(name)) is None:
            text = f"Secret [{name}] not found or has no versions."
            raise RefusedError(Code.NOT_FOUND, text)
        return found

    def _get(self, request: Any, call: Call) -> Any:
        with self._lock:
            return copied(self._found(request.name).message)

    def _list(self, request: Any, call: Call) -> Any:
        _no_filter(request)
        with self._lock:
            inside = f"{request.parent}/secrets/"
            found = [s for name, s in self._all.items() if name.startswith(inside)]
            shown, token = page(found, request.page_size, request.page_token, lambda s: -s.number)
            answer = types.ListSecretsResponse.pb()(next_page_token=token, total_size=len(found))
            answer.secrets.extend(secret.message for secret in shown)
            return answer

    def _delete(self, request: Any, call: Call) -> Any:
        with self._lock:
            self._found(request.name)
            del self._all[request.name]
        return empty_pb2.Empty()

    def _add(self, request: Any, call: Call) -> Any:
        data = request.payload.data
        if not data or len(data) > _LARGEST:
            raise invalid(f"The payload must be 1 to {_LARGEST} bytes")
        if request.payload.HasField("data_crc32c") and request.payload.data_crc32c != _crc(data):
            raise invalid("The payload's checksum does not match its data")
        with self._lock:
            secret = self._found(request.parent)
            message = types.SecretVersion.pb()(
                name=f"{request.parent}/versions/{len(secret.versions) + 1}",
                state=State.ENABLED,
                create_time=stamp(),
                client_specified_payload_checksum=request.payload.HasField("data_crc32c"),
            )
            message.replication_status.automatic.SetInParent()
            secret.versions.append(_Version(message, data))
            return copied(message)

    def _version(self, name: str) -> _Version:
        parts = _VERSION.fullmatch(name)
        if not parts:
            raise invalid(f"The name '{name}' is not projects/*/secrets/*/versions/*")
        secret = self._found(name.rpartition("/versions/")[0])
        number = len(secret.versions) if parts[3] == "latest" else int(parts[3])
        if not 1 <= number <= len(secret.versions):
            raise RefusedError(Code.NOT_FOUND, f"Secret Version [{name}] not found.")
        return secret.versions[number - 1]

    def _access(self, request: Any, call: Call) -> Any:
        with self._lock:
            version = self._version(request.name)
            if version.message.state != State.ENABLED:
                word = State(version.message.state).name
                text = f"Secret Version [{version.message.name}] is in {word} state."
                raise RefusedError(Code.FAILED_PRECONDITION, text)
            answer = types.AccessSecretVersionResponse.pb()(name=version.message.name)
            answer.payload.data = version.data
            answer.payload.data_crc32c = _crc(version.data)
            return answer

    def _get_version(self, request: Any, call: Call) -> Any:
        with self._lock:
            return copied(self._version(request.name).message)

    def _list_versions(self, request: Any, call: Call) -> Any:
        _no_filter(request)
        with self._lock:
            found = self._found(request.parent).versions
            shown, token = page(
                found, request.page_size, request.page_token,
                lambda v: -int(v.message.name.rpartition("/")[2]),
            )  # fmt: skip
            answer = types.ListSecretVersionsResponse.pb()(
                next_page_token=token, total_size=len(found)
            )
            answer.versions.extend(version.message for version in shown)
            return answer

    def _enable(self, request: Any, call: Call) -> Any:
        return self._turned(request.name, State.ENABLED)

    def _disable(self, request: Any, call: Call) -> Any:
        return self._turned(request.name, State.DISABLED)

    def _destroy(self, request: Any, call: Call) -> Any:
        return self._turned(request.name, State.DESTROYED)

    def _turned(self, name: str, state: int) -> Any:
        with self._lock:
            version = self._version(name)
            if version.message.state == State.DESTROYED:
                text = f"Secret Version [{name}] is in DESTROYED state."
                raise RefusedError(Code.FAILED_PRECONDITION, text)
            version.message.state = state
            if state == State.DESTROYED:
                version.data = b""
                version.message.destroy_time.CopyFrom(stamp())
            return copied(version.message)


def _no_filter(request: Any) -> None:
    if request.filter:
        raise RefusedError(Code.UNIMPLEMENTED, "filters are not in the local secretmanager")


def _crc(data: bytes) -> int:
    return int(google_crc32c.value(data))
