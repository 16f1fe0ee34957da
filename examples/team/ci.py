"""A CI server as an MCP server, with the standard library alone: it speaks the revision 2026-07-28 and no other.

    python3 ci.py [PORT]

It prints its URL, then one line of JSON on stderr for each request: the method, the tool, and the names of the headers.
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

VERSION = "2026-07-28"
META_VERSION = "io.modelcontextprotocol/protocolVersion"
INFO = {"io.modelcontextprotocol/serverInfo": {"name": "ci", "version": "1.0.0"}}

PIPELINES = {"nightly": [], "release": []}

TOOLS = [
    {
        "name": "list_pipelines",
        "title": "List pipelines",
        "description": "Lists the pipelines with the number of their runs.",
        "inputSchema": {"type": "object", "properties": {}, "additionalProperties": False},
        "annotations": {"readOnlyHint": True},
    },
    {
        "name": "trigger_pipeline",
        "title": "Start a pipeline",
        "description": "Starts a run of a pipeline on a branch.",
        "inputSchema": {
            "type": "object",
            "properties": {"pipeline": {"type": "string"}, "branch": {"type": "string"}},
            "required": ["pipeline"],
            "additionalProperties": False,
        },
        "annotations": {"readOnlyHint": False, "destructiveHint": True},
    },
]


class Refused(Exception):
    """An error of JSON-RPC, with the HTTP status that carries it."""

    def __init__(self, status, code, message, data=None):
        super().__init__(message)
        self.status = status
        self.error = {"code": code, "message": message} | ({"data": data} if data else {})


def call(name, arguments):
    """The result of a tool."""
    if name == "list_pipelines":
        runs = {pipeline: len(runs) for pipeline, runs in PIPELINES.items()}
        return {"content": [{"type": "text", "text": json.dumps(runs)}]}
    if name != "trigger_pipeline":
        raise Refused(400, -32602, f"Unknown tool: {name}")
    runs = PIPELINES.get(arguments.get("pipeline"))
    if runs is None:
        return {"content": [{"type": "text", "text": "There is no such pipeline."}], "isError": True}
    runs.append(arguments.get("branch", "main"))
    return {"content": [{"type": "text", "text": f"Run {len(runs)} of {arguments['pipeline']} started."}]}


def answer(message, headers):
    """The result of a request."""
    method, params = message.get("method"), message.get("params") or {}
    version = (params.get("_meta") or {}).get(META_VERSION)
    if version != VERSION or headers.get("MCP-Protocol-Version") != VERSION:
        raise Refused(400, -32022, "Unsupported protocol version", {"supported": [VERSION], "requested": version})
    if headers.get("Mcp-Method") != method or (method == "tools/call" and headers.get("Mcp-Name") != params.get("name")):
        raise Refused(400, -32020, "Header mismatch")
    if method == "server/discover":
        return {"supportedVersions": [VERSION], "capabilities": {"tools": {}}, "ttlMs": 60000, "cacheScope": "public"}
    if method == "tools/list":
        return {"tools": TOOLS, "ttlMs": 60000, "cacheScope": "public"}
    if method == "tools/call":
        return call(params.get("name"), params.get("arguments") or {})
    raise Refused(404, -32601, "Method not found")


class Handler(BaseHTTPRequestHandler):
    """One endpoint, /mcp, that answers POST with JSON."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        message = {}
        try:
            message = json.loads(body)
            line = {"method": message.get("method"), "name": (message.get("params") or {}).get("name")}
            line["headers"] = sorted({name.lower() for name in self.headers})
            print(json.dumps(line), file=sys.stderr, flush=True)
            if "id" not in message:
                return self.reply(202, None)
            result = {"resultType": "complete", "_meta": INFO} | answer(message, self.headers)
            self.reply(200, {"jsonrpc": "2.0", "id": message["id"], "result": result})
        except Refused as refused:
            self.reply(refused.status, {"jsonrpc": "2.0", "id": message.get("id"), "error": refused.error})
        except (ValueError, AttributeError):
            self.reply(400, {"jsonrpc": "2.0", "id": None, "error": {"code": -32700, "message": "Parse error"}})

    def do_GET(self):
        self.send_response(405)
        self.send_header("Allow", "POST")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def reply(self, status, body):
        data = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        if data:
            self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        """Requests are logged by do_POST."""


def main():
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 0), Handler)
    print(f"http://127.0.0.1:{server.server_address[1]}/mcp", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
