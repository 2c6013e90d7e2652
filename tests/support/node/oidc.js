// An OpenID provider that signs in whoever asks, without a page in between.
// Usage: node oidc.js <folder with node_modules> <port>; one JSON line on stdout when it listens.
import { createServer } from 'node:http';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const [modules, port] = process.argv.slice(2);
const entry = pathToFileURL(join(modules, 'node_modules/oidc-provider/lib/index.js'));
const { default: Provider } = await import(entry);

const issuer = `http://127.0.0.1:${port}`;
const secret = 's3cr3t+/=: x%';
const machine = { redirect_uris: [], response_types: [], grant_types: ['client_credentials'] };
const login = {
  redirect_uris: ['http://127.0.0.1/callback'],
  response_types: ['code'],
  grant_types: ['authorization_code', 'refresh_token'],
  application_type: 'native',
};
const counts = { token: 0 };

const provider = new Provider(issuer, {
  clients: [
    { client_id: 'by-basic', client_secret: secret, token_endpoint_auth_method: 'client_secret_basic', ...machine },
    { client_id: 'by-post', client_secret: secret, token_endpoint_auth_method: 'client_secret_post', ...machine },
    { client_id: 'short-lived', client_secret: secret, token_endpoint_auth_method: 'client_secret_basic', ...machine },
    { client_id: 'app', client_secret: secret, token_endpoint_auth_method: 'client_secret_basic', ...login },
    { client_id: 'public', token_endpoint_auth_method: 'none', ...login },
  ],
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: false },
    introspection: { enabled: true },
  },
  scopes: ['openid', 'offline_access', 'api:read'],
  pkce: { required: () => true },
  rotateRefreshToken: true,
  issueRefreshToken: async () => true,
  ttl: {
    AccessToken: 3,
    AuthorizationCode: 60,
    ClientCredentials: (ctx, token, client) => (client.clientId === 'short-lived' ? 3 : 600),
    Grant: 3600,
    Interaction: 600,
    RefreshToken: 3600,
    Session: 3600,
  },
  findAccount: (ctx, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
  interactions: { url: (ctx, interaction) => `/interaction/${interaction.uid}` },
});

async function signIn(req, res) {
  const { prompt, params, session } = await provider.interactionDetails(req, res);
  if (prompt.name === 'login') {
    await provider.interactionFinished(req, res, { login: { accountId: 'tester' } });
    return;
  }
  const grant = new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
  grant.addOIDCScope('openid offline_access api:read');
  await provider.interactionFinished(req, res, { consent: { grantId: await grant.save() } });
}

// The API that the tokens are for: says who they belong to, and refuses what has expired or was made up.
async function api(req, res) {
  const given = (req.headers.authorization ?? '').replace(/^Bearer /i, '');
  const token = (await provider.AccessToken.find(given)) ?? (await provider.ClientCredentials.find(given));
  const answer = token && !token.isExpired ? { client: token.clientId, account: token.accountId ?? null } : null;
  res.writeHead(answer ? 200 : 401, { 'content-type': 'application/json', 'www-authenticate': 'Bearer' });
  res.end(JSON.stringify(answer ?? { error: 'invalid_token' }));
}

const handle = provider.callback();
createServer((req, res) => {
  const path = req.url.split('?')[0];
  const fail = (error) => res.writeHead(500).end(String(error));
  if (path === '/token') counts.token += 1;
  if (path === '/counts') res.end(JSON.stringify(counts));
  else if (path === '/api/whoami') api(req, res).catch(fail);
  else if (path.startsWith('/interaction/')) signIn(req, res).catch(fail);
  else handle(req, res);
}).listen(Number(port), '127.0.0.1', () => console.log(JSON.stringify({ url: issuer })));
