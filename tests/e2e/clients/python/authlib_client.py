"""An application on Authlib, which knows nothing of MCP, driven line by line (lines.py) with the operations of openid-client.mjs.

    authlib_client.py --issuer http://localhost:8080
"""

import argparse
import asyncio
import os
import time

# Plain HTTP is for this computer alone, and the library wants to hear that it is meant.
os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"

import requests
from authlib.common.errors import AuthlibBaseError as OAuthError
from authlib.common.security import generate_token
from authlib.integrations.requests_client import OAuth2Session
from authlib.oauth2.rfc7523 import PrivateKeyJWT
from joserfc.jwk import ECKey
from lines import serve


class Refused(Exception):
    """An answer that is no success; `code` is OAuth's error."""

    def __init__(self, answer):
        body = answer.json() if answer.headers.get("content-type", "").startswith("application/json") else {}
        super().__init__(f"{answer.status_code}: {body}")
        self.code = body.get("error")


def explained(operation):
    """The same; what Authlib raises carries OAuth's error as `code`."""

    async def explaining(**request):
        try:
            return await operation(**request)
        except OAuthError as error:
            error.code = error.error
            raise

    return explaining


class ShortLived(PrivateKeyJWT):
    """Assertions for two minutes. Authlib's own last an hour, and this server takes none of more than five minutes."""

    def sign(self, auth, token_endpoint):
        self.claims = {"exp": int(time.time()) + 120}
        return super().sign(auth, token_endpoint)


class Application:
    """One client of the server, and what it is in the middle of."""

    def __init__(self, issuer):
        self.issuer = issuer
        self.metadata = requests.get(f"{issuer}/.well-known/oauth-authorization-server", timeout=10).json()
        self.session = None
        self.verifier = self.state = None

    def session_of(self, client_id, method="none", client_secret=None, private_key=None, kid=None, **more):
        if method == "private_key_jwt":
            client_secret = ECKey.import_key(private_key)
        session = OAuth2Session(
            client_id,
            client_secret,
            token_endpoint_auth_method=method,
            revocation_endpoint_auth_method=method,
            code_challenge_method="S256",
            token_endpoint=self.metadata["token_endpoint"],
            **more,
        )
        if method == "private_key_jwt":
            # RFC 7523bis: the assertion is for the issuer. Authlib's own choice is the token endpoint.
            signer = ShortLived(self.issuer, headers={"kid": kid} if kid else None, alg="ES256")
            session.register_client_auth_method(signer)
        return session

    async def register(self, metadata):
        answer = requests.post(self.metadata["registration_endpoint"], json=metadata, timeout=10)
        if answer.status_code != 201:
            raise Refused(answer)
        client = answer.json()
        await self.use(client["client_id"], client["token_endpoint_auth_method"], client.get("client_secret"))
        return {"client": client}

    async def use(self, client_id, method="none", client_secret=None, private_key=None, kid=None):
        self.session = self.session_of(client_id, method, client_secret, private_key, kid)
        return {"metadata": self.metadata}

    async def begin(self, redirect_uri, scope, resource):
        self.session.redirect_uri, self.session.scope = redirect_uri, scope
        self.verifier = generate_token(48)
        url, self.state = self.session.create_authorization_url(
            self.metadata["authorization_endpoint"], code_verifier=self.verifier, resource=resource
        )
        return {"url": url}

    async def finish(self, url):
        tokens = self.session.fetch_token(authorization_response=url, state=self.state, code_verifier=self.verifier)
        return {"tokens": dict(tokens)}

    async def refresh(self, refresh_token):
        return {"tokens": dict(self.session.refresh_token(refresh_token=refresh_token))}

    async def client_credentials(self, scope, resource):
        tokens = self.session.fetch_token(grant_type="client_credentials", scope=scope, resource=resource)
        return {"tokens": dict(tokens)}

    async def revoke(self, token):
        answer = self.session.revoke_token(self.metadata["revocation_endpoint"], token=token)
        if answer.status_code != 200:
            raise Refused(answer)
        return {}

    async def introspect(self, token, **whose):
        session = self.session_of(**whose["as"])
        answer = session.introspect_token(self.metadata["introspection_endpoint"], token=token)
        if answer.status_code != 200:
            raise Refused(answer)
        return {"introspection": answer.json()}


async def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--issuer", required=True)
    application = Application(arguments.parse_args().issuer)
    names = ["register", "use", "begin", "finish", "refresh", "client_credentials", "revoke", "introspect"]

    async def close():
        pass

    await serve({name: explained(getattr(application, name)) for name in names}, close)


asyncio.run(main())
