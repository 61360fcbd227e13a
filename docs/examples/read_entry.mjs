// Opens one cache entry of token-refresh-worker with nothing but node:crypto, and prints the access token.
//   node read_entry.mjs ann@contoso.com                                   prints the entry's key in Redis
//   WORKER_ACCESS_KEYS=... node read_entry.mjs ann@contoso.com - < value  prints the token in its value
import { createDecipheriv, createHash, createHmac } from "node:crypto";
import { readFileSync } from "node:fs";

const namespace = Buffer.from("5a1f6f0e6a555c0f9d0c3f6f3b1d2c77", "hex"); // UUID version 5 of the address
const id = createHash("sha1").update(namespace).update(process.argv[2].trim().toLowerCase()).digest().subarray(0, 16);
id[6] = (id[6] & 0x0f) | 0x50;
id[8] = (id[8] & 0x3f) | 0x80;
const uuid = id.toString("hex").replace(/(.{8})(.{4})(.{4})(.{4})(.{12})/, "$1-$2-$3-$4-$5");
if (process.argv[3] !== "-") { console.log(`token-worker:entry:${uuid}`); process.exit(); }

const sealed = readFileSync(0).subarray(23); // after "1 ", the version in 20 digits and a space
const header = sealed.subarray(0, 2 + sealed[1]), rest = sealed.subarray(header.length); // 0x01, length and name of the key
const keys = new Map(process.env.WORKER_ACCESS_KEYS.split(",").map((pair) => pair.trim().split(":")));
const entryKey = Buffer.from(keys.get(header.subarray(2).toString()), "base64").subarray(32);
const decipher = createDecipheriv("aes-256-gcm", createHmac("sha256", entryKey).update(id).digest(), rest.subarray(0, 12));
decipher.setAAD(Buffer.concat([header, Buffer.from("cache_entry\0"), id]));
decipher.setAuthTag(rest.subarray(-16));
const entry = JSON.parse(Buffer.concat([decipher.update(rest.subarray(12, -16)), decipher.final()]).toString());
if (!entry.access_token || entry.expires_at <= Date.now() / 1000) throw new Error(entry.problem?.code ?? "stale");
console.log(entry.access_token);
