"""A resource server that accepts Portcullis' access tokens, in Python with PyJWT.

    pip install -r requirements.txt
    portcullis rs add notes --audience http://localhost:9000/notes
    CLIENT_ID=c_… CLIENT_SECRET=cs_… python resource_server.py \
        --issuer http://localhost:8080 --audience http://localhost:9000/notes --port 9000

Without CLIENT_ID it looks at signature and expiry alone (`portcullis rs add … --expiry-only`): a revoked token then
works until it expires.

`Tokens` is the part to take along; what is below it is a small server that shows how to answer.
"""

import argparse
import base64
import json
import os
import re
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import jwt

LEEWAY = 60  # seconds by which clocks may differ
COOLDOWN = 30  # seconds between two looks for a key that is not there
REMEMBERED = 5  # seconds for which an answer to a question may be used again, for reading
LONGEST = 8192  # bytes
REQUIRED = ["iss", "sub", "aud", "exp", "iat", "jti", "client_id"]


class Refused(Exception):
    """The token is not good. Its holder is told no more than that."""


class Unavailable(Exception):
    """It could not be found out whether the token is good: refuse, and say that trying again may help."""


def fetch(url, form=None, headers=None):
    request = urllib.request.Request(url, data=form and urllib.parse.urlencode(form).encode(), headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=5) as response:
            return json.load(response), response.headers
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise Unavailable(str(error)) from error


class KeySet:
    """The issuer's public keys, kept for as long as the issuer allows."""

    def __init__(self, url):
        self.url = url
        self.lock = threading.Lock()
        self.keys = {}
        self.good_until = self.fetched = float("-inf")

    def find(self, kid):
        with self.lock:
            now = time.monotonic()
            stale = now >= self.good_until
            # A new key is published a day before it signs, so this is for emergencies; and for strangers, who
            # must not be able to have the issuer asked as often as they like.
            missing = kid not in self.keys and now >= self.fetched + COOLDOWN
            if stale or missing:
                self._refresh(now)
            if kid not in self.keys:
                raise Refused("no such key")
            return self.keys[kid]

    def _refresh(self, now):
        document, headers = fetch(self.url)
        lifetime = re.search(r"max-age=(\d+)", headers.get("Cache-Control") or "")
        self.keys = {key["kid"]: jwt.PyJWK(key) for key in document["keys"] if key.get("use") == "sig"}
        self.fetched, self.good_until = now, now + int(lifetime[1] if lifetime else 0)


class Tokens:
    """Tells whether an access token is good for this resource server, and what may be done with it."""

    def __init__(self, issuer, audience, client_id=None, client_secret=None):
        # RFC 8414: the issuer's own document says where everything is, and must say that it is the issuer's.
        metadata, _ = fetch(issuer + "/.well-known/oauth-authorization-server")
        if metadata["issuer"] != issuer:
            raise ValueError("the metadata is another issuer's")
        self.issuer, self.audience = issuer, audience
        self.keys = KeySet(metadata["jwks_uri"])
        self.introspection = metadata["introspection_endpoint"] if client_id else None
        basic = base64.b64encode(f"{client_id}:{client_secret}".encode()).decode()
        self.credentials = {"Authorization": f"Basic {basic}"}
        self.answers = {}

    def check(self, token, writes):
        """The token's claims. `scope` in them is what counts at this moment."""
        claims = self._verify(token)
        if self.introspection:
            answer = self._ask(token, claims["jti"], writes)
            if answer.get("active") is not True:
                raise Refused("revoked")
            claims = {**claims, **answer}
        return claims

    def _verify(self, token):
        """Signature and claims (RFC 9068 §4). Nothing is asked of the network but, now and then, the keys."""
        if len(token) > LONGEST:
            raise Refused("too long")
        try:
            header = jwt.get_unverified_header(token)
            # Other kinds of tokens are signed with the same keys.
            if header.get("typ", "").lower() not in ("at+jwt", "application/at+jwt"):
                raise Refused("no access token")
            key = self.keys.find(header.get("kid"))
            # The algorithm is the key's, never the token's.
            claims = jwt.decode(
                token, key.key, algorithms=[key.algorithm_name], issuer=self.issuer, audience=self.audience,
                leeway=LEEWAY, options={"require": REQUIRED},
            )
        except jwt.PyJWTError as error:
            raise Refused(str(error)) from error
        if claims["aud"] not in (self.audience, [self.audience]):
            raise Refused("for others as well")
        return claims

    def _ask(self, token, jti, writes):
        """Introspection (RFC 7662). What writes is asked about every time, reading may use an answer again."""
        now = time.monotonic()
        known = self.answers.get(jti)
        if known and not writes and now < known[0] + REMEMBERED:
            return known[1]
        answer, _ = fetch(self.introspection, {"token": token}, self.credentials)
        self.answers = {k: v for k, v in self.answers.items() if now < v[0] + REMEMBERED}
        self.answers[jti] = (now, answer)
        return answer


NEEDS = {"GET": "docs.read", "POST": "docs.read"}


class Handler(BaseHTTPRequestHandler):
    """`GET /notes` reads, `POST /notes` writes."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == self.server.metadata_path:
            # RFC 9728: how clients find out whom to ask for a token.
            self._answer(200, {
                "resource": self.server.tokens.audience,
                "authorization_servers": [self.server.tokens.issuer],
                "scopes_supported": ["docs.read"],
                "bearer_methods_supported": ["header"],
            })
        else:
            self._serve(writes=False)

    def do_POST(self):
        self._serve(writes=True)

    def _serve(self, writes):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        challenge = f'Bearer resource_metadata="{self.server.metadata_url}", scope="docs.read"'
        scheme, _, token = (self.headers.get("Authorization") or "").partition(" ")
        if scheme.lower() != "bearer":
            return self._answer(401, {"error": "unauthenticated"}, {"WWW-Authenticate": challenge})
        try:
            claims = self.server.tokens.check(token.strip(), writes)
        except Refused:
            return self._answer(401, {"error": "invalid_token"}, {"WWW-Authenticate": challenge + ', error="invalid_token"'})
        except Unavailable:
            return self._answer(503, {"error": "temporarily_unavailable"}, {"Retry-After": "5"})
        if NEEDS[self.command] not in claims["scope"].split():
            return self._answer(403, {"error": "insufficient_scope"}, {"WWW-Authenticate": challenge + ', error="insufficient_scope"'})
        self._answer(200, {"sub": claims["sub"], "client_id": claims["client_id"], "wrote": writes})

    def _answer(self, status, body, headers=None):
        data = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Cache-Control": "no-store", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


def main():
    arguments = argparse.ArgumentParser(description="Accepts Portcullis' access tokens.")
    arguments.add_argument("--issuer", required=True)
    arguments.add_argument("--audience", required=True)
    arguments.add_argument("--port", type=int, default=9000)
    given = arguments.parse_args()
    server = ThreadingHTTPServer(("127.0.0.1", given.port), Handler)
    server.tokens = Tokens(given.issuer, given.audience, os.environ.get("CLIENT_ID"), os.environ.get("CLIENT_SECRET"))
    resource = urllib.parse.urlsplit(given.audience)
    server.metadata_path = "/.well-known/oauth-protected-resource" + resource.path
    server.metadata_url = f"{resource.scheme}://{resource.netloc}{server.metadata_path}"
    print(json.dumps({"port": server.server_port}), flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
