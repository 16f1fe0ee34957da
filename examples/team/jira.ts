// An issue tracker as an MCP server, on the official TypeScript SDK: revisions up to 2025-11-25, with sessions.
//
//   npm install && node jira.ts [PORT]
//
// It prints its URL, then one line of JSON on stderr for each request: the method, the tool, and the names of the headers.

import { randomUUID } from "node:crypto";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { McpServer } from "@modelcontextprotocol/sdk/server/mcp.js";
import { StreamableHTTPServerTransport } from "@modelcontextprotocol/sdk/server/streamableHttp.js";
import { z } from "zod";

type Issue = { key: string; title: string; status: string; comments: string[] };

const issues = new Map<string, Issue>(
  [
    { key: "OPS-1", title: "The backup of the build server fails on Sundays", status: "open", comments: [] },
    { key: "OPS-2", title: "Replace the certificate of the wiki", status: "done", comments: ["Replaced, ends in a year."] },
    { key: "DEV-7", title: "Imports of large CSV files run out of memory", status: "open", comments: [] },
  ].map((issue) => [issue.key, issue]),
);

function tracker(): McpServer {
  const server = new McpServer({ name: "jira", version: "1.0.0" });
  const text = (value: unknown) => ({ content: [{ type: "text" as const, text: JSON.stringify(value) }] });

  server.registerTool(
    "search_issues",
    {
      title: "Search issues",
      description: "Finds issues whose key or title contains a text.",
      inputSchema: { text: z.string().max(200), status: z.enum(["open", "done"]).optional() },
      annotations: { readOnlyHint: true },
    },
    ({ text: wanted, status }) => {
      const matches = [...issues.values()].filter(
        (issue) =>
          `${issue.key} ${issue.title}`.toLowerCase().includes(wanted.toLowerCase()) && (!status || issue.status === status),
      );
      return text(matches.map(({ key, title, status }) => ({ key, title, status })));
    },
  );
  server.registerTool(
    "read_issue",
    {
      title: "Read an issue",
      description: "Returns one issue with its comments.",
      inputSchema: { key: z.string() },
      annotations: { readOnlyHint: true },
    },
    ({ key }) => {
      const issue = issues.get(key);
      return issue ? text(issue) : { ...text(`There is no issue ${key}.`), isError: true };
    },
  );
  server.registerTool(
    "comment",
    {
      title: "Comment on an issue",
      description: "Adds a comment to an issue.",
      inputSchema: { key: z.string(), comment: z.string().max(2000) },
      annotations: { readOnlyHint: false, destructiveHint: false },
    },
    ({ key, comment }) => {
      const issue = issues.get(key);
      if (!issue) return { ...text(`There is no issue ${key}.`), isError: true };
      issue.comments.push(comment);
      return text(issue);
    },
  );
  return server;
}

const sessions = new Map<string, StreamableHTTPServerTransport>();

async function body(request: IncomingMessage): Promise<unknown> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  return chunks.length ? JSON.parse(Buffer.concat(chunks).toString()) : undefined;
}

async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const message = (await body(request)) as { method?: string; params?: { name?: string } } | undefined;
  const headers = Object.keys(request.headers).sort();
  console.error(JSON.stringify({ http: request.method, method: message?.method, name: message?.params?.name, headers }));

  const known = sessions.get(String(request.headers["mcp-session-id"] ?? ""));
  if (known) return known.handleRequest(request, response, message);
  if (request.headers["mcp-session-id"]) {
    response.writeHead(404).end();
    return;
  }
  const transport = new StreamableHTTPServerTransport({
    sessionIdGenerator: () => randomUUID(),
    onsessioninitialized: (id) => void sessions.set(id, transport),
  });
  transport.onclose = () => void (transport.sessionId && sessions.delete(transport.sessionId));
  await tracker().connect(transport);
  await transport.handleRequest(request, response, message);
}

const server = createServer((request, response) => {
  answer(request, response).catch((error) => {
    console.error(JSON.stringify({ error: String(error) }));
    if (!response.headersSent) response.writeHead(400);
    response.end();
  });
});
server.listen(Number(process.argv[2] ?? 0), "127.0.0.1", () => {
  console.log(`http://127.0.0.1:${(server.address() as AddressInfo).port}/mcp`);
});
