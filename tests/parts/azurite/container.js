// node container.js http://127.0.0.1:PORT/ACCOUNT NAME: makes a container, signed with the emulators' well-known key.
const crypto = require("crypto");
const http = require("http");

const KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
const url = new URL(process.argv[2]);
const account = url.pathname.slice(1);
const path = `${url.pathname}/${process.argv[3]}`;
const headers = { "x-ms-date": new Date().toUTCString(), "x-ms-version": "2023-11-03" };
const signed = ["PUT", ...Array(11).fill(""), `x-ms-date:${headers["x-ms-date"]}`, `x-ms-version:${headers["x-ms-version"]}`,
  `/${account}${path}`, "restype:container"].join("\n");
const signature = crypto.createHmac("sha256", Buffer.from(KEY, "base64")).update(signed, "utf8").digest("base64");
headers.Authorization = `SharedKey ${account}:${signature}`;
headers["Content-Length"] = 0;
const request = http.request({ host: url.hostname, port: url.port, path: `${path}?restype=container`, method: "PUT", headers }, (answer) => {
  answer.pipe(process.stderr);
  answer.on("end", () => process.exit(answer.statusCode === 201 ? 0 : 1));
});
request.on("error", (error) => { console.error(error); process.exit(1); });
request.end();
