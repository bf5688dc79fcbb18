// The contestant of Node.js: the same as contestant.py, with Node's Socket.IO and its Redis Streams adapter.
import { createServer } from "node:http";
import { createInterface } from "node:readline";
import { createClient } from "redis";
import { Server } from "socket.io";
import { createAdapter } from "@socket.io/redis-streams-adapter";

const config = JSON.parse(process.argv[2]);
const client = createClient({ url: config.redis });
await client.connect();
const http = createServer();
const io = new Server(http, {
  adapter: createAdapter(client, { streamName: config.channel, ...config.adapter }),
  connectionStateRecovery: { maxDisconnectionDuration: 120_000, skipMiddlewares: true },
  ...config.server,
});
io.on("connection", (socket) => {
  if (!socket.recovered) for (const room of socket.handshake.auth.rooms ?? []) socket.join(room);
});
await new Promise((done) => http.listen({ port: config.port, host: "127.0.0.1", backlog: 4096 }, done));

const now = () => Number(process.hrtime.bigint()) / 1e9;
const turn = () => new Promise((done) => setImmediate(done));
const sleep = (seconds) => new Promise((done) => setTimeout(done, seconds * 1000));

// Emits events. Node's emit can't be awaited, so each turn of the event loop makes `in_flight` of them.
async function emit({ room, count, in_flight, size, rate, name, rooms }) {
  const text = "x".repeat(size - '{"t":,"text":""}'.length - 15);
  const start = now();
  for (let i = 0; i < count; i++) {
    if (rate) {
      const wait = start + i / rate - now();
      if (wait > 0) await sleep(wait);
    } else if (i % in_flight === 0) {
      await turn();
    }
    const where = rooms ? `room${i % rooms}` : room;
    const to = where === null ? io : io.to(where);
    to.emit(name, { t: Number(process.hrtime.bigint()), text });
  }
  return { start, end: now() };
}

const answers = { emit, gc: () => (global.gc(), {}) };
console.log(JSON.stringify({ ready: true }));
for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  console.log(JSON.stringify(await answers[command.do](command)));
}
process.exit(0);
