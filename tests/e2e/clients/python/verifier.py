"""Verifies access tokens with PyJWT as fast as it is told to, as a resource server elsewhere would.

It keeps the key set for exactly its max-age, and never fetches it early: a key that it does not know in time is a
failure. Tokens come one a line on stdin; at the end of it one line of JSON says how it went.
"""

import json
import random
import re
import sys
import threading
import time
import urllib.request

import jwt

ISSUER, AUDIENCE, RATE = sys.argv[1], sys.argv[2], float(sys.argv[3])
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class KeySet:
    def __init__(self):
        self.keys, self.good_until, self.fetches = {}, 0.0, 0

    def find(self, kid):
        now = time.monotonic()
        if now >= self.good_until:
            with OPENER.open(ISSUER + "/jwks.json", timeout=10) as response:
                lifetime = int(re.search(r"max-age=(\d+)", response.headers["Cache-Control"])[1])
                self.keys = {key["kid"]: jwt.PyJWK(key) for key in json.load(response)["keys"]}
            self.good_until, self.fetches = now + lifetime, self.fetches + 1
        return self.keys[kid]


def main():
    keys, tokens, ended = KeySet(), [], threading.Event()

    def read():
        for line in sys.stdin:
            tokens.append(line.strip())
        ended.set()

    threading.Thread(target=read, daemon=True).start()
    verified, fresh, failures, kids = 0, 0, [], set()
    began = time.monotonic()
    while not (ended.is_set() and fresh == len(tokens)):
        if not tokens:
            time.sleep(0.001)
            continue
        # Every token once when it is new, and any of them again and again until the end.
        if fresh < len(tokens):
            token, fresh = tokens[fresh], fresh + 1
        else:
            token = random.choice(tokens)
        kid = None
        try:
            kid = jwt.get_unverified_header(token)["kid"]
            key = keys.find(kid)
            jwt.decode(token, key.key, algorithms=[key.algorithm_name], issuer=ISSUER, audience=AUDIENCE)
            verified += 1
            kids.add(kid)
        except Exception as error:
            failures.append(f"{kid}: {error!r}")
        ahead = (verified + len(failures)) / RATE - (time.monotonic() - began)
        if ahead > 0.002:
            time.sleep(ahead)
    seconds = time.monotonic() - began
    print(json.dumps({
        "tokens": len(tokens), "verified": verified, "failures": len(failures), "first": failures[:3],
        "kids": len(kids), "fetches": keys.fetches, "seconds": seconds,
    }), flush=True)


main()
