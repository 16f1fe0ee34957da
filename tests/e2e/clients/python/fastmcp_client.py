"""An MCP client on `fastmcp`, as its documentation writes one, driven line by line (lines.py).

    fastmcp_client.py --url http://localhost:8080/mcp --state DIR [--protocol legacy|auto]

The library does it all: it opens the browser, listens for it and keeps the tokens. Only the browser is ours.
A second process with the same folder is the same client, restarted, on another port.
"""

import argparse
import asyncio
import os
import pathlib
import urllib.parse
import webbrowser
from contextlib import AsyncExitStack

# Its own notices, and a look at the package index for a newer version.
os.environ.update(FASTMCP_CHECK_FOR_UPDATES="off", FASTMCP_SHOW_SERVER_BANNER="false")

import httpx2
from fastmcp import Client
from fastmcp.client.auth import OAuth
from fastmcp.client.transports import StreamableHttpTransport
from key_value.aio.stores.filetree import (
    FileTreeStore,
    FileTreeV1CollectionSanitizationStrategy,
    FileTreeV1KeySanitizationStrategy,
)
from lines import OAuthOperations, Record, listening, plain, serve


class Browser(webbrowser.BaseBrowser):
    """What `webbrowser.open` opens. It says the URL once the library listens where the browser will come back to."""

    def __init__(self, record):
        super().__init__("portcullis")
        self.record = record
        self.tasks = set()

    def open(self, url, new=0, autoraise=True):
        task = asyncio.get_running_loop().create_task(self._open(url))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return True

    async def _open(self, url):
        [redirect] = urllib.parse.parse_qs(urllib.parse.urlsplit(url).query)["redirect_uri"]
        await listening(redirect)
        self.record.authorize(url)


async def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--url", required=True)
    arguments.add_argument("--state", required=True)
    arguments.add_argument("--protocol", choices=["legacy", "auto"])
    given = arguments.parse_args()

    record = Record()
    webbrowser.register("portcullis", None, Browser(record), preferred=True)

    def http_client(**options):
        return record.watch(httpx2.AsyncClient(**options))

    state = pathlib.Path(given.state)
    state.mkdir(mode=0o700, exist_ok=True)
    store = FileTreeStore(
        data_directory=state,
        key_sanitization_strategy=FileTreeV1KeySanitizationStrategy(state),
        collection_sanitization_strategy=FileTreeV1CollectionSanitizationStrategy(state),
    )
    oauth = OAuth(
        given.url,
        client_name="Portcullis test client (fastmcp)",
        token_storage=store,
        callback_timeout=60,
        httpx_client_factory=http_client,
    )
    stack, client = AsyncExitStack(), None

    async def connect():
        nonlocal client
        await stack.aclose()
        transport = StreamableHttpTransport(given.url, auth=oauth, httpx_client_factory=http_client)
        client = await stack.enter_async_context(
            Client(transport, **({"mode": given.protocol} if given.protocol else {}))
        )
        return {"protocol_version": client.protocol_version, "server": plain(client.server_info)}

    async def list_tools():
        tools = await client.list_tools()
        return {"names": [tool.name for tool in tools], "tools": [plain(tool) for tool in tools]}

    async def call(name, arguments=None):
        return {"result": plain(await client.call_tool_mcp(name, arguments or {}))}

    await serve({
        "connect": lambda: record.counted(connect),
        "list": lambda: record.counted(list_tools),
        "call": lambda **request: record.counted(lambda: call(**request)),
        "http": record.http,
        "leave_alone": record.leave_alone,
        "stream_opened": record.opened,
        "stream_ended": record.ended,
        **OAuthOperations(oauth, oauth.token_storage_adapter, list_tools).table(),
    }, stack.aclose)


asyncio.run(main())
