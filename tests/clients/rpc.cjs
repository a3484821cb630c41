'use strict'
// As `rpc.py call PORT`, for Node.js, by @grpc/grpc-js.
const grpc = require('@grpc/grpc-js')
const client = new grpc.Client(`localhost:${process.argv[2]}`, grpc.credentials.createSsl())
const same = bytes => bytes
const three = ['abc', 'def', 'ghi'].map(text => Buffer.from(text))
const CALLS = ['Get', 'List', 'Sum', 'Echo', 'Close', 'Pay', 'Pay', 'Refuse', 'Refuse']

function made (method) {
  const path = `/bank.Bank/${method}`
  const metadata = new grpc.Metadata()
  metadata.set('x-agent', 'ada')
  const options = { deadline: Date.now() + 30000 }
  return new Promise(resolve => {
    const said = []
    const kept = {}
    const keep = found => Object.assign(kept, Object.fromEntries(Object.entries(found.getMap())
      .map(([name, value]) => [name, typeof value === 'string' ? value : value.toString('hex')])))
    const one = (error, answer) => { if (!error) said.push(answer.toString()) }
    let call
    if (method === 'List') call = client.makeServerStreamRequest(path, same, same, three[0], metadata, options)
    else if (method === 'Sum') call = client.makeClientStreamRequest(path, same, same, metadata, options, one)
    else if (method === 'Echo') call = client.makeBidiStreamRequest(path, same, same, metadata, options)
    else call = client.makeUnaryRequest(path, same, same, three[0], metadata, options, one)
    call.on('metadata', keep).on('error', () => {})
    call.on('status', ({ code, details, metadata }) => {
      if (code === 0) keep(metadata)
      resolve([method, grpc.status[code], details, said, code === 0 ? kept : {}])
    })
    if (['List', 'Echo'].includes(method)) call.on('data', answer => said.push(answer.toString()))
    if (['Sum', 'Echo'].includes(method)) {
      three.forEach(each => call.write(each))
      call.end()
    }
  })
}

async function all () {
  for (const method of CALLS) console.log(JSON.stringify(await made(method)))
  client.close()
}

all()
