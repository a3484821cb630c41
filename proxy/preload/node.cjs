'use strict'
// Run by Node.js before the program, through NODE_OPTIONS=--require: makes clients that read no proxy variable use the
// proxy, and lets TLS trust its authority beside whatever a program names. Node 18 and later, no dependencies.
//
// What this Node does by itself (NODE_USE_ENV_PROXY: from 22.21 and 24) is left to it. Else:
//   http and https: every Agent's createConnection goes through a tunnel, so that SDKs with an agent of their own do too;
//   fetch and undici: the global dispatcher becomes one whose connections go through a tunnel;
//   tls.connect: what offers HTTP by ALPN and was given no socket goes through a tunnel.
// Nothing here may keep the program from starting: a failure is written to `failures` beside this file, for
// `borderpost doctor`, and the program goes on as without us. BORDERPOST_NO_PRELOAD=1 turns it off.

const fs = require('node:fs')
const path = require('node:path')

function attempt (what, act) {
  try {
    act()
  } catch (error) {
    try {
      const file = path.join(__dirname, 'failures')
      if (!fs.existsSync(file) || fs.statSync(file).size < 65536) {
        fs.appendFileSync(file, `node ${process.versions.node}: ${what}: ${String(error).split('\n')[0]}\n`)
      }
    } catch {}
  }
}

