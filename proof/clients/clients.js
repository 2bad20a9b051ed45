// Uses the npm packages redis and ioredis as applications do, with an api that has keys: node clients.js port key
// TestRedisClientsCountInPostgres of proof/e2e runs it. It asks for a restart of the api by printing "restart", and waits for a line.
"use strict";

const assert = require("node:assert/strict");
const { once } = require("node:events");
const readline = require("node:readline");
const Redis = require("ioredis");
const { createClient } = require("redis");

const [port, key] = process.argv.slice(2);
const largest = "9223372036854775807";
const notInteger = /^(\w*Error: )?ERR value is not an integer or out of range$/;
const overflow = /^(\w*Error: )?ERR increment or decrement would overflow$/;
const from = (first, n) => Array.from({ length: n }, (_, i) => first + i);

// nodeRedis returns a client of the package redis after all checks. Commands that are sent in one tick are a pipeline.
async function nodeRedis(prefix, RESP) {
  const client = createClient({ RESP, name: "test", password: key, socket: { port, reconnectStrategy: () => 50 } });
  client.on("error", () => {}); // while the api restarts
  await client.connect();
  const views = prefix + "views", none = prefix + "none";

  await client.del([views, none]); // so that Redis knows that they do not exist, and a slow Postgres does not matter
  assert.equal(await client.get(views), null);
  assert.equal(await client.incr(views), 1);
  assert.equal(await client.incrBy(views, 4), 5);
  assert.equal(await client.decrBy(views, 2), 3);
  assert.equal(await client.set(views, 10), "OK");
  assert.equal(await client.set(views, 11, { NX: true }), null);
  assert.equal(await client.get(views), "10");
  assert.deepEqual(await client.mGet([views, none]), ["10", null]);
  assert.deepEqual(await Promise.all(from(0, 50).map(() => client.incr(views))), from(11, 50));
  assert.deepEqual(await client.multi().incr(views).get(views).exists([views, none]).exec(), [61, "61", 1]);
  await assert.rejects(client.multi().incr(views).set(views, "text").exec());
  assert.equal(await client.get(views), "61", "a transaction with an error is not carried out");
  await assert.rejects(client.set(views, "text"), notInteger);
  await assert.rejects(client.sendCommand(["INCRBY", views, "1.5"]), notInteger);
  await assert.rejects(client.set(views, 1, { EX: 60 }), /ERR invalid expire/);
  await assert.rejects(client.hGet(views, "field"), /ERR unknown command 'HGET'/);
  assert.equal(await client.set(views, largest), "OK");
  await assert.rejects(client.incr(views), overflow);
  assert.equal(await client.del([views, none]), 1);

  await client.mSet(Object.fromEntries(from(0, 5).map((i) => [prefix + "s:" + i, String(i)])));
  for (const i of from(0, 5)) assert.equal(await client.sendCommand(["AW.WAIT", prefix + "s:" + i, "20000"]), 1);
  const found = [];
  for await (const keys of client.scanIterator({ MATCH: prefix + "s:*", COUNT: 2 })) found.push(...keys);
  assert.deepEqual(found, from(0, 5).map((i) => prefix + "s:" + i));

  const wrong = createClient({ RESP, password: "wrong", socket: { port, reconnectStrategy: false } });
  wrong.on("error", () => {});
  await assert.rejects(wrong.connect(), /WRONGPASS/);
  return { client, restarts: prefix + "restarts", close: () => client.close() };
}

async function ioredis(prefix) {
  const options = { port, password: key, connectionName: "test", maxRetriesPerRequest: 0, autoResendUnfulfilledCommands: false };
  const client = new Redis({ ...options, retryStrategy: () => 50 });
  client.on("error", () => {}); // while the api restarts
  await once(client, "ready");
  const views = prefix + "views", none = prefix + "none";

  await client.del(views, none); // as above
  assert.equal(await client.get(views), null);
  assert.equal(await client.incr(views), 1);
  assert.equal(await client.incrby(views, 4), 5);
  assert.equal(await client.decrby(views, 2), 3);
  assert.equal(await client.set(views, 10), "OK");
  assert.equal(await client.set(views, 11, "NX"), null);
  assert.equal(await client.get(views), "10");
  assert.deepEqual(await client.mget(views, none), ["10", null]);
  const pipeline = client.pipeline();
  for (const _ of from(0, 50)) pipeline.incr(views);
  assert.deepEqual(await pipeline.exec(), from(11, 50).map((n) => [null, n]));
  assert.deepEqual(await client.multi().incr(views).get(views).exec(), [[null, 61], [null, "61"]]);
  await assert.rejects(client.multi().incr(views).set(views, "text").exec(), /EXECABORT/);
  assert.equal(await client.get(views), "61", "a transaction with an error is not carried out");
  await assert.rejects(client.set(views, "text"), notInteger);
  await assert.rejects(client.incrby(views, 1.5), notInteger);
  await assert.rejects(client.set(views, 1, "EX", 60), /ERR invalid expire/);
  await assert.rejects(client.hget(views, "field"), /ERR unknown command 'hget'/);
  assert.equal(await client.set(views, largest), "OK");
  await assert.rejects(client.incr(views), overflow);
  assert.equal(await client.del(views, none), 1);

  await client.mset(Object.fromEntries(from(0, 5).map((i) => [prefix + "s:" + i, i])));
  for (const i of from(0, 5)) assert.equal(await client.call("AW.WAIT", prefix + "s:" + i, 20000), 1);
  const found = [];
  for await (const keys of client.scanStream({ match: prefix + "s:*", count: 2 })) found.push(...keys);
  assert.deepEqual(found, from(0, 5).map((i) => prefix + "s:" + i));

  const wrong = new Redis({ ...options, password: "wrong", retryStrategy: null });
  wrong.on("error", () => {});
  await assert.rejects(wrong.incr(views), /WRONGPASS|NOAUTH|Connection is closed|max retries/);
  wrong.disconnect();
  return { client, restarts: prefix + "restarts", close: () => client.quit() };
}

async function main() {
  const clients = await Promise.all([nodeRedis("redis2:", 2), nodeRedis("redis3:", 3), ioredis("io:")]);
  for (const c of clients) assert.equal(await c.client.set(c.restarts, 1), "OK");
  const back = clients.map((c) => new Promise((resolve) => c.client.once("ready", resolve)));
  const input = readline.createInterface({ input: process.stdin });
  console.log("restart");
  await once(input, "line");
  input.close();
  await Promise.all(back);
  for (const c of clients) assert.equal(await c.client.incr(c.restarts), 2);
  await Promise.all(clients.map((c) => c.close()));
  console.log("ok");
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
