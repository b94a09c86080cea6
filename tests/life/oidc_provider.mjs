// An OpenID provider: the package `oidc-provider`, with keys and clients from standard input, on loopback.
//
//   node oidc_provider.mjs DIR < settings.json        DIR: the folder that has node_modules
//
// Settings: {"port": 0, "keys": JWKS, "audience": "…", "ttl": seconds, "clients": [{"id", "secret", "claims"}]}.
// The first line it prints is its port. Access tokens are JWTs (RFC 9068) for the resources urn:alg:RS256 and urn:alg:ES256;
// the grant `urn:test:user` gives one for a user. Under /control it tells how often it was asked, and takes new keys: the
// first key of an algorithm signs, all are published.

import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import path from 'node:path';
import { pathToFileURL } from 'node:url';

const require = createRequire(path.join(path.resolve(process.argv[2]), 'package.json'));
const { Provider } = await import(pathToFileURL(require.resolve('oidc-provider')));
const { port, keys, audience, ttl, clients } = JSON.parse(readFileSync(0, 'utf8'));

const USER_GRANT = 'urn:test:user';
const counts = {};
let answer;

function resource(uri) {
  const alg = uri.replace('urn:alg:', '');
  return { audience, scope: '', accessTokenFormat: 'jwt', accessTokenTTL: ttl, jwt: { sign: { alg } } };
}

function listenerFor(issuer, jwks) {
  const provider = new Provider(issuer, {
    jwks,
    clients: clients.map(({ id, secret }) => ({
      client_id: id,
      client_secret: secret,
      grant_types: ['client_credentials', USER_GRANT],
      redirect_uris: [],
      response_types: [],
    })),
    features: {
      clientCredentials: { enabled: true },
      devInteractions: { enabled: false },
      resourceIndicators: { enabled: true, getResourceServerInfo: (ctx, uri) => resource(uri) },
    },
    extraTokenClaims: (ctx, token) => clients.find(({ id }) => id === token.clientId).claims,
    ttl: { ClientCredentials: ttl, AccessToken: ttl },
  });
  provider.registerGrantType(USER_GRANT, async (ctx) => {
    const { client, params } = ctx.oidc;
    const token = new provider.AccessToken({ accountId: params.user, client, gty: USER_GRANT });
    token.resourceServer = new provider.ResourceServer(params.resource, resource(params.resource));
    ctx.body = { access_token: await token.save(), token_type: 'Bearer', expires_in: ttl };
  }, ['user', 'resource']);
  return provider.callback();
}

function control(request, response) {
  if (request.method === 'GET') {
    response.end(JSON.stringify(counts));
    return;
  }
  const parts = [];
  request.on('data', (part) => parts.push(part));
  request.on('end', () => {
    answer = listenerFor(issuer, JSON.parse(Buffer.concat(parts)));
    response.end('{}');
  });
}

const server = createServer((request, response) => {
  if (request.url === '/control') {
    control(request, response);
    return;
  }
  counts[request.url] = (counts[request.url] ?? 0) + 1;
  answer(request, response);
});
await new Promise((listening) => server.listen(port, '127.0.0.1', listening));
const issuer = `http://127.0.0.1:${server.address().port}`;
answer = listenerFor(issuer, keys);
console.log(server.address().port);
