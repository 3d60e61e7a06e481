// A small client of MQTT 5.0 over WebSocket: what the console needs, QoS 0 to 2 without sessions.

const utf8 = new TextEncoder();
const KEEP_ALIVE = 30;

class Writer {
  constructor() { this.bytes = []; }
  u8(value) { this.bytes.push(value & 255); return this; }
  u16(value) { return this.u8(value >> 8).u8(value); }
  number(value) {
    do {
      const more = value > 127 ? 128 : 0;
      this.u8((value % 128) | more);
      value = Math.floor(value / 128);
    } while (value > 0);
    return this;
  }
  raw(bytes) { for (const byte of bytes) this.bytes.push(byte); return this; }
  binary(bytes) { return this.u16(bytes.length).raw(bytes); }
  text(text) { return this.binary(utf8.encode(text)); }
}

class Reader {
  constructor(bytes) { this.bytes = bytes; this.at = 0; }
  get left() { return this.bytes.length - this.at; }
  u8() {
    if (this.left < 1) throw new Error("the broker sent a packet that is too short");
    return this.bytes[this.at++];
  }
  u16() { return this.u8() * 256 + this.u8(); }
  number() {
    let value = 0;
    for (let shift = 1; shift <= 128 ** 3; shift *= 128) {
      const byte = this.u8();
      value += (byte % 128) * shift;
      if (byte < 128) return value;
    }
    throw new Error("the broker sent a length that is none");
  }
  take(length) {
    if (this.left < length) throw new Error("the broker sent a packet that is too short");
    const part = this.bytes.subarray(this.at, this.at + length);
    this.at += length;
    return part;
  }
  text() { return new TextDecoder().decode(this.take(this.u16())); }
}

/** Reads a property list: identifiers and the kinds of their values, by section 2.2.2. */
function properties(reader) {
  const length = reader.number();
  const list = new Reader(reader.take(length));
  const found = { user: [] };
  while (list.left > 0) {
    const id = list.number();
    switch (id) {
      case 0x01: case 0x17: case 0x19: case 0x24: case 0x25: case 0x28: case 0x29: case 0x2a:
        found[id] = list.u8();
        break;
      case 0x13: case 0x21: case 0x22: case 0x23:
        found[id] = list.u16();
        break;
      case 0x02: case 0x11: case 0x18: case 0x27:
        found[id] = list.u16() * 65536 + list.u16();
        break;
      case 0x0b:
        found[id] = list.number();
        break;
      case 0x26:
        found.user.push([list.text(), list.text()]);
        break;
      case 0x09: case 0x16:
        found[id] = list.take(list.u16());
        break;
      default:
        found[id] = list.text();
    }
  }
  return found;
}

const REASONS = {
  0x80: "unspecified error", 0x81: "malformed packet", 0x82: "protocol error", 0x85: "client identifier not valid",
  0x86: "bad user name or password", 0x87: "not authorized", 0x88: "server unavailable", 0x89: "server busy",
  0x8b: "server shutting down", 0x8d: "keep alive timeout", 0x8e: "session taken over", 0x8f: "topic filter invalid",
  0x90: "topic name invalid", 0x93: "receive maximum exceeded", 0x95: "packet too large", 0x96: "message rate too high",
  0x97: "quota exceeded", 0x98: "administrative action", 0x9a: "retain not supported", 0x9b: "QoS not supported",
  0x9e: "shared subscriptions not supported", 0xa2: "wildcard subscriptions not supported",
};

function reason(code) {
  return REASONS[code] ?? `reason 0x${code.toString(16)}`;
}

/** One connection. `on.message`, `on.closed` are called as things happen. */
export class Client {
  constructor(url, on) {
    this.on = on;
    this.waiting = new Map();
    this.begun = new Set();
    this.next = 1;
    this.rest = new Uint8Array();
    this.why = "the connection was lost";
    this.socket = new WebSocket(url, "mqtt");
    this.socket.binaryType = "arraybuffer";
    this.socket.onmessage = (event) => this.receive(new Uint8Array(event.data));
    this.socket.onclose = () => this.closed();
  }

  /** Resolves with the client identifier. */
  connect({ clientId = "", user = "", password = "" }) {
    return new Promise((resolve, reject) => {
      this.waiting.set("connect", { resolve, reject });
      this.clientId = clientId;
      this.socket.onopen = () => {
        const flags = 2 | (user ? 128 : 0) | (password ? 64 : 0);
        const body = new Writer().text("MQTT").u8(5).u8(flags).u16(KEEP_ALIVE).number(0).text(clientId);
        if (user) body.text(user);
        if (password) body.text(password);
        this.send(0x10, body);
      };
    });
  }

  send(first, body) {
    if (this.socket.readyState !== WebSocket.OPEN) throw new Error("not connected");
    const packet = new Writer().u8(first).number(body.bytes.length).raw(body.bytes);
    this.socket.send(new Uint8Array(packet.bytes));
  }

