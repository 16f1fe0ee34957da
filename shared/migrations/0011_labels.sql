-- Names for people: what a browser calls itself, and what a user calls a passkey (SESSION-06, WEBAUTHN-12).

ALTER TABLE session ADD COLUMN browser TEXT;
ALTER TABLE passkey ADD COLUMN label TEXT;
ALTER TABLE passkey_elsewhere ADD COLUMN label TEXT;
