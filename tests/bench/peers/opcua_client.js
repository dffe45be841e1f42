// node-opcua as a client: {"url", "nodes": [NodeId…]}. For each number of seconds on its standard input it reads all
// nodes with their status and times again and again for so long, then prints how many times a second.
"use strict";
const log = console.log;
console.log = console.error; // its own remarks, such as those on the session's timeout
const readline = require("node:readline");
const task = JSON.parse(process.argv[2]);
const { AttributeIds, OPCUAClient } = require(`${task.modules}/node-opcua-client`);

async function main() {
  const client = OPCUAClient.create({ endpointMustExist: false, connectionStrategy: { maxRetry: 1 } });
  await client.connect(task.url);
  const session = await client.createSession();
  const wanted = task.nodes.map((nodeId) => ({ nodeId, attributeId: AttributeIds.Value }));
  log("connected");
  for await (const seconds of readline.createInterface({ input: process.stdin })) {
    const began = performance.now();
    let count = 0;
    for (; performance.now() < began + seconds * 1000; count++) {
      const found = await session.read(wanted);
      if (!found.every((one) => one.statusCode.isGood() && one.sourceTimestamp)) throw new Error("a bad value");
    }
    log((count * 1000) / (performance.now() - began));
  }
  process.exit(0);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
