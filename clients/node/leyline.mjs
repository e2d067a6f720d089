// What every client of esperd in Node needs: the contract, the signature, the errors. Copy it beside your policy.
//
// Knows nothing of any policy. The signing recipe is in esperd/docs/write-a-policy.md.

import { createHmac, randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import grpc from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';

const PROTOS = fileURLToPath(new URL('../../protos', import.meta.url));
const SERVICES = ['server', 'command', 'state', 'policy'].map((name) => `esper/leyline/v1/${name}_service.proto`);
const ERRORS = ['google/rpc/status.proto', 'google/rpc/error_details.proto'];
const contract = loadSync(['esper/leyline/v1/envelope.proto', ...ERRORS, ...SERVICES], {
  includeDirs: [PROTOS, `${PROTOS}/third_party`],
  keepCase: true, longs: Number, enums: String, defaults: true, oneofs: true,
});
const DOMAIN = Buffer.from('ESPER-LEYLINE-REQUEST-V1\0');
const CUT = ['UNAVAILABLE', 'CANCELLED', 'INTERNAL', 'UNKNOWN']; // what gRPC says when a connection broke

// The type of a message by its name: serialize and deserialize.
export function type(name) {
  return contract[name.includes('.') ? name : `esper.leyline.v1.${name}`];
}

// Of a Timestamp or a Duration.
function seconds(time) {
  return time.seconds + time.nanos / 1e9;
}

export function signature(secret, header, payload) {
  const hmac = createHmac('sha256', secret).update(DOMAIN);
  for (const part of [header, payload]) {
    const length = Buffer.alloc(8);
    length.writeBigUInt64BE(BigInt(part.length));
    hmac.update(length).update(part);
  }
  return hmac.digest();
}

// A call that came to nothing. `reason` is the catalogue's, and empty when no daemon answered.
export class LeylineError extends Error {
  constructor(status, reason, message, { metadata = {}, retryAfterS = null, violations = [] } = {}) {
    super(message);
    Object.assign(this, { status, reason, metadata, retryAfterS, violations });
  }

  // Whether to come back: the daemon says when, the connection broke, or a watch was read too slowly and resumes.
  get mayPass() {
    const isCut = this.reason === '' && CUT.includes(this.status);
    return this.retryAfterS !== null || this.reason === 'SLOW_CONSUMER' || isCut;
  }
}

export function decode(error) {
  if (error instanceof LeylineError || !(error.code in grpc.status)) return error; // also what the system says of a file
  const status = grpc.status[error.code];
  const [bytes] = error.metadata?.get('grpc-status-details-bin') ?? [];
  if (bytes === undefined) return new LeylineError(status, '', error.details);
  const rich = type('google.rpc.Status').deserialize(bytes);
  const found = { reason: '' };
  for (const { type_url: url, value } of rich.details) {
    const name = url.split('/').pop();
    const detail = type(name)?.deserialize(value);
    if (name === 'google.rpc.ErrorInfo') Object.assign(found, { reason: detail.reason, metadata: detail.metadata });
    if (name === 'google.rpc.RetryInfo') found.retryAfterS = seconds(detail.retry_delay);
    if (name === 'google.rpc.BadRequest') found.violations = detail.field_violations.map(({ field }) => field);
  }
  return new LeylineError(status, found.reason, rich.message, found);
}

// The key file: lines `name = "value"`. The files of mutual TLS lie beside it, unless it names a place.
export function readKeyFile(path) {
  const lines = readFileSync(path, 'utf8').matchAll(/^(\w+) = "(.*)"$/gm);
  const isFile = (name) => ['ca', 'certificate', 'private_key'].includes(name);
  const told = (name, value) => (isFile(name) ? resolve(dirname(path), value) : value);
  return Object.fromEntries([...lines].map(([, name, value]) => [name, told(name, value)]));
}

// Runs `attempt` until it says that the daemon drains; comes back after whatever may pass.
export async function persist(attempt) {
  for (let failures = 0; ;) {
    let pauseS = 0;
    try {
      if (await attempt(() => { failures = 0; })) return;
    } catch (error) {
      const refusal = decode(error);
      if (!refusal.mayPass) throw refusal;
      pauseS = refusal.retryAfterS ?? 0;
    }
    failures += 1;
    await sleep(1e3 * Math.max(pauseS, Math.min(2, 0.05 * 2 ** failures)));
  }
}

// One daemon, and the key that signs for it.
export class Daemon {
  constructor(address, key) {
    this.key = key;
    const isTls = address.startsWith('tls:');
    const read = (name) => {
      if (key[name] === undefined) throw new LeylineError('INVALID_ARGUMENT', '', `the key file has no ${name}`);
      return readFileSync(key[name]);
    };
    const files = isTls ? ['ca', 'private_key', 'certificate'].map(read) : [];
    const credentials = isTls ? grpc.credentials.createSsl(...files) : grpc.credentials.createInsecure();
    this.client = new grpc.Client(address.replace(/^tls:/, ''), credentials, {
      'grpc.enable_retries': 0, // gRPC's own retries would send the same nonce again
      'grpc.keepalive_time_ms': 30_000,
      'grpc.max_reconnect_backoff_ms': 2_000, // without it a pause may last two minutes
    });
  }

  // Learn whom to sign for: the daemon's id, the epoch of this start, its clock. Again after each cut.
  async meet() {
    this.info = await this.call('ServerService', 'GetServerInfo', {});
    this.clockOffsetMs = seconds(this.info.server_time) * 1e3 - Date.now();
  }

  // A request that carries `message` signed for one attempt to call the method.
  sign(service, method, typeName, message) {
    const payload = type(typeName).serialize(message);
    const nowMs = Date.now() + this.clockOffsetMs;
    const secret = Buffer.from(this.key.secret, 'hex');
    const header = type('SignedHeader').serialize({
      key_id: this.key.key_id,
      audience: this.info.server_id,
      epoch: this.info.epoch,
      method: `/esper.leyline.v1.${service}/${method}`,
      issue_time: { seconds: Math.floor(nowMs / 1e3), nanos: Math.floor(nowMs % 1e3) * 1e6 },
      nonce: randomBytes(16),
    });
    return { envelope: { header, payload, signature: signature(secret, header, payload) } };
  }

  // One unary call.
  call(service, method, request, timeoutS = 10) {
    const { path, requestSerialize, responseDeserialize } = type(service)[method];
    const deadline = Date.now() + timeoutS * 1e3;
    return new Promise((resolve, reject) => {
      const settle = (error, answer) => (error ? reject(decode(error)) : resolve(answer));
      this.client.makeUnaryRequest(path, requestSerialize, responseDeserialize, request, { deadline }, settle);
    });
  }

  // One signed call. Each attempt is signed anew; the request_id in the message makes a second one harmless.
  async callSigned(service, method, typeName, message) {
    const lastMs = Date.now() + 30_000;
    for (let attempt = 1; ; attempt += 1) {
      try {
        if (attempt > 1) await this.meet();
        return await this.call(service, method, this.sign(service, method, typeName, message));
      } catch (refusal) {
        const isStale = ['EPOCH_STALE', 'TIMESTAMP_OUT_OF_WINDOW'].includes(refusal.reason);
        if (Date.now() > lastMs || !(isStale || refusal.mayPass)) throw refusal;
        await sleep(1e3 * (refusal.retryAfterS ?? Math.min(2, 0.05 * 2 ** attempt)));
      }
    }
  }

  // A stream: the answers to one request, or without a request messages both ways.
  stream(service, method, request) {
    const { path, requestSerialize, responseDeserialize } = type(service)[method];
    if (request === undefined) return this.client.makeBidiStreamRequest(path, requestSerialize, responseDeserialize);
    return this.client.makeServerStreamRequest(path, requestSerialize, responseDeserialize, request);
  }
}
