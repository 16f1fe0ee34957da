// A loopback proxy that adds `Authorization` to what passes, because the conformance suite's server mode has no
// option for a token. All else goes through as it came, `Host` and `Origin` included, bodies as they stream.
//
//   BEARER=… bearer-proxy.mjs http://localhost:8080/mcp
//
// It says its own URL in one line, {"url":…}, and ends with its stdin.

import { createServer, request } from 'node:http';
import { pipeline } from 'node:stream';

const target = new URL(process.argv[2]);
const authorization = `Bearer ${process.env.BEARER}`;

const server = createServer((incoming, answer) => {
  const { method, url: path, rawHeaders } = incoming;
  const headers = incoming.headers.authorization === undefined ? [...rawHeaders, 'Authorization', authorization] : rawHeaders;
  const outgoing = request({ hostname: target.hostname, port: target.port, method, path, headers, setHost: false });
  outgoing.on('response', (response) => {
    answer.sendDate = false; // the server's own is passed on
    answer.writeHead(response.statusCode, response.statusMessage, response.rawHeaders);
    answer.flushHeaders(); // an event stream may say nothing for long
    pipeline(response, answer, () => {});
  });
  answer.on('close', () => outgoing.destroy()); // whoever asked has hung up
  pipeline(incoming, outgoing, (error) => {
    if (error && !answer.headersSent) answer.destroy(error);
  });
});

server.listen(0, '127.0.0.1', () => {
  const url = Object.assign(new URL(target), { host: `localhost:${server.address().port}` });
  console.log(JSON.stringify({ url }));
});
process.stdin.on('end', () => process.exit(0)).resume();