function install () {
  const net = require('node:net')
  const tls = require('node:tls')
  const http = require('node:http')
  const https = require('node:https')
  const { Duplex } = require('node:stream')

  const named = process.env.https_proxy || process.env.HTTPS_PROXY || process.env.http_proxy || process.env.HTTP_PROXY
  if (!named) return
  const proxy = new URL(named)
  if (proxy.protocol !== 'http:') return
  const at = { host: proxy.hostname.replace(/^\[|\]$/g, ''), port: Number(proxy.port || 80) }
  const user = proxy.username + proxy.password
    ? Buffer.from(`${decodeURIComponent(proxy.username)}:${decodeURIComponent(proxy.password)}`).toString('base64')
    : ''
  const authority = fs.readFileSync(path.join(__dirname, 'ca.pem'), 'utf8')
  const { connect: dial } = net
  const { connect: secure } = tls

  // Whether a connection to there is left alone: the proxy itself, and what NO_PROXY says by now.
  function direct (host, port) {
    if (String(host).replace(/^\[|\]$/g, '') === at.host && Number(port) === at.port) return true
    const list = (process.env.no_proxy || process.env.NO_PROXY || '').toLowerCase()
    return list.split(/[\s,]+/).filter(Boolean).some(entry => {
      const [name, only] = entry.replace(/^\*?\./, '').split(/:(?=\d+$)/)
      if (only && Number(only) !== Number(port)) return false
      const asked = String(host).toLowerCase()
      return name === '*' || asked === name || asked.endsWith('.' + name)
    })
  }

  // Opens a tunnel (RFC 9110 9.3.6) to host:port; gives the socket, at which what follows begins.
  function tunnel (host, port, done) {
    const authority = `${net.isIPv6(host) ? `[${host}]` : host}:${port}`
    const socket = dial(at)
    let head = Buffer.alloc(0)
    function end (error) {
      socket.off('readable', read).off('error', end).off('end', gone)
      if (error) {
        socket.on('error', () => {}).destroy()
        done(error)
      } else {
        done(null, socket)
      }
    }
    function gone () { end(new Error('the proxy closed the connection')) }
    function read () {
      for (let chunk; (chunk = socket.read()) !== null;) {
        head = Buffer.concat([head, chunk])
        const stop = head.indexOf('\r\n\r\n')
        if (stop >= 0) {
          const status = head.toString('latin1', 0, head.indexOf('\r\n'))
          if (!/^HTTP\/1\.[01] 2/.test(status)) return end(new Error(`the proxy refused a tunnel to ${authority}: ${status}`))
          if (head.length > stop + 4) socket.unshift(head.subarray(stop + 4))
          return end(null)
        }
        if (head.length > 65536) return end(new Error('the proxy gave no answer that can be read'))
      }
    }
    socket.on('readable', read).on('error', end).on('end', gone)
    socket.write(`CONNECT ${authority} HTTP/1.1\r\nHost: ${authority}\r\n` +
      (user ? `Proxy-Authorization: Basic ${user}\r\n` : '') + '\r\n')
  }

  // A stream that is a tunnel once it is open: for who wants a socket at once.
  class Pending extends Duplex {
    constructor (host, port) {
      super()
      this._waiting = []
      tunnel(host, port, (error, socket) => {
        if (error) return this.destroy(error)
        if (this.destroyed) return socket.destroy()
        this._socket = socket
        socket.on('data', chunk => { if (!this.push(chunk)) socket.pause() })
        socket.on('end', () => this.push(null)).on('error', failed => this.destroy(failed))
        socket.on('close', () => this.destroy())
        for (const act of this._waiting) act(socket)
      })
    }

    _when (act) { if (this._socket) act(this._socket); else this._waiting.push(act) }
    _read () { if (this._socket) this._socket.resume() }
    _write (chunk, encoding, done) { this._when(socket => socket.write(chunk, encoding, done)) }
    _final (done) { this._when(socket => socket.end(done)) }
    _destroy (error, done) { this._socket?.destroy(); done(error) }
    setTimeout (ms, act) { this._when(socket => socket.setTimeout(ms, act)); return this }
    setNoDelay (on) { this._when(socket => socket.setNoDelay(on)); return this }
    setKeepAlive (on, ms) { this._when(socket => socket.setKeepAlive(on, ms)); return this }
    ref () { this._when(socket => socket.ref()); return this }
    unref () { this._when(socket => socket.unref()); return this }
  }

  function normalised (args) {
    const [options] = net._normalizeArgs ? net._normalizeArgs(args) : [args[0]]
    return options
  }

  // What says that it will speak HTTP, and dials by itself: http2, and undici with a dispatcher of the program's own.
  function dialled (options, args) {
    const { host, port } = { ...normalised(args), ...options }
    const speaks = Array.isArray(options.ALPNProtocols) && options.ALPNProtocols.some(name => /^(h2|http\/1\.1)$/.test(name))
    return speaks && port && !options.socket && !options.path && !direct(host || 'localhost', port)
      ? new Pending(host || 'localhost', port)
      : null
  }

  // Trust us beside the authorities that a program names; those it does not name come from NODE_EXTRA_CA_CERTS.
  tls.connect = function connect (...args) {
    const options = args.find(one => one !== null && typeof one === 'object')
    if (!options) return secure.apply(this, args)
    const added = options.ca && !options.secureContext ? { ca: [].concat(options.ca, authority) } : {}
    const through = dialled(options, args)
    if (through) added.socket = through
    args[args.indexOf(options)] = { ...options, ...added }
    const made = secure.apply(this, args)
    // TLS over a stream does not hand these on.
    if (through) for (const name of ['ref', 'unref']) made[name] = () => { through[name](); return made }
    return made
  }

  function wrap (prototype, port, finish) {
    const { createConnection } = prototype
    prototype.createConnection = function patched (...args) {
      const callback = args.find(one => typeof one === 'function')
      const options = normalised(args)
      const there = [options.host || 'localhost', options.port || port]
      if (options.socketPath || options.path || options.socket || this.options?.proxyEnv || direct(...there)) {
        return createConnection.apply(this, args)
      }
      const complete = socket => finish ? createConnection.call(this, { ...options, socket }) : socket
      // Node itself takes the socket from the callback, as soon as it is there. A subclass may want it at once.
      if (!callback || this?.createConnection !== patched) return complete(new Pending(...there))
      tunnel(...there, (error, socket) => {
        if (error) return callback(error)
        if (options.timeout) socket.setTimeout(options.timeout)
        let made
        try {
          made = complete(socket)
        } catch (failed) {
          socket.destroy()
          return callback(failed)
        }
        callback(null, made)
      })
    }
  }
  attempt('https', () => wrap(https.Agent.prototype, 443, true))
  attempt('http', () => wrap(http.Agent.prototype, 80, false))

  // ws dials by itself, with functions of these names, where it was given no agent.
  function wrapRequest (module) {
    const { request } = module
    module.request = function (...args) {
      const options = args.find(one => one !== null && typeof one === 'object' && !(one instanceof URL))
      const dials = options && !options.agent && !options.socketPath && options.createConnection?.name
      if (dials === 'tlsConnect' || dials === 'netConnect') options.agent = module.globalAgent
      return request.apply(this, args)
    }
  }
  attempt('ws', () => [http, https].forEach(wrapRequest))

  // What undici calls a connector: gives a socket for { hostname, protocol, port, servername }.
  function connector (tlsOptions) {
    return function connect (options, callback) {
      const { hostname, protocol, servername } = options
      const host = hostname.replace(/^\[|\]$/g, '')
      const port = Number(options.port || (protocol === 'https:' ? 443 : 80))
      const ready = raw => {
        if (protocol !== 'https:') return callback(null, raw)
        const name = servername || (net.isIP(host) ? undefined : host)
        const socket = tls.connect({ ...tlsOptions, socket: raw, servername: name, host, ALPNProtocols: ['http/1.1'] })
        const failed = error => callback(error)
        socket.once('error', failed).once('secureConnect', () => { socket.off('error', failed); callback(null, socket) })
      }
      if (direct(host, port)) {
        const socket = dial({ host, port })
        socket.once('error', callback).once('connect', () => { socket.off('error', callback); ready(socket) })
      } else {
        tunnel(host, port, (error, socket) => error ? callback(error) : ready(socket))
      }
    }
  }

  attempt('fetch', () => {
    if (typeof globalThis.Headers !== 'function') return
    const symbol = Symbol.for('undici.globalDispatcher.1')
    void new globalThis.Headers() // loads what fetch is made of, and with it the global dispatcher
    const Agent = globalThis[symbol]?.constructor
    if (Agent?.name === 'Agent') globalThis[symbol] = new Agent({ connect: connector({}) })
  })

  // undici from 8 on keeps its dispatcher under another symbol, which only Node 24 has too.
  attempt('undici', () => {
    const Module = require('node:module')
    const symbol = Symbol.for('undici.globalDispatcher.2')
    if (globalThis[symbol]) return
    const { _load: load } = Module
    Module._load = function (request, ...rest) {
      const loaded = load.call(this, request, ...rest)
      const Agent = loaded?.Agent
      if (typeof Agent === 'function' && globalThis[symbol]?.constructor === Agent && !Agent.borderpost) {
        attempt('undici', () => {
          Agent.borderpost = true
          loaded.setGlobalDispatcher(new Agent({ connect: connector({}) }))
        })
      }
      return loaded
    }
  })
}

if (/^(0|false|no)?$/i.test(process.env.BORDERPOST_NO_PRELOAD || '')) attempt('start', install)
