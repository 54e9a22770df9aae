"""Bearer tokens of an OpenID provider: believed only if everything about them is right."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from deployments.control.oidc import OidcProviders
from tests.deployments.control.world import START_S, World, running, settings_of
from weir.settings.admin import OidcSettings
from weir.tenancy import Role

_ISSUER = "https://id.example/realm"
_KEY = rsa.generate_private_key(65537, 2048)
_OTHER = rsa.generate_private_key(65537, 2048)


def _key_set(key: rsa.RSAPrivateKey = _KEY) -> str:
    public = json.loads(RSAAlgorithm.to_jwk(key.public_key()))
    return json.dumps({"keys": [{**public, "kid": "one", "use": "sig", "alg": "RS256"}]})


def _token(key: Any = _KEY, algorithm: str = "RS256", **claims: Any) -> str:
    said = {
        "iss": _ISSUER,
        "aud": "weir",
        "sub": "alice",
        "exp": START_S + 600,
        "weir_role": "tenant-admin",
        "weir_tenant": "acme",
    } | claims
    kept = {name: value for name, value in said.items() if value is not None}
    return jwt.encode(kept, key, algorithm, headers={"kid": "one"})


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    file = tmp_path / "jwks.json"
    file.write_text(_key_set())
    return file


@pytest.fixture
async def world(database_url: str, keys_file: Path) -> AsyncIterator[World]:
    provider = {"issuer": _ISSUER, "audience": ["weir"], "jwks_file": str(keys_file)}
    mapped = {
        "issuer": "https://mapped.example",
        "audience": ["weir"],
        "jwks_file": str(keys_file),
        "role_claim": "realm.roles",
        "roles": {"platform-team": "admin", "reader": "read-only"},
        "tenant_claim": "https://mapped.example/org",
        "tenants": {"Acme Corp": "acme"},
        "actor_claim": "email",
    }
    async with running(database_url, settings_of(oidc=[provider, mapped])) as made:
        await _until_keys_are_known(made)
        yield made


async def _until_keys_are_known(world: World) -> None:
    while (await world.ask("GET", "/v1/tenant", _token())).status_code == 503:  # noqa: ASYNC110
        await asyncio.sleep(0.01)


async def test_a_good_token_is_who_it_says(world: World) -> None:
    answer = await world.ask("GET", "/v1/tenant", _token())
    assert (answer.status_code, answer.json()["id"]) == (200, "acme")
    made = await world.ask("POST", "/v1/tenant/keys", _token(), json={})
    assert made.status_code == 201
    log = await world.ask("GET", "/v1/tenant/audit", _token())
    assert log.json()["data"][0]["actor"] == f"oidc:{_ISSUER}#alice"


@pytest.mark.parametrize(
    "token",
    [
        _token(key=_OTHER),
        _token(iss="https://elsewhere.example"),
        _token(aud="another"),
        _token(aud=None),
        _token(exp=START_S - 31),
        _token(exp=None),
        _token(nbf=START_S + 31),
        _token(key="x" * 32, algorithm="HS256"),
        _token(key=None, algorithm="none"),
        "a.b.c",
        _token()[:-8] + "AAAAAAAA",
    ],
)
async def test_a_token_that_cannot_be_believed_is_a_401(token: str, world: World) -> None:
    answer = await world.ask("GET", "/v1/tenant", token)
    assert answer.status_code == 401, answer.text


@pytest.mark.parametrize(
    ("claims", "status"),
    [
        ({"weir_role": None}, 403),
        ({"weir_role": "root"}, 403),
        ({"weir_role": "tenant-user"}, 403),
        ({"weir_role": ["read-only", "tenant-admin"]}, 201),
        ({"weir_tenant": None}, 403),
        ({"weir_tenant": ["acme", "other"]}, 403),
        ({"weir_tenant": "nobody"}, 404),
        ({"exp": START_S - 29}, 201),
    ],
)
async def test_its_claims_say_what_it_may(
    claims: dict[str, Any], status: int, world: World
) -> None:
    answer = await world.ask("POST", "/v1/tenant/keys", _token(**claims), json={})
    assert answer.status_code == status, answer.text


async def test_claims_of_a_provider_are_translated(world: World) -> None:
    def token(**claims: Any) -> str:
        plain = {"weir_role": None, "weir_tenant": None, "email": "a@b.example"}
        return _token(iss="https://mapped.example", **plain | claims)

    admin = token(realm={"roles": ["other", "platform-team", "reader"]})
    assert (await world.ask("GET", "/admin/v1/tenants", admin)).status_code == 200
    assert (await world.ask("GET", "/v1/tenant", admin)).status_code == 403  # of no tenant
    reader = token(realm={"roles": ["reader"]}, **{"https://mapped.example/org": "Acme Corp"})
    assert (await world.ask("GET", "/v1/tenant", reader)).json()["id"] == "acme"
    # A role's own name means nothing where roles are translated.
    named = token(realm={"roles": ["admin"]})
    assert (await world.ask("GET", "/admin/v1/tenants", named)).status_code == 403
    untranslated = token(realm={"roles": ["reader"]}, **{"https://mapped.example/org": "acme"})
    assert (await world.ask("GET", "/v1/tenant", untranslated)).status_code == 403


async def test_a_tenant_that_was_deleted_is_gone_for_its_tokens(world: World) -> None:
    world.store.delete_tenant("test", "acme")
    assert (await world.ask("GET", "/v1/tenant", _token())).status_code == 404


@pytest.fixture
def provider() -> Iterator[str]:
    """An issuer with a discovery document."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            here = f"http://127.0.0.1:{self.server.server_address[1]}"
            pages = {
                "/.well-known/openid-configuration": json.dumps(
                    {"issuer": here, "jwks_uri": f"{here}/keys"}
                ),
                "/keys": _key_set(),
            }
            body = pages[self.path].encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


async def test_the_keys_are_found_by_discovery(provider: str) -> None:
    providers = OidcProviders((OidcSettings(issuer=provider, audience=("weir",)),))
    providers.start()
    try:
        await providers._providers[provider].keys.wait_until_loaded()
        identity = providers.identify(_token(iss=provider), START_S)
    finally:
        await providers.close()
    assert (identity.role, identity.tenant) == (Role.TENANT_ADMIN, "acme")
