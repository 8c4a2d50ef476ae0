// Backstage's own clients against a Tidings, driven by lines of JSON: a call on standard input,
// its answer and every signal on standard output.
//
//   node clients.mjs http://127.0.0.1:7117
//
//   {"id": 1, "page": 0, "token": TOKEN, "call": "notifications.getStatus", "args": []}
//   {"id": 1, "result": {"unread": 0, "read": 0}}      or {"id": 1, "error": {"message": …}}
//   {"id": 2, "page": 0, "token": TOKEN, "call": "signals.subscribe", "args": ["notifications"]}
//   {"id": 2, "result": null}      and from then on {"signal": 2, "message": {…}}
//
// A page has clients of its own, as in a browser. It ends with its standard input.
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';

const root = `${process.cwd()}/node_modules/@backstage`;
const require = createRequire(`${root}/`);
const load = path => import(pathToFileURL(`${root}/${path}`));

// The classes alone: the packages' front doors bring the whole frontend.
const { NotificationsClient } = await load('plugin-notifications/dist/api/NotificationsClient.esm.js');
const { SignalClient } = await load('plugin-signals/dist/api/SignalClient.esm.js');
const { DefaultNotificationService } = require('@backstage/plugin-notifications-node');

const base = process.argv[2];
const discovery = { getBaseUrl: async plugin => `${base}/api/${plugin}` };

// What the frontend's fetch does: the signed-in user's token on every request.
const fetchAs = token => (url, init) =>
  fetch(url, { ...init, headers: { ...init?.headers, Authorization: `Bearer ${token}` } });

const pages = new Map();
function pageOf({ page, token }) {
  if (!pages.has(page)) {
    pages.set(page, {
      notifications: new NotificationsClient({
        discoveryApi: discovery,
        fetchApi: { fetch: fetchAs(token) },
      }),
      signals: SignalClient.create({
        discoveryApi: discovery,
        identity: { getCredentials: async () => ({ token }) },
      }),
    });
  }
  return pages.get(page);
}

const say = line => process.stdout.write(`${JSON.stringify(line)}\n`);

const subscriptions = new Map();
const calls = {
  notifications(line, method) {
    const [options] = line.args;
    if (options?.createdAfter) options.createdAfter = new Date(options.createdAfter);
    return pageOf(line).notifications[method](options);
  },
  signals(line, method) {
    const [what] = line.args;
    if (method === 'unsubscribe') return subscriptions.get(what).unsubscribe();
    const hear = message => say({ signal: line.id, message });
    subscriptions.set(line.id, pageOf(line).signals.subscribe(what, hear));
  },
  service({ token, args }, method) {
    const auth = {
      getOwnServiceCredentials: async () => ({}),
      getPluginRequestToken: async () => ({ token }),
    };
    return DefaultNotificationService.create({ discovery, auth })[method](...args);
  },
};

const input = createInterface({ input: process.stdin });
input.on('line', async text => {
  const line = JSON.parse(text);
  const [what, method] = line.call.split('.');
  try {
    say({ id: line.id, result: (await calls[what](line, method)) ?? null });
  } catch ({ message, statusCode }) {
    say({ id: line.id, error: { message, statusCode } });
  }
});
input.on('close', () => process.exit(0));
