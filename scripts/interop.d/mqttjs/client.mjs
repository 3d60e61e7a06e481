// MQTT.js talks to a broker: node client.mjs URL VERSION [CA]. It says what it saw, as JSON.

import { once } from "node:events";
import { readFileSync } from "node:fs";
import mqtt from "mqtt";

const [url, version, ca] = process.argv.slice(2);
const options = {
  protocolVersion: Number(version),
  clientId: `mqttjs-${version}`,
  reconnectPeriod: 0,
  connectTimeout: 10_000,
  clean: true,
  will: { topic: "will", payload: "gone", qos: 1 },
  ...(ca ? { ca: readFileSync(ca) } : {}),
};
const five = version === "5";
const seen = [];
const client = await mqtt.connectAsync(url, options);
client.on("message", (topic, payload, packet) => {
  const properties = packet.properties ?? {};
  seen.push({ topic, payload: payload.toString(), qos: packet.qos, retain: packet.retain, type: properties.contentType, user: properties.userProperties });
});
const granted = await client.subscribeAsync({ "room/+": { qos: 2 }, "large": { qos: 1 } });
for (const qos of [0, 1, 2]) {
  const properties = five ? { contentType: "text/plain", userProperties: { a: "b" } } : undefined;
  await client.publishAsync(`room/${qos}`, `Grüße ${qos}`, { qos, properties });
}
// Larger than any frame that a client makes of it.
const large = "x".repeat(300_000);
await client.publishAsync("large", large, { qos: 1 });
while (seen.length < 4) await once(client, "message");
await client.unsubscribeAsync("room/+");
await client.endAsync();
const sizes = seen.map(({ payload, ...rest }) => ({ ...rest, payload: payload.length > 100 ? payload === large : payload }));
console.log(JSON.stringify({ granted: granted.map(({ topic, qos }) => [topic, qos]), seen: sizes }));
