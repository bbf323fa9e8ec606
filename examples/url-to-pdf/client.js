// pdf_client URL [NAME.pdf]: asks the server for a PDF of a page and writes it to /output.
'use strict';

const { writeFileSync } = require('node:fs');
const path = require('node:path');

const [url, name = 'page.pdf'] = process.argv.slice(2);
const port = process.env.PDF_PORT || 9555;

async function main() {
  if (!url) throw new Error('usage: pdf_client URL [NAME.pdf]');
  const answer = await fetch(`http://127.0.0.1:${port}/api/render?url=${encodeURIComponent(url)}`);
  if (!answer.ok) throw new Error(`the server answered ${answer.status}: ${await answer.text()}`);
  const file = path.join('/output', path.basename(name));
  writeFileSync(file, Buffer.from(await answer.arrayBuffer()));
  console.log(file);
}

main().catch((error) => {
  console.error(error.cause?.code === 'ECONNREFUSED' ? `nothing listens on port ${port}: is the service started?` : error.message);
  process.exit(1);
});
