// nodes7 as a client: reads addresses, after writing some. The task is JSON, on the command line, as is the answer:
// {"port": 102, "rack": 0, "slot": 1, "read": {name: address}, "write": {name: value}} -> {name: value}
"use strict";
const { promisify } = require("node:util");
const NodeS7 = require("nodes7");

async function main(task) {
  const plc = new NodeS7({ silent: true });
  const called = (method, ...rest) => promisify((done) => plc[method](...rest, done))();
  await called("initiateConnection", { host: "127.0.0.1", port: task.port, rack: task.rack, slot: task.slot });
  try {
    plc.setTranslationCB((name) => task.read[name]);
    plc.addItems(Object.keys(task.read));
    const written = Object.entries(task.write ?? {});
    if (written.length > 0) {
      await called("writeItems", written.map(([name]) => name), written.map(([, value]) => value));
    }
    return await new Promise((resolve, reject) => {
      plc.readAllItems((bad, values) => (bad ? reject(new Error(JSON.stringify(values))) : resolve(values)));
    });
  } finally {
    await promisify((done) => plc.dropConnection(() => done()))();
  }
}

main(JSON.parse(process.argv[2])).then(
  (values) => {
    process.stdout.write(JSON.stringify(values));
    process.exit(0); // nodes7 leaves a timer of seconds behind
  },
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
