"""Options that say who may ask, and where it is written down; for the gateway and `inferx up`."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import click

from inferx.core.errors import DescriptionError
from inferx.exec.identity.issuer_keys import IssuerUnavailableError, check_url
from inferx.exec.identity.oidc import IssuerSettings
from inferx.spec.reference import NAME, is_name

__all__ = ["AUDIT", "IdentityOptions", "identity_options"]

F = TypeVar("F", bound=Callable[..., Any])

AUDIT: Final = click.option(
    "--audit",
    metavar="WHERE",
    help="Audit log: sqlite:PATH or postgresql://USER@HOST/DATABASE; its password is in "
    "?password-file=PATH or INFERX_AUDIT_PASSWORD.",
)
ROLES: Final = "realm_access.roles"
NAME_CLAIM: Final = "preferred_username"


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityOptions:
    """What was said of callers.

    Attributes:
        issuers: URLs of OpenID Connect issuers.
        audience: For whom their tokens are made.
        roles_claim: Where in a token its roles are, with dots between the names.
        name_claim: What in a token is the user's name, to which roles are granted.
        admin_role: The role of the cluster's administrators; empty: none is.
        public: Tenants whose functions everybody may call.
    """

    issuers: tuple[str, ...]
    audience: str
    roles_claim: str
    name_claim: str
    admin_role: str
    public: tuple[str, ...]

    def settings(self) -> tuple[IssuerSettings, ...]:
        """Return the issuers.

        Raises:
            DescriptionError: One cannot be trusted, or it is not said whom tokens are for.
        """
        for name in self.public:
            if not is_name(name):
                raise DescriptionError(f"--public-tenant {name[:40]!r}: expected {NAME}")
        if not self.issuers:
            if self.audience or self.admin_role:
                raise DescriptionError("--oidc-audience, --oidc-admin-role: no --oidc-issuer")
            return ()
        if not self.audience:
            raise DescriptionError(
                "--oidc-issuer: no --oidc-audience; expected for whom tokens are made, or those of "
                "any other application would do"
            )
        for issuer in self.issuers:
            try:
                check_url(issuer)
            except IssuerUnavailableError as error:
                raise DescriptionError(f"--oidc-issuer {error}") from error
        return tuple(
            IssuerSettings(
                issuer=issuer,
                audience=self.audience,
                roles_claim=tuple(self.roles_claim.split(".")),
                admin_role=self.admin_role,
                name_claim=self.name_claim,
            )
            for issuer in self.issuers
        )

    def words(self) -> tuple[str, ...]:
        """Return the options again, for the command of a gateway."""
        given = [("--oidc-issuer", issuer) for issuer in self.issuers]
        given += [("--public-tenant", tenant) for tenant in self.public]
        if self.audience:
            given.append(("--oidc-audience", self.audience))
        if self.admin_role:
            given.append(("--oidc-admin-role", self.admin_role))
        if self.roles_claim != ROLES:
            given.append(("--oidc-roles-claim", self.roles_claim))
        if self.name_claim != NAME_CLAIM:
            given.append(("--oidc-name-claim", self.name_claim))
        return tuple(word for option in given for word in option)


_OPTIONS: Final = (
    click.option(
        "--oidc-issuer",
        "issuers",
        multiple=True,
        metavar="URL",
        help="Takes bearer tokens of this OpenID Connect issuer.",
    ),
    click.option("--oidc-audience", "audience", default="", help="For whom they must be made."),
    click.option(
        "--oidc-roles-claim",
        "roles_claim",
        default=ROLES,
        show_default=True,
        help="Where their roles are.",
    ),
    click.option(
        "--oidc-name-claim",
        "name_claim",
        default=NAME_CLAIM,
        show_default=True,
        help="Where the user's name is, for roles that are granted by name.",
    ),
    click.option(
        "--oidc-admin-role",
        "admin_role",
        default="",
        help="The role of the cluster's administrators.  [default: no role is]",
    ),
    click.option(
        "--public-tenant",
        "public",
        multiple=True,
        metavar="NAME",
        help="Everybody may call this tenant's functions, without a key.",
    ),
)


def identity_options(command: F) -> F:
    """Add the options; the command takes them as one `identity`."""

    @functools.wraps(command)
    def gathered(
        *args: Any,
        issuers: tuple[str, ...],
        audience: str,
        roles_claim: str,
        name_claim: str,
        admin_role: str,
        public: tuple[str, ...],
        **more: Any,
    ) -> Any:
        identity = IdentityOptions(
            issuers=issuers,
            audience=audience,
            roles_claim=roles_claim,
            name_claim=name_claim,
            admin_role=admin_role,
            public=public,
        )
        return command(*args, identity=identity, **more)

    wrapped: Any = gathered
    for option in reversed((*_OPTIONS, AUDIT)):
        wrapped = option(wrapped)
    return wrapped  # type: ignore[no-any-return]
