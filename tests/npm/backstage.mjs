// A real Backstage backend: catalog, auth with the guest, events, and a plugin of our own that
// sends through the services that every plugin has. Its notifications and signals backends are
// absent. Calls and answers are lines of JSON, as of clients.mjs; its log is standard error. It
// answers once it has started, and ends with its standard input.
//
//   node backstage.mjs --config app-config.yaml
//
//   {"id": 1, "call": "notifications.send", "args": [{…}]}
//   {"id": 2, "call": "signals.publish", "args": [{…}]}
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';

const require = createRequire(`${process.cwd()}/`);
const { createBackend } = require('@backstage/backend-defaults');
const { createBackendPlugin } = require('@backstage/backend-plugin-api');
const { notificationService } = require('@backstage/plugin-notifications-node');
const { signalsServiceRef } = require('@backstage/plugin-signals-node');

// The log of a backend goes to standard output, which is for answers alone.
const answer = process.stdout.write.bind(process.stdout);
process.stdout.write = process.stderr.write.bind(process.stderr);
const say = line => answer(`${JSON.stringify(line)}\n`);

const services = {};
const proof = createBackendPlugin({
  pluginId: 'proof',
  register(env) {
    env.registerInit({
      deps: { notifications: notificationService, signals: signalsServiceRef },
      async init(deps) {
        Object.assign(services, deps);
      },
    });
  },
});

const backend = createBackend();
for (const plugin of [
  'plugin-auth-backend',
  'plugin-auth-backend-module-guest-provider',
  'plugin-catalog-backend',
  'plugin-events-backend',
]) {
  backend.add(require(`@backstage/${plugin}`).default);
}
backend.add(proof);
await backend.start().catch(() => process.exit(1));

const input = createInterface({ input: process.stdin });
input.on('close', () => process.exit(0));
input.on('line', async text => {
  const { id, call, args } = JSON.parse(text);
  const [service, method] = call.split('.');
  try {
    say({ id, result: (await services[service][method](...args)) ?? null });
  } catch ({ message, statusCode }) {
    say({ id, error: { message, statusCode } });
  }
});
