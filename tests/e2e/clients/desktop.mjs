// The desktop a program finds when it wants to open a page in a browser: there is none, the page is told to us.

import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { delimiter, dirname, join } from 'node:path';
import { text } from 'node:stream/consumers';

/** Makes one in `folder`. `environment` leads a program to it; `opened` is called with each URL. */
export async function openDesktop(folder, opened) {
  let waiting = null;
  const server = createServer(async (socket) => opened(await text(socket)));
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));

  const bin = join(folder, 'bin');
  mkdirSync(bin, { recursive: true });
  // A bare socket: a request would go through the proxy of the program that opens the page.
  const tell = `require("net").connect(${server.address().port}, "127.0.0.1").end(process.argv[1])`;
  const browser = join(bin, 'xdg-open');
  writeFileSync(browser, `#!/bin/sh\nexec '${process.execPath}' -e '${tell}' "$1"\n`);
  chmodSync(browser, 0o700);
  return {
    environment: {
      PATH: [bin, dirname(process.execPath), process.env.PATH].join(delimiter),
      // Some programs bring a copy of xdg-open along, which asks BROWSER as long as there is no DISPLAY.
      BROWSER: browser,
    },
    /** The next page, which then is not said to `opened`'s owner. */
    next: () => new Promise((resolve) => (waiting = resolve)),
    /** Tells whoever waits for it; whether somebody did. */
    told: (url) => {
      const one = waiting;
      waiting = null;
      one?.(url);
      return one !== null;
    },
    close: () => server.close(),
  };
}
