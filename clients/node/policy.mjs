// A policy in Node: grows a seed at the first vacant site when the validation loss has stopped falling.
//
//     node policy.mjs ADDRESS KEY_FILE [NAME]
//
// It writes a checkpoint, shows the seeds and steers until the daemon drains, whatever breaks. Copy it and change
// `choose`.

import { randomUUID } from 'node:crypto';
import { Daemon, decode, persist, readKeyFile } from './leyline.mjs';

const PATIENCE_EPOCHS = 3;
const MIN_IMPROVEMENT = 0.01; // a loss that falls by less than 1 % in PATIENCE_EPOCHS epochs stands still

class Policy {
  losses = [];
  sites = new Map();

  // The commands for one packet; none means wait.
  choose(packet) {
    for (const site of packet.sites) this.sites.set(site.site, site); // only those that changed are sent
    if (packet.reason === 'epoch_end') this.losses.push(packet.validation_loss);
    const open = (site) => site.vacant && site.offers.length && site.embargoed_until_step <= packet.global_step;
    const site = [...this.sites.values()].find(open);
    if (!this.standsStill() || site === undefined) return [];
    this.losses = []; // judge the seed on what comes after it
    const cheapest = site.offers.reduce((a, b) => (b.cost.num_parameters < a.cost.num_parameters ? b : a));
    const germinate = { site: site.site, blueprint_id: cheapest.blueprint_id, auto_advance: true };
    console.log('asked', site.site, cheapest.blueprint_id);
    const seed_operation = { operation: 'SEED_OPERATION_GERMINATE', ...germinate };
    return [{ request_id: randomUUID(), reason: 'the validation loss stands still', seed_operation }];
  }

  standsStill() {
    const [before, now] = [this.losses.at(-1 - PATIENCE_EPOCHS), this.losses.at(-1)];
    return before !== undefined && now > before * (1 - MIN_IMPROVEMENT);
  }
}

// Shows each seed's stage as it changes. The resume token of the last message is where the next watch begins.
async function watch(daemon) {
  const stages = new Map();
  let token = Buffer.alloc(0);
  await persist(async (succeeded) => {
    const request = { resume_token: token, delivery: 'DELIVERY_POLICY_EVERY', resnapshot_on_gap: true };
    for await (const message of daemon.stream('StateService', 'WatchState', request)) {
      succeeded();
      token = message.resume_token;
      if (message.content === 'snapshot') console.log('snapshot');
      for (const { seed_id, stage } of message[message.content]?.seeds ?? []) {
        if (stages.get(seed_id) !== stage) console.log('seed', seed_id, stage);
        stages.set(seed_id, stage);
      }
      if (message.draining) return true;
    }
    return false;
  });
}

// Holds the lease and answers each packet; a new session is opened when one breaks.
async function steer(daemon, policy, policy_name) {
  await persist(async (succeeded) => {
    await daemon.meet();
    const session = daemon.stream('PolicyService', 'DecisionStream');
    const sign = (typeName, message) => daemon.sign('PolicyService', 'DecisionStream', typeName, message);
    const opening = { mode: 'LEASE_MODE_STEER', policy_name, policy_version: '1' };
    session.write(sign('SessionOpening', opening));
    for await (const { content, opened, request, receipt, outcome } of session) {
      succeeded();
      if (content === 'opened') console.log('session', opened.mode);
      if (content === 'request') {
        const commands = policy.choose(request.packet);
        session.write(sign('PolicyDecision', { decision_id: request.decision_id, commands }));
      }
      if (content === 'receipt' && receipt.error) console.log('refused', receipt.error.reason);
      if (content === 'outcome') {
        const { state, seed_id, error } = outcome.command;
        console.log('outcome', state, seed_id, error?.reason ?? '');
      }
      if (content === 'draining') return true;
    }
    return false;
  });
}

// A signed command, and the wait for what becomes of it.
async function writeCheckpoint(daemon) {
  const request = { request_id: randomUUID(), reason: 'a policy begins', checkpoint: {} };
  const { command } = await daemon.callSigned('CommandService', 'SubmitCommand', 'AdaptationCommand', request);
  const which = { command_id: command.command_id, wait_ms: 20_000 };
  const done = await daemon.call('CommandService', 'GetCommand', which, 30);
  console.log('checkpoint', done.command.state);
}

const [address, keyFile, name = 'example'] = process.argv.slice(2);
if (keyFile === undefined) {
  console.error('policy.mjs ADDRESS KEY_FILE [NAME]');
  process.exit(2);
}
try {
  const daemon = new Daemon(address, readKeyFile(keyFile));
  await daemon.meet();
  await writeCheckpoint(daemon);
  await Promise.all([watch(daemon), steer(daemon, new Policy(), name)]);
} catch (error) {
  const { status, reason, message, violations } = decode(error);
  console.log('failed', status ?? 'UNKNOWN', reason ?? '');
  for (const field of violations ?? []) console.log('invalid', field);
  console.error(message);
  process.exitCode = 1;
}
process.exit();