  answerTo(kind, send) {
    let id = this.next;
    while (this.waiting.has(id)) id = (id % 65535) + 1;
    this.next = (id % 65535) + 1;
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { kind, resolve, reject });
      send(id);
    });
  }

  /** Resolves with the granted QoS. */
  subscribe(filter, qos) {
    return this.answerTo("SUBACK", (id) => this.send(0x82, new Writer().u16(id).number(0).text(filter).u8(qos)));
  }

  unsubscribe(filter) {
    return this.answerTo("UNSUBACK", (id) => this.send(0xa2, new Writer().u16(id).number(0).text(filter)));
  }

  /** Resolves when the message is done. */
  publish(topic, payload, qos, retain) {
    const first = 0x30 | (qos << 1) | (retain ? 1 : 0);
    const bytes = utf8.encode(payload);
    if (qos === 0) {
      this.send(first, new Writer().text(topic).number(0).raw(bytes));
      return Promise.resolve();
    }
    const kind = qos === 1 ? "PUBACK" : "PUBREC";
    return this.answerTo(kind, (id) => this.send(first, new Writer().text(topic).u16(id).number(0).raw(bytes)));
  }

  disconnect() {
    this.why = null;
    if (this.socket.readyState === WebSocket.OPEN) this.send(0xe0, new Writer());
    this.socket.close();
  }

  receive(bytes) {
    const all = new Uint8Array(this.rest.length + bytes.length);
    all.set(this.rest);
    all.set(bytes, this.rest.length);
    let at = 0;
    try {
      for (;;) {
        const length = this.frame(all, at);
        if (length === null) break;
        const head = new Reader(all.subarray(at, at + length));
        const first = head.u8();
        head.number();
        this.packet(first, head);
        at += length;
      }
    } catch (error) {
      this.why = error.message;
      this.socket.close();
    }
    this.rest = all.slice(at);
  }

  /** The length of the packet at `at`, if all of it is there. */
  frame(bytes, at) {
    let length = 0;
    for (let i = 1, shift = 1; i <= 4; i++, shift *= 128) {
      if (at + i >= bytes.length) return null;
      length += (bytes[at + i] % 128) * shift;
      if (bytes[at + i] < 128) {
        const whole = 1 + i + length;
        return at + whole <= bytes.length ? whole : null;
      }
    }
    throw new Error("the broker sent a length that is none");
  }

  done(id, kind, code, value) {
    const waiting = this.waiting.get(id);
    if (!waiting || waiting.kind !== kind) return;
    this.waiting.delete(id);
    if (code >= 128) waiting.reject(new Error(reason(code)));
    else waiting.resolve(value);
  }

  packet(first, body) {
    switch (first >> 4) {
      case 2: {
        body.u8();
        const code = body.u8();
        const known = properties(body);
        const waiting = this.waiting.get("connect");
        this.waiting.delete("connect");
        if (code >= 128) {
          this.why = reason(code);
          waiting?.reject(new Error(this.why));
          return;
        }
        const every = known[0x13] ?? KEEP_ALIVE;
        if (every > 0) this.timer = setInterval(() => this.send(0xc0, new Writer()), every * 500);
        waiting?.resolve(known[0x12] ?? this.clientId);
        return;
      }
      case 3: {
        const qos = (first >> 1) & 3;
        const topic = body.text();
        const id = qos > 0 ? body.u16() : 0;
        const known = properties(body);
        const payload = body.take(body.left);
        const again = qos === 2 && this.begun.has(id);
        if (!again) this.on.message({ topic, payload, qos, retain: (first & 1) === 1, user: known.user });
        if (qos === 1) this.send(0x40, new Writer().u16(id));
        if (qos === 2) {
          this.begun.add(id);
          this.send(0x50, new Writer().u16(id));
        }
        return;
      }
      case 4: {
        const id = body.u16();
        this.done(id, "PUBACK", body.left > 0 ? body.u8() : 0);
        return;
      }
      case 5: {
        const id = body.u16();
        const code = body.left > 0 ? body.u8() : 0;
        const waiting = this.waiting.get(id);
        if (code >= 128) this.done(id, "PUBREC", code);
        else {
          if (waiting) waiting.kind = "PUBCOMP";
          this.send(0x62, new Writer().u16(id));
        }
        return;
      }
      case 6: {
        const id = body.u16();
        this.begun.delete(id);
        this.send(0x70, new Writer().u16(id));
        return;
      }
      case 7: {
        const id = body.u16();
        this.done(id, "PUBCOMP", body.left > 0 ? body.u8() : 0);
        return;
      }
      case 9: case 11: {
        const id = body.u16();
        properties(body);
        const code = body.u8();
        this.done(id, first >> 4 === 9 ? "SUBACK" : "UNSUBACK", code, code);
        return;
      }
      case 14:
        this.why = reason(body.left > 0 ? body.u8() : 0);
        return;
      default:
    }
  }

  closed() {
    clearInterval(this.timer);
    for (const { reject } of this.waiting.values()) reject(new Error(this.why ?? "disconnected"));
    this.waiting.clear();
    this.on.closed(this.why);
  }
}
