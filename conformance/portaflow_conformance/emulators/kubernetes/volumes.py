"""Volumes and environment of a pod, made from the objects that it names."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from . import podspec
from .problems import Json
from .resources import CONFIG_MAPS, SECRETS, SERVICES, Resource
from .sandbox import Mount
from .security import share
from .store import Store

_VARIABLE = re.compile(r"\$\$|\$\(([-._a-zA-Z][-._a-zA-Z0-9]*)\)")
_SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['(.+)'\]")

_TOKEN_LIFE = 3600  # seconds

Token = Callable[[str, str, int], str]  # of a namespace's account, for some seconds


class Missing(Exception):
    """A pod names what is not there yet: the kubelet waits for it."""


class Volumes:
    """The volumes of one pod, as folders below `folder`."""

    def __init__(self, store: Store, pod: Json, folder: Path, token: Token) -> None:
        self._store = store
        self._token = token
        self.tokens: list[str] = []  # that are the pod's, and good as long as it is there
        self._pod = pod
        self._folder = folder
        self._made: dict[str, Path] = {}
        self._fixed: set[str] = set()  # volumes that may not be written

    def make(self) -> None:
        """Make all that the pod asks for. Raises Missing."""
        for volume in self._pod["spec"].get("volumes") or []:
            name = volume["name"]
            if name in self._made:
                continue
            folder = self._folder / "volumes" / name
            if (host := volume.get("hostPath")) is not None:
                folder = Path(host["path"])
                if not folder.exists() and not str(host.get("type", "")).endswith("OrCreate"):
                    raise Missing(f'hostPath type check failed: "{folder}" is not there')
                if not folder.exists():
                    folder.mkdir(parents=True)
            else:
                files = self._files(volume)
                folder.mkdir(parents=True, exist_ok=True)
                folder.chmod(0o777)
                for path, (data, mode) in files.items():
                    _write(folder / path, data, mode)
                if "emptyDir" not in volume:
                    self._fixed.add(name)
                group = (self._pod["spec"].get("securityContext") or {}).get("fsGroup")
                if group is not None and os.getuid() == 0:
                    share(folder, group)
            self._made[name] = folder

    def mounts(self, container: Json, env: Mapping[str, str]) -> list[Mount]:
        """What a container sees of the volumes, outermost mount point first."""
        mounts = []
        for entry in container.get("volumeMounts") or []:
            source = self._made[entry["name"]]
            sub = entry.get("subPath") or expanded(entry.get("subPathExpr") or "", env)
            if sub:
                source = source / sub
                if not source.exists():
                    source.mkdir(parents=True)
            fixed = bool(entry.get("readOnly")) or entry["name"] in self._fixed
            mounts.append(Mount(source, entry["mountPath"].rstrip("/") or "/", fixed))
        return sorted(mounts, key=lambda m: m.target)

    def _files(self, volume: Json) -> dict[str, tuple[bytes, int]]:
        if (config := volume.get("configMap")) is not None:
            return self._of_object(CONFIG_MAPS, config.get("name", ""), config)
        if (secret := volume.get("secret")) is not None:
            return self._of_object(SECRETS, secret.get("secretName", ""), secret)
        if (down := volume.get("downwardAPI")) is not None:
            return self._of_pod(down.get("items") or [])
        files: dict[str, tuple[bytes, int]] = {}
        for source in (volume.get("projected") or {}).get("sources") or []:
            if (config := source.get("configMap")) is not None:
                files |= self._of_object(CONFIG_MAPS, config.get("name", ""), config)
            elif (secret := source.get("secret")) is not None:
                files |= self._of_object(SECRETS, secret.get("name", ""), secret)
            elif (down := source.get("downwardAPI")) is not None:
                files |= self._of_pod(down.get("items") or [])
            elif (told := source.get("serviceAccountToken")) is not None:
                account = self._pod["spec"].get("serviceAccountName", "default")
                seconds = told.get("expirationSeconds") or _TOKEN_LIFE
                token = self._token(self._pod["metadata"]["namespace"], account, seconds)
                self.tokens.append(token)
                files[told["path"]] = (token.encode(), 0o644)
        return files

    def _of_object(self, resource: Resource, name: str, source: Json) -> dict[str, Any]:
        namespace = self._pod["metadata"]["namespace"]
        obj = self._store.find(resource, namespace, name)
        if obj is None:
            if source.get("optional"):
                return {}
            raise Missing(f'{resource.singular} "{name}" not found')
        data, mode = values(obj), source.get("defaultMode") or 0o644
        items = source.get("items")
        if not items:
            return {key: (value, mode) for key, value in data.items()}
        files = {}
        for item in items:
            if item["key"] in data:
                files[item["path"]] = (data[item["key"]], item.get("mode") or mode)
            elif not source.get("optional"):
                raise Missing(f"references non-existent {resource.singular} key: {item['key']}")
        return files

    def _of_pod(self, items: list[Json]) -> dict[str, tuple[bytes, int]]:
        files = {}
        for item in items:
            path = (item.get("fieldRef") or {}).get("fieldPath", "")
            files[item["path"]] = (field(self._pod, path, "").encode(), item.get("mode") or 0o644)
        return files


def _write(path: Path, data: bytes, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.chmod(mode)


def values(obj: Json) -> dict[str, bytes]:
    """The entries of a config map or secret."""
    plain = obj.get("data") or {}
    if obj["kind"] == "Secret":
        return {k: base64.b64decode(v) for k, v in plain.items()}
    binary = obj.get("binaryData") or {}
    return {
        **{k: v.encode() for k, v in plain.items()},
        **{k: base64.b64decode(v) for k, v in binary.items()},
    }


def hosts(store: Store, pod: Json, address: str) -> str:
    """The names that a container knows: its own, its aliases, and those of the Services."""
    meta = pod["metadata"]
    lines = ["127.0.0.1 localhost", "::1 localhost", f"{address} {meta['name']}"]
    for alias in pod["spec"].get("hostAliases") or []:
        lines.append(f"{alias['ip']} {' '.join(alias.get('hostnames') or [])}")
    for one in store.each(SERVICES):
        name, namespace = one["metadata"]["name"], one["metadata"]["namespace"]
        full = f"{name}.{namespace}"
        short = [name] if namespace == meta["namespace"] else []
        names = [*short, full, f"{full}.svc", f"{full}.svc.cluster.local"]
        lines.append(f"{address} {' '.join(names)}")
    return "\n".join(lines) + "\n"


def environment(store: Store, pod: Json, container: Json, address: str) -> dict[str, str]:
    """The variables that a container asks for. Raises Missing."""
    namespace = pod["metadata"]["namespace"]
    env: dict[str, str] = {}
    for source in container.get("envFrom") or []:
        for kind, resource in (("configMapRef", CONFIG_MAPS), ("secretRef", SECRETS)):
            if (ref := source.get(kind)) is None:
                continue
            obj = store.find(resource, namespace, ref.get("name", ""))
            if obj is None and not ref.get("optional"):
                raise Missing(f'{resource.singular} "{ref.get("name", "")}" not found')
            prefix = source.get("prefix") or ""
            for key, data in values(obj).items() if obj else ():
                env[prefix + key] = data.decode()
    for entry in container.get("env") or []:
        origin = entry.get("valueFrom")
        if not origin:
            env[entry["name"]] = expanded(entry.get("value") or "", env)
            continue
        value = _value(store, pod, container, origin, address)
        if value is not None:
            env[entry["name"]] = value
    return env


def _value(store: Store, pod: Json, container: Json, origin: Json, address: str) -> str | None:
    if (ref := origin.get("fieldRef")) is not None:
        return field(pod, ref.get("fieldPath", ""), address)
    if (ref := origin.get("resourceFieldRef")) is not None:
        return _amount(pod, container, ref)
    for kind, resource in (("configMapKeyRef", CONFIG_MAPS), ("secretKeyRef", SECRETS)):
        if (ref := origin.get(kind)) is None:
            continue
        namespace, name = pod["metadata"]["namespace"], ref.get("name", "")
        obj = store.find(resource, namespace, name)
        if obj is None:
            if ref.get("optional"):
                return None
            raise Missing(f'{resource.singular} "{name}" not found')
        found = values(obj).get(ref["key"])
        if found is None and not ref.get("optional"):
            kind_ = "ConfigMap" if resource is CONFIG_MAPS else "Secret"
            raise Missing(f"couldn't find key {ref['key']} in {kind_} {namespace}/{name}")
        return None if found is None else found.decode()
    raise Missing(f"not implemented by this stand-in: valueFrom {', '.join(origin)}")


def field(pod: Json, path: str, address: str) -> str:
    """The value of a pod's field, as `fieldRef` names it."""
    if match := _SUBSCRIPT.fullmatch(path):
        return str((pod["metadata"].get(match[1]) or {}).get(match[2], ""))
    if path in ("metadata.labels", "metadata.annotations"):
        entries = pod["metadata"].get(path.partition(".")[2]) or {}
        return "\n".join(f'{k}="{v}"' for k, v in sorted(entries.items()))
    if path in ("status.podIP", "status.hostIP", "status.podIPs", "status.hostIPs"):
        return address
    value: Any = pod
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    if not isinstance(value, str):
        raise Missing(f"failed to resolve fieldPath {path!r}")
    return value


def _amount(pod: Json, container: Json, ref: Json) -> str:
    named = ref.get("containerName")
    for one in podspec.containers(pod["spec"]) if named else ():
        if one["name"] == named:
            container = one
    group, _, name = ref["resource"].partition(".")
    amounts = (container.get("resources") or {}).get(group) or {}
    amount = podspec.quantity(amounts.get(name, 0))
    divisor = podspec.quantity(ref.get("divisor") or 1) or 1
    return str(-(-amount // divisor))


def expanded(text: str, env: Mapping[str, str]) -> str:
    """Put variables in for $(NAME); $$ is a plain dollar, an unknown name stays."""

    def one(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        return env.get(match[1], match[0])

    return _VARIABLE.sub(one, text)
