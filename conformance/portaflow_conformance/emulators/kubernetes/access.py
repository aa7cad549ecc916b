"""Who calls, and what that one may do: bearer tokens, 401 and 403."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from . import problems
from .resources import SECRETS, SELF_REVIEWS, Resource
from .roles import Roles, groups_of

_READING = ("get", "list", "watch")
_LIFETIME = 3600  # seconds a requested token is good for when the request does not say


@dataclass(frozen=True, slots=True)
class User:
    """A caller. `rights`: "admin" may do all, "view" may read all but secrets; beyond that, and
    for "", roles and their bindings say what is allowed.
    """

    name: str
    rights: str = ""
    expires: float = float("inf")


Authenticator = Callable[[str], User | None]


class Access:
    """Knows tokens of its own and asks `authenticators` about others (EKS, GKE)."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._users: dict[str, User] = {}
        self.roles: Roles | None = None
        self.authenticators: list[Authenticator] = []
        self.admin = self.issue(User("system:serviceaccount:kube-system:portaflow", "admin"))
        self.viewer = self.issue(User("system:serviceaccount:kube-system:viewer", "view"))

    def issue(self, user: User) -> str:
        token = secrets.token_urlsafe(40)
        self._users[token] = user
        return token

    def for_account(self, namespace: str, name: str, seconds: int | None) -> tuple[str, float]:
        """A new token of a service account, and when it expires."""
        expires = self._clock() + (seconds or _LIFETIME)
        user = User(f"system:serviceaccount:{namespace}:{name}", expires=expires)
        return self.issue(user), expires

    def revoke(self, token: str) -> None:
        self._users.pop(token, None)

    def authenticate(self, authorization: str) -> User:
        kind, _, token = authorization.partition(" ")
        if kind.lower() == "bearer" and token:
            user = self._users.get(token)
            if user is None:
                found = (ask(token) for ask in self.authenticators)
                user = next((u for u in found if u is not None), None)
            if user is not None and user.expires > self._clock():
                return user
        raise problems.unauthorized()

    def authorize(
        self, user: User, verb: str, resource: Resource, namespace: str, name: str, sub: str
    ) -> None:
        if resource is SELF_REVIEWS:
            return  # everybody may ask what they may
        if not self.may(user, verb, resource.group, resource.plural, namespace, name, sub):
            raise problems.forbidden(user.name, verb, resource, namespace, name, sub)

    def named(self, name: str) -> User:
        """Whom reviews ask about; nobody need have a token of theirs."""
        return next((u for u in self._users.values() if u.name == name), User(name))

    def may(
        self, user: User, verb: str, group: str, plural: str, namespace: str, name: str, sub: str,
        groups: Sequence[str] | None = None,
    ) -> bool:  # fmt: skip
        """`groups` are those that the user's name says, when they are not given."""
        if user.rights == "admin":
            return True
        shown = plural != SECRETS.plural and sub in ("", "status", "log")
        if user.rights == "view" and verb in _READING and shown:
            return True
        what = f"{plural}/{sub}" if sub else plural
        among = groups_of(user.name) if groups is None else groups
        return self.roles is not None and self.roles.allow(
            user.name, among, verb, group, what, namespace, name
        )
