// nodes7 as a client: {"port", "items": [address…]}. For each number of seconds on its standard input it reads all
// items again and again for so long, then prints how many times a second.
"use strict";
const readline = require("node:readline");
const task = JSON.parse(process.argv[2]);
const NodeS7 = require(`${task.modules}/nodes7`);

const plc = new NodeS7({ silent: true });

function read(end, count, done) {
  plc.readAllItems((bad, values) => {
    if (bad) throw new Error(JSON.stringify(values));
    if (process.hrtime.bigint() < end) read(end, count + 1, done);
    else done(count + 1);
  });
}

plc.initiateConnection({ host: "127.0.0.1", port: task.port, rack: 0, slot: 1 }, (error) => {
  if (error) throw error;
  plc.addItems(task.items);
  console.log("connected");
  readline
    .createInterface({ input: process.stdin })
    .on("line", (seconds) => {
      const began = process.hrtime.bigint();
      read(began + BigInt(Math.round(seconds * 1e9)), 0, (count) =>
        console.log((count * 1e9) / Number(process.hrtime.bigint() - began)),
      );
    })
    .on("close", () => process.exit(0));
});
