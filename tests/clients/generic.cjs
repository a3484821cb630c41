'use strict'
// As generic.py, for Node.js: `node generic.cjs CLIENT ORIGIN`, beside a node_modules with what package.json names.
// node:http frames no body of a DELETE by itself (what follows it is read as the next request), so that is said here,
// and clients that do not say it are spared it: UNFRAMED.
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
const UNFRAMED = {
  axios: ['stream'],
  got: ['stream'],
  'node-fetch': ['stream'],
  'undici-http2': ['json', 'bytes', 'stream', 'multipart'] // it promises a length, and sends nothing
}
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
      if (method === 'DELETE' && UNFRAMED[client]?.includes(kind)) continue
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

function byUndici (dispatcher) {
  const { request, FormData: Own } = require('undici')
  return each(['none', 'json', 'bytes', 'stream', 'multipart'], async (method, url, body, headers) => {
    if (body instanceof FormData) {
      body = new Own()
      body.append('f', new Blob([BYTES]), 'f.bin')
    }
    const got = await request(url, { method, body, headers, dispatcher })
    await got.body.arrayBuffer()
    return got.statusCode
  })
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
  undici: () => byUndici(),
  'undici.Agent': () => byUndici(new (require('undici').Agent)()),
  'undici-http2': () => byUndici(new (require('undici').Agent)({ allowH2: true })),
  'node-fetch': () => each(['none', 'json', 'form', 'bytes', 'stream'], async (method, url, body, headers) => {
    const got = await require('node-fetch')(url, { method, body, headers })
    await got.buffer()
    return got.status
  }),
  got: async () => {
    const { got } = await import('got')
    return each(ALL, async (method, url, body, headers) => {
      const how = body instanceof URLSearchParams ? { form: Object.fromEntries(body) } : { body }
      return (await got(url, { method, headers, ...how, retry: { limit: 0 } })).statusCode
    })
  },
  http2: () => {
    const session = require('node:http2').connect(origin)
    return each(['none', 'json', 'bytes', 'stream'], (method, url, body, headers) => new Promise((resolve, reject) => {
      const asked = session.request({ ':method': method, ':path': new URL(url).pathname, ...headers }, { endStream: !body })
      asked.on('response', got => asked.resume().on('end', () => resolve(got[':status']))).on('error', reject)
      if (body?.pipe) body.pipe(asked)
      else asked.end(body)
    })).finally(() => session.close())
  }
}

CLIENTS[client]().catch(error => { console.error(error); process.exit(1) })
