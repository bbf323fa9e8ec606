// GET /api/render?url=URL answers with a PDF of that page; GET /health with "ok".
'use strict';

const { execFile } = require('node:child_process');
const { mkdtemp, readFile, rm } = require('node:fs/promises');
const http = require('node:http');
const os = require('node:os');
const path = require('node:path');
const { promisify } = require('node:util');

const run = promisify(execFile);
const port = Number(process.env.PDF_PORT || 9555);
const DEADLINE_MS = 60_000;

async function render(url) {
  const folder = await mkdtemp(path.join(os.tmpdir(), 'pdf-'));
  try {
    const file = path.join(folder, 'page.pdf');
    // The container is the sandbox; chromium's own needs privileges that it has not got.
    const options = ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-pdf-header-footer'];
    const argv = [...options, `--user-data-dir=${folder}`, `--print-to-pdf=${file}`, url];
    await run('chromium-headless-shell', argv, { timeout: DEADLINE_MS, env: { ...process.env, HOME: folder } });
    return await readFile(file);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function answer(request, response) {
  const { pathname, searchParams } = new URL(request.url, 'http://localhost');
  if (pathname === '/health') {
    response.end('ok\n');
    return;
  }
  const url = searchParams.get('url');
  if (pathname !== '/api/render' || !url || !/^https?:/.test(url)) {
    response.writeHead(400).end('expected /api/render?url=http…\n');
    return;
  }
  const pdf = await render(url);
  response.writeHead(200, { 'Content-Type': 'application/pdf', 'Content-Length': pdf.length }).end(pdf);
}

const server = http.createServer((request, response) => {
  answer(request, response).catch((error) => {
    console.error(error);
    response.writeHead(500).end(`${error.message}\n`);
  });
});

// On the loopback alone: whoever can ask can have pages fetched that only this machine sees.
server.listen(port, '127.0.0.1', () => console.log(`url-to-pdf listens on 127.0.0.1:${port}`));
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(0));
