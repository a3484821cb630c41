'use strict'
// As generic.py, for Node.js: `node generic.cjs CLIENT ORIGIN`, with NODE_PATH at the packages.
// node:http frames no body of a DELETE by itself (what follows it is read as the next request), so that is said here,
// and clients that do not say it are spared it.
const { createHash } = require('node:crypto')
const { Readable } = require('node:stream')
const https = require('node:https')

const [, , client, origin] = process.argv
const METHODS = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE']
const JSON_TEXT = '{"amount":500,"note":"\u00fc"}'
const BYTES = Buffer.alloc(102400, 'b')
const CHUNK = Buffer.alloc(8192, 'x')
const CHUNKS = 40
const sha256 = content => createHash('sha256').update(content).digest('hex')
const DIGESTS = { none: sha256(''), json: sha256(JSON_TEXT), bytes: sha256(BYTES), stream: sha256(Buffer.alloc(8192 * CHUNKS, 'x')) }
const TYPES = { json: { 'content-type': 'application/json' }, bytes: { 'content-type': 'application/octet-stream' } }
const stream = () => Readable.from(Array.from({ length: CHUNKS }, () => CHUNK))
const pathOf = kind => `/m/${client}/${kind}`
const tell = (method, path, status, digest) => console.log(JSON.stringify([method, path, status, digest ?? null]))

function form () {
  const made = new FormData()
  made.append('f', new Blob([BYTES]), 'f.bin')
  return made
}

const BODIES = {
  none: () => undefined,
  json: () => JSON_TEXT,
  form: () => new URLSearchParams({ a: '1', b: '\u00fc' }),
  multipart: form,
  bytes: () => BYTES,
  stream
}

async function each (kinds, call) {
  for (const method of METHODS) {
    for (const kind of ['GET', 'HEAD'].includes(method) ? ['none'] : kinds) {
      if (method === 'DELETE' && kind === 'stream' && ['axios', 'node-fetch'].includes(client)) continue
      const status = await call(method, origin + pathOf(kind), BODIES[kind](), TYPES[kind] ?? {})
      tell(method, pathOf(kind), status, DIGESTS[kind])
    }
  }
}

function byHttps (agent) {
  return each(['none', 'json', 'bytes', 'stream'], (method, url, body, headers) => new Promise((resolve, reject) => {
    if (body?.pipe) headers = { ...headers, 'transfer-encoding': 'chunked' }
    else if (body) headers = { ...headers, 'content-length': Buffer.byteLength(body) }
    const asked = https.request(url, { method, headers, agent }, got => {
      got.resume().on('end', () => resolve(got.statusCode))
    }).on('error', reject)
    if (body?.pipe) body.pipe(asked)
    else asked.end(body)
  }))
}

const ALL = Object.keys(BODIES)
const CLIENTS = {
  fetch: () => each(ALL, async (method, url, body, headers) => {
    const got = await fetch(url, { method, headers, body, duplex: body?.pipe ? 'half' : undefined })
    await got.arrayBuffer()
    return got.status
  }),
  https: () => byHttps(undefined),
  'https.Agent': () => byHttps(new https.Agent({ keepAlive: true })),
  axios: () => each(ALL, async (method, url, data, headers) =>
    (await require('axios')({ method, url, data, headers, maxRedirects: 0 })).status),
  undici: () => each(['none', 'json', 'bytes', 'stream', 'multipart'], async (method, url, body, headers) => {
    const { request, FormData: Own } = require('undici')
    if (body instanceof FormData) {
      body = new Own()
      body.append('f', new Blob([BYTES]), 'f.bin')
    }
    const got = await request(url, { method, body, headers })
    await got.body.arrayBuffer()
    return got.statusCode
  }),
  'node-fetch': () => each(['none', 'json', 'form', 'bytes', 'stream'], async (method, url, body, headers) => {
    const got = await require('node-fetch')(url, { method, body, headers })
    await got.buffer()
    return got.status
  }),
  stripe: async () => {
    const Stripe = require('stripe')
    const { hostname, port } = new URL(origin)
    const made = new (Stripe.default ?? Stripe)('sk_test_1', { host: hostname, port, protocol: 'https' })
    await made.refunds.create({ charge: 'ch_1', amount: 500 })
    tell('POST', '/v1/refunds', 200)
  },
  openai: async () => {
    const OpenAI = require('openai')
    const made = new OpenAI({ apiKey: 'sk-1', baseURL: origin + '/v1' })
    await made.chat.completions.create({ model: 'm', messages: [{ role: 'user', content: 'hi' }] })
    tell('POST', '/v1/chat/completions', 200)
  }
}

CLIENTS[client]().catch(error => { console.error(error); process.exit(1) })
