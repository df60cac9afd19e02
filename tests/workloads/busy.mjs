// JavaScript that is compiled while it runs, and native code that it calls.
import { deflateSync } from "node:zlib";

const text = JSON.stringify(Array.from({ length: 20000 }, (_, i) => ({ id: i, name: `name ${i * 7919}` })));

function sumsUp() {
    let sum = 0;
    for (let i = 0; i < 3e6; i++) sum = (sum * 31 + i) % 1000003;
    return sum;
}

function parses() {
    return JSON.parse(text).filter((entry) => /9+1/.test(entry.name)).length;
}

console.log("ready");
for (;;) {
    sumsUp();
    parses();
    deflateSync(text);
}
