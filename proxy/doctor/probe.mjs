// As probe.py, for Node.js 18 or later. It is handed over with --eval, so that packages are found from the command's
// directory: `node --input-type=module --eval ... [CLIENT URL]`.
import dns from 'node:dns'
import https from 'node:https'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { readFileSync, existsSync } from 'node:fs'

const [client, url] = process.argv.slice(1)
const KEY = 'sk-test-borderpost-doctor'
const REQUIRE = createRequire(join(process.cwd(), 'x.js'))
const main = async name => { const found = await import(name); return found.default ?? found }

function get (options) {
  return new Promise((resolve, reject) => {
    https.get(url, options, answer => { answer.resume().on('end', resolve) }).on('error', reject)
  })
}

const CLIENTS = {
  fetch: ['', () => fetch(url)],
  'node:https': ['', () => get({})],
  'https.Agent': ['', () => get({ agent: new https.Agent({ keepAlive: true }) })],
  axios: ['axios', async () => (await main('axios')).get(url)],
  undici: ['undici', async () => (await import('undici')).request(url)],
  got: ['got', async () => (await import('got')).got(url, { retry: { limit: 0 } })],
  'node-fetch': ['node-fetch', async () => (await main('node-fetch'))(url)],
  ws: ['ws', async () => {
    const socket = new (await main('ws'))(url.replace('https:', 'wss:'))
    await new Promise((resolve, reject) => { socket.on('open', resolve); socket.on('error', reject) })
  }],
  stripe: ['stripe', async () => new (await main('stripe'))(KEY, {
    host: new URL(url).hostname, port: 443, protocol: 'https', maxNetworkRetries: 0
  }).charges.retrieve('ch_1')],
  openai: ['openai', async () => new (await main('openai'))({ apiKey: KEY, baseURL: url, maxRetries: 0 }).models.retrieve('m')],
  '@anthropic-ai/sdk': ['@anthropic-ai/sdk', async () =>
    new (await main('@anthropic-ai/sdk'))({ apiKey: KEY, baseURL: url, maxRetries: 0 }).models.retrieve('m')],
  '@slack/web-api': ['@slack/web-api', async () =>
    new (await import('@slack/web-api')).WebClient(KEY, { slackApiUrl: url + '/api/', retryConfig: { retries: 0 } }).apiTest()]
}

function version (name) {
  for (const place of REQUIRE.resolve.paths(name) ?? []) {
    const file = join(place, name, 'package.json')
    if (existsSync(file)) return JSON.parse(readFileSync(file, 'utf8')).version
  }
}

if (client) {
  let resolved = false
  const { lookup } = dns
  dns.lookup = function (name, ...rest) {
    resolved ||= name === new URL(url).hostname
    return lookup.call(this, name, ...rest)
  }
  let error = ''
  try {
    await CLIENTS[client][1]()
  } catch (raised) {
    const causes = []
    for (let one = raised; one && causes.length < 5; one = one.cause) causes.push(`${one.code ?? one.name}: ${one.message}`)
    error = causes.join(' < ').replace(/\s+/g, ' ').slice(0, 500)
  }
  console.log('\n' + JSON.stringify({ error, resolved }))
} else {
  const found = Object.entries(CLIENTS).map(([name, [pack]]) => [name, pack ? version(pack) : ''])
  console.log('\n' + JSON.stringify(Object.fromEntries(found.filter(([, number]) => number !== undefined))))
}
process.exit(0)
