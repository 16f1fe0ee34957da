"""A database as an MCP server, on the official Python SDK: every revision, without sessions.

    pip install -r requirements.txt && python3 database.py [PORT]

It prints its URL, then one line of JSON on stderr for each request: the path and the names of the headers.
"""

import json
import socket
import sqlite3
import sys

import uvicorn
from mcp.server.mcpserver import MCPServer
from mcp_types import ToolAnnotations

server = MCPServer("database")

connection = sqlite3.connect(":memory:", check_same_thread=False)
connection.executescript(
    """
    CREATE TABLE machine (name TEXT PRIMARY KEY, room TEXT NOT NULL, cores INTEGER NOT NULL);
    INSERT INTO machine VALUES ('build-1', 'B12', 32), ('build-2', 'B12', 64), ('wiki', 'A03', 4);
    PRAGMA query_only = ON;
    """
)


@server.tool(title="List machines", annotations=ToolAnnotations(read_only_hint=True))
def machines(room: str | None = None) -> list[dict[str, str | int]]:
    """Lists the machines of the inventory, of one room if it is given."""
    rows = connection.execute(
        "SELECT name, room, cores FROM machine WHERE ?1 IS NULL OR room = ?1 ORDER BY name", (room,)
    )
    return [{"name": name, "room": room, "cores": cores} for name, room, cores in rows]


@server.tool(title="Count cores", annotations=ToolAnnotations(read_only_hint=True))
def cores() -> int:
    """Counts the processor cores of all machines."""
    return connection.execute("SELECT sum(cores) FROM machine").fetchone()[0]


class Logged:
    """Writes one line for each request, then passes it on."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope["type"] == "http":
            headers = sorted({name.decode() for name, _ in scope["headers"]})
            print(json.dumps({"path": scope["path"], "headers": headers}), file=sys.stderr, flush=True)
        await self.app(scope, receive, send)


def main():
    listener = socket.create_server(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 0))
    print(f"http://127.0.0.1:{listener.getsockname()[1]}/mcp", flush=True)
    app = Logged(server.streamable_http_app(stateless_http=True))
    uvicorn.Server(uvicorn.Config(app, log_level="error")).run(sockets=[listener])


if __name__ == "__main__":
    main()
