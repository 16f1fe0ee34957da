"""mcp-server-time, which speaks stdio, served over streamable HTTP by fastmcp. Prints its port when it listens."""

import asyncio
import socket
import sys

from fastmcp.server import create_proxy


async def main() -> None:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    arguments = ["-m", "mcp_server_time", "--local-timezone", "UTC"]
    servers = {"mcpServers": {"time": {"command": sys.executable, "args": arguments}}}
    print(listener.getsockname()[1], flush=True)
    await create_proxy(servers, name="time").run_http_async(
        show_banner=False, path="/mcp", sockets=[listener], log_level="error"
    )


asyncio.run(main())
