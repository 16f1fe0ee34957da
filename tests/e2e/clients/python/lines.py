"""The wire of lines.mjs, for drivers in Python: one JSON object a line on stdin, one JSON object a line answered.

Also what both Python clients have in common: they speak HTTP through httpx2, and here every exchange is written down.
"""

import asyncio
import base64
import json
import logging
import signal
import sys
import time
import urllib.parse

import httpx2

_out, sys.stdout = sys.stdout, sys.stderr  # print goes to stderr
logging.basicConfig(stream=sys.stderr, level=logging.INFO)


def say(message):
    """Writes one line: an answer, or an event sent while an operation is still under way."""
    try:
        _out.write(json.dumps(message, default=str) + "\n")
        _out.flush()
    except BrokenPipeError:
        pass  # whoever asked is gone; the end of stdin tells us too


async def serve(operations, close):
    """Answers each line with the operation its `op` names, one at a time and in order, until `close` or the end.

    An operation returns what is to be added to {"ok":true}. What it raises is answered as {"ok":false,"error":…}.
    """
    loop = asyncio.get_running_loop()
    stdin = asyncio.StreamReader(limit=1 << 20)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stdin.feed_eof)
    asked = False
    while line := await stdin.readline():
        if not line.strip():
            continue
        op = None
        try:
            request = json.loads(line)
            op = request.pop("op")
            if op == "close":
                asked = True
                break
            if op not in operations:
                raise ValueError(f"no operation {op!r}; there are {', '.join(operations)}, close")
            say({"ok": True, **(await operations[op](**request) or {})})
        except Exception as error:
            logging.exception("%s", op)
            cause = _leaf(error)
            say({"ok": False, "error": str(cause), "name": type(cause).__name__, "code": getattr(cause, "code", None)})
    await close()
    if asked:
        say({"ok": True})


def _leaf(error):
    """The error itself, out of the groups that task groups wrap it in."""
    while getattr(error, "exceptions", None):
        error = error.exceptions[0]
    return error


class EventStream(httpx2.AsyncByteStream):
    """The bytes of an event stream as they come over the wire, and when and how that ended."""

    def __init__(self, stream, opened, ended):
        self.stream, self.opened, self.ended = stream, opened, ended

    async def __aiter__(self):
        try:
            async for data in self.stream:
                self.opened.set()
                yield data
            self._end("closed")
        finally:
            self._end("broken")  # or the library needs it no more

    def _end(self, how):
        if not self.ended.done():
            self.ended.set_result({"at": time.time() * 1000, "how": how})

    async def aclose(self):
        await self.stream.aclose()


class Unattended(Exception):
    """The library wants a person, and nobody is there."""


