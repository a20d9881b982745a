'use strict'
// The bridge that most people would write: two sockets, two callbacks, JSON in between.

const { createServer } = require('node:http')
const { WebSocket, WebSocketServer } = require('ws')

const session = {
  system_prompt: 'You are a voice agent.',
  greeting: 'Hello.',
  input: { format: { encoding: 'audio/pcmu' } },
  output: { format: { encoding: 'audio/pcmu' } },
}

const server = createServer((request, response) => response.end('ok\n'))
const streams = new WebSocketServer({ server, path: '/twilio-stream', perMessageDeflate: false })

streams.on('connection', (phone) => {
  let streamSid
  let ready = false
  const agent = new WebSocket(process.env.AGENT_URL, {
    perMessageDeflate: false,
    headers: { Authorization: 'Bearer bench' },
  })

  agent.on('open', () => agent.send(JSON.stringify({ type: 'session.update', session })))
  agent.on('message', (text) => {
    const message = JSON.parse(text)
    if (message.type === 'reply.audio') {
      phone.send(JSON.stringify({ event: 'media', streamSid, media: { payload: message.data } }))
    } else if (message.type === 'session.ready') {
      ready = true
    } else if (message.type === 'reply.done' && message.status === 'interrupted') {
      phone.send(JSON.stringify({ event: 'clear', streamSid }))
    }
  })
  phone.on('message', (text) => {
    const message = JSON.parse(text)
    if (message.event === 'media') {
      if (ready) agent.send(JSON.stringify({ type: 'input.audio', audio: message.media.payload }))
    } else if (message.event === 'start') {
      streamSid = message.start.streamSid
    } else if (message.event === 'stop') {
      agent.close()
    }
  })
  phone.on('close', () => agent.close())
  agent.on('close', () => phone.close())
  for (const socket of [phone, agent]) socket.on('error', (problem) => console.error(problem.message))
})

server.listen(Number(process.env.PORT), '127.0.0.1')
