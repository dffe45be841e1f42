// node-opcua as a client: reads nodes, after writing some. The task is JSON, on the command line, as is the answer:
// {"url", "security", "user", "password", "trust", "pki", "read": {name: node}, "write": {name: [type, value]}}
//   -> {name: {"value", "status", "type"}}
// `trust` is the server's certificate, the only one that is accepted; `pki` a folder for the client's own.
"use strict";
console.log = console.error; // node-opcua's own remarks: standard output is for the answer alone
const fs = require("node:fs");
const {
  AttributeIds,
  DataType,
  MessageSecurityMode,
  OPCUAClient,
  SecurityPolicy,
  UserTokenType,
  resolveNodeId,
} = require("node-opcua-client");
const { OPCUACertificateManager } = require("node-opcua-certificate-manager");

async function connect(task) {
  const [policy, mode] = task.security.split("/");
  const pki = new OPCUACertificateManager({ rootFolder: task.pki, automaticallyAcceptUnknownCertificate: false });
  await pki.initialize();
  await pki.trustCertificate(fs.readFileSync(task.trust));
  const client = OPCUAClient.create({
    applicationName: "peer",
    clientCertificateManager: pki,
    connectionStrategy: { maxRetry: 1 },
    endpointMustExist: false,
    securityMode: MessageSecurityMode[mode],
    securityPolicy: SecurityPolicy[policy],
  });
  await client.connect(task.url);
  return client;
}

async function main(task) {
  const client = await connect(task);
  try {
    const password = fs.readFileSync(task.password, "utf8").trim();
    const session = await client.createSession({ type: UserTokenType.UserName, userName: task.user, password });
    try {
      return await exchange(session, task);
    } finally {
      await session.close();
    }
  } finally {
    await client.disconnect();
  }
}

async function exchange(session, task) {
  const namespaces = await session.readNamespaceArray();
  const nodeId = (text) => resolveNodeId(text.replace(/^nsu=([^;]*)/, (_, uri) => `ns=${namespaces.indexOf(uri)}`));
  for (const [name, [type, value]] of Object.entries(task.write ?? {})) {
    const status = await session.write({
      nodeId: nodeId(task.read[name]),
      attributeId: AttributeIds.Value,
      value: { value: { dataType: DataType[type], value } },
    });
    if (!status.isGood()) throw new Error(`${name}: ${status}`);
  }
  const names = Object.keys(task.read);
  const found = await session.read(
    names.map((name) => ({ nodeId: nodeId(task.read[name]), attributeId: AttributeIds.Value })),
  );
  return Object.fromEntries(
    found.map((one, place) => [
      names[place],
      { value: one.value.value, status: one.statusCode.name, type: DataType[one.value.dataType] },
    ]),
  );
}

main(JSON.parse(process.argv[2])).then(
  (values) => process.stdout.write(JSON.stringify(values)),
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
