// Checks the test vectors of signed requests: this signer makes every genuine signature, and no other.
//
//     node check_vectors.mjs FILE

import { readFileSync } from 'node:fs';
import { signature, type } from './leyline.mjs';

const bytes = (hex) => Buffer.from(hex, 'hex');
const { vectors } = JSON.parse(readFileSync(process.argv[2], 'utf8'));
let numGenuine = 0;

for (const vector of vectors) {
  const made = signature(bytes(vector.key_hex), bytes(vector.header_hex), bytes(vector.payload_hex));
  const isGenuine = made.equals(bytes(vector.signature_hex));
  if (isGenuine === (vector.expected === 'SIGNATURE_INVALID') && vector.expected !== 'SIGNATURE_MISSING') {
    throw new Error(`${vector.name}: the signature is ${made.toString('hex')}, which should be ${vector.expected}`);
  }
  numGenuine += isGenuine ? 1 : 0;
}

const [plain] = vectors;
const header = type('SignedHeader').deserialize(bytes(plain.header_hex));
if (header.method !== plain.context.method) throw new Error('the header cannot be read');
console.log(`${vectors.length} vectors, ${numGenuine} of them genuine`);
