'use strict'
// As sdks.py, for Node.js; run beside a node_modules with what package.json names.
const [, , how, name, origin, elsewhere] = process.argv
const ROWS = ['denied', 'duplicate', 'spent', 'pause', 'unreached', 'cut', 'failing', 'cooldown']
const TWICE = ['duplicate', 'spent', 'pause', 'cooldown']
const REFUND = new URLSearchParams({ charge: 'ch_1', amount: '500' })
const ONCE = { rejectRateLimitedCalls: true, retryConfig: { retries: 0 } } // for Slack
const CHAT = { model: 'm', messages: [{ role: 'user', content: 'hi' }] }

const SDKS = {
  axios: base => require('axios').post(base + '/v1/refunds', REFUND),
  got: async base => (await import('got')).default.post(base + '/v1/refunds', { form: { charge: 'ch_1' } }),
  'stripe-node': (base, own) => {
    const { hostname, port, pathname } = new URL(base)
    const Stripe = require('stripe')
    const host = { host: hostname, port, protocol: 'https' }
    const made = new (Stripe.default ?? Stripe)('sk_test_1', { ...host, ...own ?? { maxNetworkRetries: 0 } })
    // It knows no base with a path.
    return made.rawRequest('POST', pathname.replace(/\/$/, '') + '/v1/refunds', { charge: 'ch_1', amount: 500 })
  },
  'openai-node': (base, own) => new (require('openai'))({ apiKey: 'sk-1', baseURL: base + '/v1', ...own ?? { maxRetries: 0 } })
    .chat.completions.create(CHAT),
  '@anthropic-ai/sdk': (base, own) => new (require('@anthropic-ai/sdk'))({ apiKey: 'sk-1', baseURL: base, ...own ?? { maxRetries: 0 } })
    .messages.create({ max_tokens: 10, ...CHAT }),
  '@aws-sdk': (base, own) => {
    const { DynamoDBClient, PutItemCommand } = require('@aws-sdk/client-dynamodb')
    const credentials = { accessKeyId: 'AKIAEXAMPLE', secretAccessKey: 'secret' }
    const made = new DynamoDBClient({ endpoint: base, region: 'us-east-1', credentials, ...own ?? { maxAttempts: 1 } })
    return made.send(new PutItemCommand({ TableName: 't', Item: { a: { S: '1' } } }))
  },
  '@slack/web-api': (base, own) => new (require('@slack/web-api').WebClient)('xoxb-1', { slackApiUrl: base + '/', logLevel: 'error', ...own ?? ONCE })
    .chat.postMessage({ channel: 'C1', text: 'hi' }),
  '@octokit/rest': async base => {
    const { Octokit } = await import('@octokit/rest')
    return new Octokit({ auth: 'ghp_1', baseUrl: base }).issues.create({ owner: 'acme', repo: 'shop', title: 'broken' })
  },
  '@notionhq/client': (base, own) => new (require('@notionhq/client').Client)({ auth: 'ntn_1', baseUrl: base, ...own ?? { retry: false } })
    .pages.create({ parent: { page_id: '1' }, properties: {} }),
  'twilio-node': base => {
    const made = require('twilio')('AC1', 'token')
    made.api.baseUrl = base
    return made.messages.create({ to: '+15550001', from: '+15550002', body: 'hi' })
  }
}

async function whole (stream, textOf) {
  let text = ''
  for await (const event of await stream) text += textOf(event) ?? ''
  process.stdout.write(text)
}

const STREAMS = {
  'openai-node': () => whole(new (require('openai'))({ apiKey: 'sk-1', baseURL: origin + '/v1' })
    .chat.completions.create({ stream: true, ...CHAT }), chunk => chunk.choices[0].delta.content),
  '@anthropic-ai/sdk': () => whole(new (require('@anthropic-ai/sdk'))({ apiKey: 'sk-1', baseURL: origin })
    .messages.create({ stream: true, max_tokens: 10, ...CHAT }), event => event.delta?.text)
}

async function refused (write) {
  for (const row of ROWS) {
    const base = `${row === 'unreached' ? elsewhere : origin}/${row}`
    if (TWICE.includes(row)) await Promise.resolve(write(base)).catch(error => { if (row !== 'cooldown') throw error })
    let raised = ['', '']
    try {
      await write(base, {})
    } catch (error) {
      raised = [error.constructor.name, error.message]
    }
    console.log(JSON.stringify([row, ...raised]))
  }
}

const done = { once: () => SDKS[name](origin, {}), stream: () => STREAMS[name](), refused: () => refused(SDKS[name]) }[how]()
// stripe-node would keep it running for 80 s.
Promise.resolve(done).then(() => process.exit(0), error => { console.error(error); process.exit(1) })