class Record:
    """Every exchange the library makes, in order, and how often it registered and sent for a person."""

    def __init__(self):
        self.exchanges = []
        self.registrations = 0
        self.authorizations = 0
        self.authorize_urls = []
        self.attended, self.wanted = True, asyncio.Event()
        self.stream_opened, self.stream_ended = asyncio.Event(), asyncio.get_running_loop().create_future()

    def authorize(self, url):
        """Sends for the person."""
        if not self.attended:
            self.wanted.set()
            return
        self.authorizations += 1
        self.authorize_urls.append(url)
        say({"event": "authorize", "url": url})

    def watch(self, client: httpx2.AsyncClient):
        client.event_hooks = {**client.event_hooks, "response": [*client.event_hooks["response"], self._answered]}
        return client

    async def _answered(self, response):
        request = response.request
        headers = dict(request.headers)
        if "authorization" in headers:
            headers["authorization"] = headers["authorization"].split(" ")[0]  # the scheme is enough
        if request.method == "POST" and request.url.path.endswith("/register") and response.status_code == 201:
            self.registrations += 1
        self.exchanges.append({
            "method": request.method,
            "url": str(request.url),
            "headers": headers,
            "body": request.content.decode(),
            "status": response.status_code,
            "www_authenticate": response.headers.get("www-authenticate"),
            "content_type": response.headers.get("content-type"),
        })
        if request.method == "GET" and response.headers.get("content-type", "").startswith("text/event-stream"):
            response.stream = EventStream(response.stream, self.stream_opened, self.stream_ended)

    async def http(self):
        taken, self.exchanges = self.exchanges, []
        return {"exchanges": taken}

    async def _alone(self, operation):
        """What it returns, unless the library wants a person for it: then it waits for one in vain."""
        self.waiting, wanted = asyncio.ensure_future(operation()), asyncio.ensure_future(self.wanted.wait())
        await asyncio.wait([self.waiting, wanted], return_when=asyncio.FIRST_COMPLETED)
        if self.waiting.done():
            wanted.cancel()
            return self.waiting.result()
        raise Unattended("nobody is there to sign in")

    async def leave_alone(self):
        """From now on nobody comes when the library wants a person: whatever needs one fails."""
        self.attended = False

    async def opened(self):
        """Waits until the server has opened an event stream, and said something on it."""
        await self.stream_opened.wait()

    async def ended(self):
        """Waits until the first event stream is over: {at, how: closed|broken}"""
        return await self.stream_ended

    async def counted(self, operation):
        """What it returns, and whether the library registered or sent for a person meanwhile."""
        registrations, authorizations = self.registrations, self.authorizations
        answer = await (operation() if self.attended else self._alone(operation))
        return {
            **answer,
            "registered": self.registrations > registrations,
            "authorized": self.authorizations > authorizations,
        }


def claims(token):
    """The claims of a JWT, unverified; None for a token of another kind."""
    try:
        payload = token.split(".")[1]
        return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (AttributeError, IndexError, ValueError):
        return None


async def listening(url):
    """Waits until somebody listens where this redirect goes."""
    place = urllib.parse.urlsplit(url)
    while True:
        try:
            _, writer = await asyncio.open_connection(place.hostname, place.port)
        except OSError:
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return


def plain(model):
    """A library's own type as JSON."""
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)


class OAuthOperations:
    """What can be asked of an `OAuthClientProvider` of the SDK, which fastmcp's is as well.

    The SDK has no call that refreshes. It does so before a request once the token's life, which it keeps in memory,
    is over; `expire` makes it so.
    """

    def __init__(self, provider, storage, poke):
        self.provider = provider
        self.storage = storage
        self.poke = poke  # any request of a connected client

    async def tokens(self):
        """{access_token, refresh_token, scope, expires_in, token_type, claims, client_id}"""
        tokens, client = await self.storage.get_tokens(), await self.storage.get_client_info()
        return {
            **(plain(tokens) if tokens else {}),
            "claims": claims(tokens and tokens.access_token),
            "client_id": client and client.client_id,
        }

    async def _replace(self, **members):
        tokens = (await self.storage.get_tokens()).model_copy(update=members)
        await self.storage.set_tokens(tokens)
        if self.provider._initialized:
            self.provider.context.current_tokens = tokens
            if "expires_in" in members:
                self.provider.context.update_token_expiry(tokens)

    async def expire(self):
        """The access token's life was over a second ago, as far as the library knows."""
        await self._replace(expires_in=-1)

    async def forget_access(self):
        """Puts rubbish in the access token's place; the refresh token stays."""
        await self._replace(access_token="rubbish")

    async def refresh(self):
        """{access_token_changed, refresh_token_changed}, after a request with an expired token."""
        old = await self.storage.get_tokens()
        await self.expire()
        await self.poke()
        new = await self.storage.get_tokens()
        return {
            "access_token_changed": new.access_token != old.access_token,
            "refresh_token_changed": new.refresh_token != old.refresh_token,
        }

    def table(self):
        return {
            "tokens": self.tokens,
            "expire": self.expire,
            "forget_access": self.forget_access,
            "refresh": self.refresh,
        }
