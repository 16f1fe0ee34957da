"""An MCP client on the Python SDK (`mcp`), as an application would write one, driven line by line (lines.py).

    mcp_client.py --url http://localhost:8080/mcp --state FILE.json [--protocol legacy|auto]

OAuth is the SDK's `OAuthClientProvider`; the store and the loopback listener, which it leaves to the application, are
here. A second process with the same file is the same client, restarted.
"""

import argparse
import asyncio
import json
import os
import urllib.parse
from contextlib import AsyncExitStack

from mcp.client import Client
from mcp.client.auth import OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientInformationFull, OAuthClientMetadata, OAuthToken

from lines import OAuthOperations, Record, plain, serve

CALLBACK_PATIENCE = 60


class State:
    """What outlives the process: the SDK's `TokenStorage`, and the port of the callback."""

    def __init__(self, path):
        self.path = path
        try:
            with open(path) as file:
                self.kept = json.load(file)
        except FileNotFoundError:
            self.kept = {}

    def keep(self, name, value):
        self.kept[name] = value
        with open(f"{self.path}.new", "w", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            json.dump(self.kept, file, indent=2)
        os.replace(f"{self.path}.new", self.path)

    async def get_tokens(self):
        return OAuthToken.model_validate(self.kept["tokens"]) if "tokens" in self.kept else None

    async def set_tokens(self, tokens):
        self.keep("tokens", plain(tokens))

    async def get_client_info(self):
        return OAuthClientInformationFull.model_validate(self.kept["client"]) if "client" in self.kept else None

    async def set_client_info(self, client):
        self.keep("client", plain(client))


class Refused(Exception):
    """The authorization server answered with an error; `code` is OAuth's."""

    def __init__(self, query):
        super().__init__(f"{query['error']}: {query.get('error_description', 'no description')}")
        self.code = query["error"]


class Callback:
    """The loopback listener that the browser comes back to. It takes its old port again if that is free."""

    def __init__(self):
        self.arrivals = asyncio.Queue()
        self.last = None

    async def listen(self, port):
        try:
            self.server = await asyncio.start_server(self._serve, "127.0.0.1", port)
        except OSError:
            self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)  # RFC 8252 §7.3
        self.port = self.server.sockets[0].getsockname()[1]
        self.redirect = f"http://localhost:{self.port}/callback"
        return self

    async def _serve(self, reader, writer):
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            url = urllib.parse.urlsplit(head[0].split(" ")[1])
            found = url.path == "/callback"
            page = b"You can close this window and go back to the client." if found else b"Not found"
            writer.write(b"HTTP/1.1 %s\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (
                b"200 OK" if found else b"404 Not Found", len(page), page))
            await writer.drain()
            if found:
                headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
                self.last = {"url": url.geturl(), "query": dict(urllib.parse.parse_qsl(url.query)), "headers": headers}
                self.arrivals.put_nowait(self.last["query"])
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # a browser that opens a connection in advance and needs it not
        finally:
            writer.close()

    async def arrival(self):
        query = await asyncio.wait_for(self.arrivals.get(), CALLBACK_PATIENCE)
        if "error" in query:
            raise Refused(query)
        return AuthorizationCodeResult(code=query["code"], state=query.get("state"), iss=query.get("iss"))


async def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--url", required=True)
    arguments.add_argument("--state", required=True)
    arguments.add_argument("--protocol", choices=["legacy", "auto"])
    given = arguments.parse_args()

    record, state = Record(), State(given.state)
    callback = await Callback().listen(state.kept.get("callback_port", 0))
    state.keep("callback_port", callback.port)

    async def open_browser(url):
        record.authorize(url)

    provider = OAuthClientProvider(
        server_url=given.url,
        client_metadata=OAuthClientMetadata(
            client_name="Portcullis test client (Python SDK)",
            redirect_uris=[callback.redirect],
            grant_types=["authorization_code", "refresh_token"],
            token_endpoint_auth_method="none",
        ),
        storage=state,
        redirect_handler=open_browser,
        callback_handler=callback.arrival,
    )
    stack, client = AsyncExitStack(), None

    async def connect():
        nonlocal client
        await stack.aclose()
        http_client = await stack.enter_async_context(record.watch(create_mcp_http_client(auth=provider)))
        transport = streamable_http_client(given.url, http_client=http_client)
        client = await stack.enter_async_context(Client(transport, **({"mode": given.protocol} if given.protocol else {})))
        return {"protocol_version": client.protocol_version, "server": plain(client.server_info)}

    async def list_tools():
        tools = (await client.list_tools(cache_mode="refresh")).tools
        return {"names": [tool.name for tool in tools], "tools": [plain(tool) for tool in tools]}

    async def call(name, arguments=None):
        return {"result": plain(await client.call_tool(name, arguments))}

    async def last_callback():
        return {"callback": callback.last}

    async def close():
        if record.wanted.is_set():
            os._exit(0)  # the SDK would go on waiting for its person
        await stack.aclose()
        callback.server.close()

    await serve({
        "connect": lambda: record.counted(connect),
        "list": lambda: record.counted(list_tools),
        "call": lambda **request: record.counted(lambda: call(**request)),
        "callback": last_callback,
        "http": record.http,
        "leave_alone": record.leave_alone,
        "stream_opened": record.opened,
        "stream_ended": record.ended,
        **OAuthOperations(provider, state, list_tools).table(),
    }, close)


asyncio.run(main())
