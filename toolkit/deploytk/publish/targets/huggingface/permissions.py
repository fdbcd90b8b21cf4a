"""What an access token may do, by what the hub says of its account."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deploytk.publish.obstacles import Obstacle


@dataclass(frozen=True, slots=True)
class Permission:
    says: str  # in words
    may_write: bool
    may_create: bool

    def obstacles(self, hint: str, *, is_there: bool) -> list[Obstacle]:
        is_enough = self.may_write if is_there else self.may_create
        return [] if is_enough else [Obstacle(self.says, hint)]


def permission(account: Mapping[str, Any], repo: str) -> Permission:
    """What the token may do with the repository OWNER/NAME."""
    who = str(account.get("name"))
    owner = repo.split("/")[0]
    token = account.get("auth", {}).get("accessToken", {})
    role = token.get("role")
    teams = {str(team.get("name")): team.get("roleInOrg") for team in account.get("orgs", [])}
    if owner != who and owner not in teams:
        says = f"the token of {who} may not write: {owner} is neither that account nor one of its organizations"
        return Permission(says, may_write=False, may_create=False)
    if role == "read" or teams.get(owner) == "read":
        return Permission(f"the token of {who} may only read", may_write=False, may_create=False)
    if role != "fineGrained":
        return Permission(f"the token of {who} may write", may_write=True, may_create=True)
    return _fine_grained(token, who, owner, repo)


def _fine_grained(token: Mapping[str, Any], who: str, owner: str, repo: str) -> Permission:
    grants = token.get("fineGrained", {}).get("scoped", [])
    allowed = {
        str(grant.get("entity", {}).get("name"))
        for grant in grants
        if {"repo.write", "repo.content.write"} & set(grant.get("permissions", []))
    }
    if repo in allowed and owner not in allowed:
        says = f"the token of {who} may write to {repo}, and create nothing else"
        return Permission(says, may_write=True, may_create=False)
    may = owner in allowed
    says = f"the token of {who} {'may write' if may else 'may not write'} to repositories of {owner}"
    return Permission(says, may_write=may, may_create=may)
