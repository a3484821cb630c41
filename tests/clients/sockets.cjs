'use strict'
// As sockets.py, for Node.js.
const [, , client, url] = process.argv
const SAID = ['hello', Buffer.alloc(2000, Buffer.from([0, 1])), '\u00fc'.repeat(70000), 'bye']
const fail = error => { console.error(error); process.exit(1) }
const { WebSocket } = require(client)
const socket = new WebSocket(url)
socket.binaryType = 'arraybuffer'
let said = 0
socket.addEventListener('error', event => fail(event.error ?? event))
socket.addEventListener('open', () => socket.send(SAID[0]))
socket.addEventListener('message', ({ data }) => {
  const text = typeof data === 'string'
  if (text ? data !== SAID[said].toUpperCase() : Buffer.compare(Buffer.from(data), SAID[said])) fail(`not the echo of ${said}`)
  if (++said < SAID.length) socket.send(SAID[said])
  else socket.close(1000)
})
socket.addEventListener('close', event => process.exit(said === SAID.length && event.code === 1000 ? 0 : 1))
